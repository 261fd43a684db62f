"""Exports say what the leaderboard says, in the forms that papers and programs take."""

import csv
import json
import re
import subprocess
import sys
from types import SimpleNamespace

import pytest

from xmore.report import export
from xmore.results.runs import load_run
from xmore.results.views import open_views

ROW = {
    "dataset": "pets & co", "model": "ViT-B-16/openai", "method": "clip", "m": None, "top1": 0.895,
    "ci_low": 0.88, "ci_high": 0.91, "p": None, "top1_std": None, "n": 100,
}  # fmt: skip
ROWS = [
    ROW,
    ROW | {"method": "xmore minmax", "m": 16, "top1": 1.0, "p": 0.01, "top1_std": 0.002},
    ROW | {"dataset": "cars_100%", "top1": 0.5},
    ROW | {"dataset": "cars_100%", "method": "xmore minmax", "m": 16, "top1": 0.0999, "p": 0.5},
]

BUILD = """
import sys
from unittest.mock import MagicMock

# Only its captioning needs this one, whose own dependencies need Java.
for name in ("tokenizer.ptbtokenizer", "bleu.bleu", "meteor.meteor", "rouge.rouge", "cider.cider",
             "spice.spice"):
    for part in ("", f".{name.split('.')[0]}", f".{name}"):
        sys.modules[f"pycocoevalcap{part}"] = MagicMock()
from clip_benchmark.cli import main

main()
"""


@pytest.fixture
def made(monkeypatch):
    """A run of two datasets, of which only the rows of its tables are there."""
    means = [
        {"model": ROW["model"], "method": name, "m": m, "top1": top1, "ci_low": 0.5, "ci_high": 0.7}
        for name, m, top1 in (("clip", None, 0.6975), ("xmore minmax", 16, 0.54995))
    ]
    tables = {"leaderboard": ROWS, "averages": means}
    for name in tables:
        monkeypatch.setattr(export, name, lambda db, run, name=name: name)
    monkeypatch.setattr(export, "records", lambda name: tables[name])
    return SimpleNamespace(name="r", read="memory snapshot s", trial=" (limit 9)")


@pytest.fixture(scope="module")
def db(done):
    return open_views(load_run(done.config.results, done.name))


@pytest.fixture(scope="module")
def run(done):
    return load_run(done.config.results, done.name)


def test_latex_has_a_column_for_each_dataset_the_best_bold_and_what_is_significant(made):
    lines = export.as_latex(None, made, "none").splitlines()
    assert lines[0].startswith("% Run r, memory snapshot s (limit 9).")
    assert lines[2:-2] == [
        r"\begin{tabular}{lccc}",
        r"\toprule",
        r" & pets \& co & cars\_100\% & Mean \\",
        r"\midrule",
        r"\multicolumn{4}{l}{\textit{ViT-B-16/openai}} \\",
        r"clip & 89.5 & \textbf{50.0} & \textbf{69.8} \\",
        r"xmore minmax & \textbf{100.0}$^{*}$ & 10.0 & 55.0 \\",
    ]


def test_who_saw_fewer_images_is_marked_and_never_the_best(made, monkeypatch):
    few = ROW | {"method": "tpt", "top1": 0.99, "n": 10}
    tables = {"leaderboard": [ROW, few], "averages": []}
    monkeypatch.setattr(export, "records", lambda name: tables[name])
    clip, tpt = export.as_latex(None, made, "none").splitlines()[7:9]
    assert clip == r"clip & \textbf{89.5} \\" and tpt == r"tpt † & 99.0 \\"
    assert "| tpt † | 99.0 |" in export.as_markdown(None, made, "none")


def test_the_spread_is_the_interval_or_the_deviation(made):
    assert r"89.5 {\scriptsize $\pm$ 1.5}" in export.as_latex(None, made, "interval")
    text = export.as_markdown(None, made, "seeds")
    assert r"| xmore minmax | **100.0**\* ± 0.2 | 10.0 | 55.0 |" in text
    assert "| clip | 89.5 | **50.0** |" in text and "deviation over the orders" in text


def test_several_m_are_told_apart(made, monkeypatch):
    rows = [*ROWS, ROWS[1] | {"m": 4, "top1": 0.7}]
    monkeypatch.setattr(export, "records", lambda name: rows if name == "leaderboard" else [])
    assert "xmore minmax, M = 4 & 70.0" in export.as_latex(None, made, "none")


@pytest.mark.parametrize("to", ["latex", "markdown", "csv", "json"])
def test_the_command_prints_or_writes_what_the_leaderboard_has(to, done, xmore, db, tmp_path):
    words = ("export", done.name, "--to", to, "--results", done.config.results)
    shown, written = xmore(*words), xmore(*words, "--output", tmp_path / "x")
    assert (shown.returncode, written.returncode) == (0, 0)
    assert (tmp_path / "x").read_text() == shown.stdout
    for (top1,) in db.sql("select top1 from leaderboard").fetchall():
        assert (f"{100 * top1:.1f}" if to in ("latex", "markdown") else str(top1)) in shown.stdout
    if to == "json":
        made = json.loads(shown.stdout)
        assert len(made["leaderboard"]) == len(db.sql("from leaderboard").fetchall())
        assert made["run"] == done.name and made["comparisons"] and made["code"]


def test_clip_benchmark_builds_its_table_of_the_files(done, xmore, run, db, tmp_path):
    answer = xmore("export", done.name, "--to", "clip-benchmark", "--results", done.config.results,
                   "--output", tmp_path / "json")  # fmt: skip
    assert answer.returncode == 0 and "1 file;" in answer.stdout
    words = ["build", tmp_path / "json", "--output", tmp_path / "all.csv"]
    subprocess.run([sys.executable, "-c", BUILD, *words], check=True, capture_output=True)
    (row,) = csv.DictReader((tmp_path / "all.csv").open())
    ((top1, top5),) = db.sql("select top1, top5 from leaderboard where method = 'clip'").fetchall()
    ((recall,),) = db.sql(
        "select avg(hit) from (select avg(correct::int) as hit from predictions "
        "where method = 'clip' group by label)"
    ).fetchall()
    assert (float(row["acc1"]), float(row["acc5"])) == (top1, top5)
    assert float(row["mean_per_class_recall"]) == pytest.approx(recall)
    assert (row["dataset"], row["model_fullname"]) == ("tiny", "lite0 ")
    (named,) = export.write_clip_benchmark(db, run, "xmore minmax", tmp_path / "other")
    assert re.fullmatch(r"tiny_lite0_xmore-minmax_\d+.json", named.name)


def test_what_cannot_be_exported_is_told(done, xmore, tmp_path):
    words = ("export", done.name, "--results", done.config.results, "--to", "clip-benchmark")
    for more, says in (
        ((), "--output FOLDER"),
        (("--output", tmp_path / "x", "--method", "nothing"), "no method `nothing`. It has "),
    ):
        answer = xmore(*words, *more)
        assert answer.returncode == 2 and says in answer.stderr
    assert not list(tmp_path.iterdir())
