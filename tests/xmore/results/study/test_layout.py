"""Paths in a study: none of the sender's, and the receiver's own once it is open."""

from pathlib import Path

import pytest

from xmore.files.paths import PROJECT_ROOT
from xmore.results.study.layout import MEMBER, local, portable, without_cluster

RUN = Path("/there/runs/a")


@pytest.mark.parametrize(
    ("text", "packed", "opened"),
    [
        (f"{PROJECT_ROOT}/data/x", "<project>/data/x", f"{PROJECT_ROOT}/data/x"),
        (str(PROJECT_ROOT), "<project>", str(PROJECT_ROOT)),
        ("/home/ada/m", "~/m", "/home/ada/m"),
        ("/home/ada", "~", "/home/ada"),
        ("file:///home/ada/m", "file://~/m", "file://~/m"),
        ("/home/adam/m", "/home/adam/m", "/home/adam/m"),
        ("/x/home/ada/m", "/x/home/ada/m", "/x/home/ada/m"),
        (f"{PROJECT_ROOT}-2/x", f"{PROJECT_ROOT}-2/x", f"{PROJECT_ROOT}-2/x"),
        ("a photo of a {}.", "a photo of a {}.", "a photo of a {}."),
    ],
)
def test_paths_are_portable(monkeypatch, text, packed, opened):
    monkeypatch.setenv("HOME", "/home/ada")
    value = {"a": [text, 1, None], "b": {"c": text}}
    assert portable(value) == {"a": [packed, 1, None], "b": {"c": packed}}
    assert local(portable(value), RUN) == {"a": [opened, 1, None], "b": {"c": opened}}


def test_a_study_s_own_files_lie_in_its_run():
    assert local("<study>/inputs/a.yaml", RUN) == "/there/runs/a/inputs/a.yaml"


def test_a_home_that_is_the_root_hides_nothing(monkeypatch):
    monkeypatch.setenv("HOME", "/")
    assert portable("/data/x") == "/data/x"


def test_no_cluster_of_its_sender_is_used():
    config = {"execution": {"runner": "dask", "address": "tcp://evil:1", "part_rows": 4}}
    expected = {"runner": "local", "address": None, "part_rows": 4}
    assert without_cluster(config)["execution"] == expected


@pytest.mark.parametrize(
    "name",
    [
        "study.json", "/etc/passwd", "runs/a/../run.json", "runs/a/views.sql", "runs/a/inputs/a.py",
        "runs/a/inputs/.a.txt", "runs//run.json", "store/scores/a/" + "0" * 64 + "/manifest.json",
        "store/queries/a/" + "0" * 63 + "/manifest.json", "store/queries/../" + "0" * 64 +
        "/manifest.json", "store/queries/a/" + "0" * 64 + "/part-00000.parquet\n",
        "runs\\a\\run.json",
        "runs/a/report/report.js", "runs/a/report/figures/x.html", "C:/x", "",
    ],
)  # fmt: skip
def test_other_names_are_of_no_study(name):
    assert not MEMBER.fullmatch(name)
