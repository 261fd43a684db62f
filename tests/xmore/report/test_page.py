"""The report: its files, what it says of odd runs, and what it does in a real browser."""

import csv
import json
import re
import shutil
from pathlib import Path
from xml.etree import ElementTree

import browser
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sharing import unsealed

from flows.benchmark import xmore_benchmark
from flows.reindex import xmore_reindex
from xmore.report.page import write_report
from xmore.results.runs import load_run
from xmore.results.views import open_views

SCRIPT = "<script>alert(1)</script>"
TABLE = "it's a \"tool\"'; drop table x; --"
TAG = "<script>alert(1)"
IMAGE = '"><img src=x onerror=alert(1)>.jpg'
needs_chromium = pytest.mark.skipif(
    browser.CHROMIUM is None, reason="no chromium on the path (Debian's package has it)"
)


@pytest.fixture(scope="module")
def tiny(done, tmp_path_factory):
    """The report of the tiny run."""
    run = load_run(done.config.results, done.name)
    return run, write_report(run, tmp_path_factory.mktemp("report"))


@pytest.fixture(scope="module")
def hostile(world, tmp_path_factory):
    """A run whose captions, class names and file names attack whoever shows them."""
    root = tmp_path_factory.mktemp("hostile")
    names = {"bird": TABLE, "tool": TAG}
    for name in (path.name for path in (world.root / "queries").iterdir()):
        folder = root / "queries" / names.get(name, name)
        shutil.copytree(world.root / "queries" / name, folder)
        first = sorted(folder.iterdir())[0]
        first.rename(folder / IMAGE)
    (root / "hostile.yaml").write_text("name: hostile\nroot: queries\n")
    captions = pq.read_table(world.root / "captions.parquet")[:60]
    texts = [f"{SCRIPT} {{{{ 7 * 911 }}}} {TABLE} \x1b[31m {i}" for i in range(60)]
    at = captions.column_names.index("caption")
    captions = captions.set_column(at, "caption", pa.array(texts))
    pq.write_table(captions, root / "captions.parquet")
    memory = world.memory_config(memory=root / "memory", captions=root / "captions.parquet")
    xmore_reindex.fn(memory)
    config = world.config(
        root / "results", memory=root / "memory", datasets=[str(root / "hostile.yaml")], report=True
    )
    return load_run(config.results, xmore_benchmark.fn(config))


def table(page: Path, name: str) -> list[dict[str, str]]:
    with (page.parent / "tables" / f"{name}.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_it_names_the_commit_of_the_code(tiny):
    run, page = tiny
    changed = ", with uncommitted changes" if run.code["dirty"] else ""
    assert f"<dd>{run.code['commit'] or 'unknown'}{changed}</dd>" in page.read_text()


def test_its_tables_are_the_views(tiny):
    run, page = tiny
    rows = open_views(run).execute(
        "select trim(method || ' ' || coalesce(adjustment, '')), top1, ci_low from leaderboard"
    )
    told = {
        row["method"]: (float(row["top1"]), float(row["ci_low"]))
        for row in table(page, "leaderboard")
    }
    assert told == {name: (top1, low) for name, top1, low in rows.fetchall()}
    assert len(table(page, "comparisons")) == 21
    assert list(table(page, "resolution")[0])[3:] == ["of_clip", "detectable", "seen"]
    markdown = (page.parent / "tables" / "leaderboard.md").read_text()
    assert "| xmore minmax | 8 |" in markdown and markdown.count("\n| tiny |") == 7


def test_every_plot_and_table_says_of_what_it_is(tiny):
    run, page = tiny
    text = page.read_text()
    captions = text.split("<figcaption>")[1:]
    assert len(captions) == 6  # no M sweep: there is one M
    for caption in captions:
        said = caption.partition("</figcaption>")[0]
        assert re.search("(Bars|Shaded|shaded|Of the image|By xmore minmax)", said)
        assert "tiny (n = 20)" in said and run.snapshot["name"] in said and "model lite0" in said
    assert "tiny, lite0: xmore minmax (M = 8) predicts" in text
    marks = [caption.partition("</figcaption>")[0] for caption in captions]
    assert "Bars: Wilson&#39;s 95 % interval; M = 8." in marks[0]
    assert sum("xmore minmax (M = 8)" in caption for caption in marks) == 3
    for path in (page.parent / "tables").glob("*.md"):
        if path.stem != "stages":
            assert run.snapshot["name"] in path.read_text(), path.stem


def test_each_plot_is_an_svg_and_a_pdf_of_its_own(tiny):
    _, page = tiny
    figures = sorted(path.stem for path in (page.parent / "figures").glob("*.svg"))
    assert figures == [
        "accuracy",
        "classes",
        "confidence",
        "reliability",
        "retrieval",
        "weight-ratio",
    ]
    for name in figures:
        root = ElementTree.parse(page.parent / "figures" / f"{name}.svg").getroot()
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        assert len(list(root.iter("{http://www.w3.org/2000/svg}path"))) > 5
        pdf = (page.parent / "figures" / f"{name}.pdf").read_bytes()
        assert pdf.startswith(b"%PDF") and b"/Type3" not in pdf and b"/CIDFontType2" in pdf


def test_a_second_report_is_the_same(tiny, tmp_path):
    run, page = tiny
    assert write_report(run, tmp_path).read_bytes() == page.read_bytes()
    for path in (page.parent / "figures").iterdir():
        assert (tmp_path / "figures" / path.name).read_bytes() == path.read_bytes()


@pytest.mark.slow
def test_several_ms_are_drawn_as_a_sweep(world, tmp_path):
    config = world.config(tmp_path, retrieval={"candidates": 24, "captions": [1, 4, 8]})
    run = load_run(config.results, xmore_benchmark.fn(config))
    page = write_report(run, tmp_path / "report")
    assert (page.parent / "figures" / "m-sweep.svg").exists()
    text = page.read_text()
    assert "Accuracy by number of captions M" in text
    assert "tiny clip, M = 1 to 8: " in text
    assert "M 1, M 4, M 8" in text


def test_one_method_still_reads_well(world, tmp_path):
    config = world.config(tmp_path, methods=["clip"], report=True)
    run = load_run(config.results, xmore_benchmark.fn(config))
    page = run.path / "report" / "report.html"
    text = page.read_text()
    assert "tiny, lite0: clip predicts" in text and "points to clip" not in text
    assert not re.search(r"\b(nan|None)\b", text)
    assert not (page.parent / "tables" / "comparisons.csv").exists()
    assert sorted(path.stem for path in (page.parent / "figures").glob("*.svg")) == [
        "accuracy",
        "reliability",
        "retrieval",
    ]


def test_a_memory_without_captions_still_reads_well(world, tmp_path):
    captions = pq.read_table(world.root / "captions.parquet")[:30]
    at = captions.column_names.index("caption")
    empty = captions.set_column(at, "caption", pa.array([""] * 30))
    pq.write_table(empty, tmp_path / "captions.parquet")
    memory = world.memory_config(
        memory=tmp_path / "memory",
        captions=tmp_path / "captions.parquet",
    )
    xmore_reindex.fn(memory)
    config = world.config(tmp_path / "results", memory=tmp_path / "memory", report=True)
    run = load_run(config.results, xmore_benchmark.fn(config))
    text = (run.path / "report" / "report.html").read_text()
    assert "no captions" in text and not re.search(r"\b(nan|None)\b", text)


def test_pictures_that_are_gone_leave_gaps(world, tmp_path):
    shutil.copytree(world.root / "queries", tmp_path / "queries")
    (tmp_path / "tiny.yaml").write_text("name: tiny\nroot: queries\n")
    config = world.config(tmp_path / "results", datasets=[str(tmp_path / "tiny.yaml")])
    run = load_run(config.results, xmore_benchmark.fn(config))
    shutil.rmtree(tmp_path / "queries")
    page = write_report(run, tmp_path / "report")
    assert '"image": null' in page.read_text()


def test_the_command_says_where_it_is(done, tmp_path, xmore):
    answer = xmore(
        "report", done.name, "--results", done.config.results, "--output", tmp_path / "out"
    )
    assert answer.returncode == 0, answer.stderr
    assert str(tmp_path / "out" / "report.html") in answer.stdout


def test_what_is_not_whole_or_cannot_be_written_is_one_line(done, tmp_path, xmore):
    runs = tmp_path / "results" / "runs" / "half"
    runs.mkdir(parents=True)
    told = json.loads((done.config.results / "runs" / done.name / "run.json").read_text())
    told |= {"finished": None, "error": "RunError: stopped", "artifacts": told["artifacts"][:3]}
    (runs / "run.json").write_text(json.dumps(unsealed(told)))
    answer = xmore("report", "half", "--results", tmp_path / "results")
    assert answer.returncode == 2 and "only a completed one" in answer.stderr
    (tmp_path / "file").touch()
    answer = xmore(
        "report", done.name, "--results", done.config.results, "--output", tmp_path / "file" / "x"
    )
    assert answer.returncode == 2 and str(tmp_path / "file") in answer.stderr
    assert "Traceback" not in answer.stderr and answer.stderr.count("\n") == 1


def test_hostile_texts_are_harmless_in_files_and_terminal(hostile, xmore):
    page = hostile.path / "report" / "report.html"
    text = page.read_text()
    assert "<script>alert" not in text and "<img src=x" not in text and "6377" not in text[:2000]
    for path in (page.parent / "tables").glob("*.md"):
        assert "<script>" not in path.read_text()
    for path in (page.parent / "figures").glob("*.svg"):
        ElementTree.parse(path)
        assert "<script" not in path.read_text()
    results = hostile.path.parents[1]
    names = {row["class"] for row in table(page, "by_class")}
    assert {TABLE, TAG} <= names
    for arguments in (
        ("show", hostile.name),
        ("explain", hostile.name, "0"),
        ("sql", hostile.name, "select class_name, uri from queries"),
        ("leaks", hostile.name),
        ("compare", hostile.name, hostile.name),
    ):
        answer = xmore(*arguments, "--results", results)
        assert answer.returncode == 0, answer.stderr
        assert "\x1b" not in answer.stdout
    (count,) = open_views(hostile).execute("select count(*) from queries").fetchone()
    assert count == 20


@needs_chromium
def test_hostile_texts_do_nothing_in_a_browser(hostile, tmp_path):
    with browser.page(tmp_path / "profile") as page:
        page.open(hostile.path / "report" / "report.html")
        labels = page.run("[...document.querySelectorAll('#cards b')].map((b) => b.textContent)")
        assert labels.count(TABLE) == 4 and labels.count(TAG) == 4
        page.run("document.querySelector('#cards button').click()")
        said = page.run("document.querySelector('#example').textContent")
        assert SCRIPT in said and "{{ 7 * 911 }}" in said
        uris = page.run("[...document.querySelectorAll('#cards img')].map((img) => img.alt)")
        assert any(IMAGE in uri for uri in uris)
        assert page.run("document.querySelectorAll('img[src=x]').length") == 0
        assert page.problems == []


@needs_chromium
def test_filters_and_keyboard_work(tiny, tmp_path):
    shown = "document.querySelectorAll('#cards li').length"
    with browser.page(tmp_path / "profile") as page:
        page.look(1440, 900, "light")
        page.open(tiny[1])
        assert page.run(shown) == 20
        assert page.run("document.querySelector('#count').textContent") == "20 images"
        page.run("document.querySelector('[name=label]').focus()")
        page.press("ArrowDown", 40)
        page.press("Enter", 13, "\r")
        label = page.run("document.querySelector('[name=label]').value")
        assert label == "bird" and page.run(shown) == 4

        page.run("document.querySelector('#cards button').focus()")
        page.press("Enter", 13, "\r")
        opened = "document.querySelector('dialog').open"
        place = "document.querySelector('dialog .top span').textContent"
        assert page.run(opened) and page.run(place) == "1 of 4"
        page.press("ArrowRight", 39)
        assert page.run(place) == "2 of 4"
        page.press("ArrowLeft", 37)
        assert page.run(place) == "1 of 4"
        page.press("Escape", 27)
        assert not page.run(opened)
        assert page.run("document.activeElement === document.querySelector('#cards button')")

        page.run("document.querySelector('#filters [type=reset]').click()")
        page.run("new Promise((done) => setTimeout(done, 50))")
        assert page.run(shown) == 20
        cases = page.run("[...document.querySelector('[name=case]').options].map((o) => o.value)")
        for case in cases[1:]:
            page.run(
                f"document.querySelector('[name=case]').value = {case!r}; document.querySelector("
                "'#filters').dispatchEvent(new Event('change', {bubbles: true}))"
            )
            assert 0 < page.run(shown) < 20
        assert page.problems == []


@needs_chromium
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_the_window_and_can_be_read(tiny, tmp_path, scheme):
    with browser.page(tmp_path / "profile") as page:
        page.open(tiny[1])
        page.run("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
        for width in (400, 500, 800, 1200, 1440):
            page.look(width, 900, scheme)
            assert page.run("document.documentElement.scrollWidth") <= width
        page.look(1200, 900, scheme)
        board = "document.querySelector('.wide table').parentElement"
        assert page.run(f"{board}.scrollWidth - {board}.clientWidth") == 0
        started = page.run("document.querySelector('header .note').innerText")
        assert re.search(r"started 20\d\d-\d\d-\d\d \d\d:\d\d UTC, ", started)
        background, text = (
            page.run(f"getComputedStyle(document.body).{name}")
            for name in ("backgroundColor", "color")
        )
        light = [sum(map(int, c.strip("rgba()").split(",")[:3])) / 765 for c in (background, text)]
        assert (light[0] > light[1]) == (scheme == "light") and abs(light[0] - light[1]) > 0.7
        missing = page.run(
            "[...document.querySelectorAll('img')].filter((i) => !i.alt).length"
            " + [...document.querySelectorAll('figure > div')]"
            ".filter((d) => !d.ariaLabel).length"
        )
        assert missing == 0 and page.problems == []
