"""The commands of docs/ten-minutes.md, in order; commands and links in all documents."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import numpy as np
import pytest
import yaml
from nbclient import NotebookClient

from xmore.methods.registry import METHODS
from xmore.results.runs import load_run
from xmore.store.artifacts import read_rows

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"```(sh|python|yaml)\n(.*?)```", re.S)
BLOCKS = [text for _, text in BLOCK.findall((ROOT / "docs" / "ten-minutes.md").read_text())]
PAGE = BLOCK.findall((ROOT / "docs" / "write-a-method.md").read_text())
DOCUMENTS = sorted(
    [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "data").glob("*/README.md")]
)
CLI = (ROOT / "docs" / "reference" / "cli.md").read_text()  # `make lint` compares it with the code
COMMANDS = {
    name: set(re.findall(r"^\* `(--[\w-]+)", text, re.M))
    for name, text in re.findall(r"^##+ `xmore (.+?)`$(.*?)(?=^##+ |\Z)", CLI, re.M | re.S)
}


@pytest.fixture
def checkout(done, warm, tmp_path) -> Path:
    """A checkout of its own, whose demo is the tiny world and has been run already."""
    for folder in ("flows", "tasks", "index_build", "xmore"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    shutil.copytree(done.config.results / "store", tmp_path / "results" / "store")
    config = done.config.model_copy(update={"name": "demo", "results": tmp_path / "results"})
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "demo.yaml").write_text(yaml.safe_dump(config.model_dump(mode="json")))
    (tmp_path / "data").symlink_to(ROOT / "data")
    installed = Path(sys.prefix)
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    for path in [*installed.iterdir(), *(installed / "bin").iterdir()]:
        if path.name not in ("bin", "xmore"):
            (tmp_path / ".venv" / path.relative_to(installed)).symlink_to(path)
    warm.command(tmp_path / ".venv" / "bin" / "xmore")
    return tmp_path


def test_the_ten_minutes_run(checkout):
    """Every command as it stands, in order; `make demo` without installing and downloading."""
    assert BLOCKS[0].startswith("make demo\n")
    script = "".join(BLOCKS).replace("make demo", ".venv/bin/xmore benchmark configs/demo.yaml", 1)
    printed = run(script, checkout)
    shown = ("xmore minmax", "report.html", "p_holm", "best_score", "mine.csv", "pelican.jpg")
    assert [part for part in shown if part not in printed] == []


def test_the_page_of_methods_has_them_all_in_their_order():
    """A row and a section each; what has seen test labels is only named."""
    page = (ROOT / "docs" / "methods.md").read_text()
    ours = [name for name in METHODS if not name.endswith("-oracle")]
    assert re.findall(r"^\| `([\w-]+)`", page.partition("\n## ")[0], re.M) == ours
    assert [name for name in re.findall(r"^## ([\w-]+)$", page, re.M) if name in METHODS] == ours
    assert [name for name in METHODS if f"`{name}`" not in page] == []


def test_a_method_is_written_as_the_page_says(checkout):
    """Its file, the config's line and its commands as they stand."""
    ((_, module),) = (block for block in PAGE if block[0] == "python")
    (checkout / "configs" / "geometric.py").write_text(module)
    config = yaml.safe_load((checkout / "configs" / "demo.yaml").read_text())
    ((_, line),) = (block for block in PAGE if block[0] == "yaml")
    config |= yaml.safe_load(line)
    (checkout / "configs" / "mine.yaml").write_text(yaml.safe_dump(config))
    printed = run("".join(text for kind, text in PAGE if kind == "sh"), checkout)
    row = next(line for line in printed.splitlines() if line.strip().startswith("geometric"))
    assert re.search(r"\d\.\d", row)
    scores = read_scores(checkout)
    combined = np.sqrt(scores[0] * scores[1])
    combined /= combined.sum(1, keepdims=True)
    np.testing.assert_allclose(scores[2], combined.max(1), rtol=1e-12)


def test_python_and_the_exports_do_what_the_page_says(checkout):
    found = BLOCK.findall((ROOT / "docs" / "python.md").read_text())
    code = "".join(text for kind, text in found if kind == "python")
    command = [checkout / ".venv" / "bin" / "python", "-c", code]
    answer = subprocess.run(command, cwd=checkout, capture_output=True, text=True)
    assert answer.returncode == 0 and "similarity" in answer.stdout, answer.stderr
    printed = run("".join(text for kind, text in found if kind == "sh"), checkout)
    assert r"\toprule" in printed and "**" in printed and "1 file;" in printed
    assert (checkout / "run.json").stat().st_size and (checkout / "leaderboard.csv").stat().st_size


def test_the_notebook_runs(checkout):
    """As Jupyter runs it, in the folder that it lies in."""
    (checkout / "docs").mkdir()
    book = nbformat.read(ROOT / "docs" / "notebook.ipynb", as_version=4)
    assert not [cell for cell in book.cells if cell.get("outputs")]  # as it is, without a result
    run(".venv/bin/xmore benchmark configs/demo.yaml", checkout)
    place = {"metadata": {"path": str(checkout / "docs")}}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(checkout))  # not the project that is installed
        NotebookClient(book, timeout=300, kernel_name="python3", resources=place).execute()
    shown = [
        output.data for cell in book.cells for output in cell.get("outputs", []) if "data" in output
    ]
    pages = [data["text/html"] for data in shown if "text/html" in data]
    assert "xmore minmax" in pages[0] and any("data:image/webp" in page for page in pages)
    assert any("image/png" in data for data in shown)
    assert (checkout / "results" / "gains.pdf").read_bytes().startswith(b"%PDF")


def read_scores(checkout):
    """Image and text scores, and the probabilities of the new method's answers."""
    found = load_run(checkout / "results", "latest")
    (scores,) = (read_rows(ref) for ref in found.artifacts if ref.stage == "scores")
    said = [read_rows(ref) for ref in found.artifacts if ref.stage == "predictions"]
    (mine,) = (table for table in said if table["method"][0].as_py() == "geometric")
    image, text = (np.array(scores[f"{of}_scores"].to_pylist()) for of in ("image", "text"))
    return image, text, mine["probability"].to_numpy()


def run(script: str, checkout: Path) -> str:
    """What a script prints in a checkout, under its own code, not what is installed."""
    answer = subprocess.run(
        ["bash", "-euxc", script],
        cwd=checkout,
        env=os.environ | {"PYTHONPATH": str(checkout)},
        capture_output=True,
        text=True,
    )
    assert answer.returncode == 0, answer.stderr
    return answer.stdout


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path):
    for link in re.findall(r"\]\((?!https?:)([^)\s]+)\)", path.read_text()):
        file, _, anchor = link.partition("#")
        target = path.parent / file if file else path
        assert target.exists(), link
        if anchor:
            heads = re.findall(r"^#+ (.*)$", target.read_text(), re.M)
            slugs = [re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads]
            assert anchor in slugs, link


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_exist(path):
    """Each `xmore COMMAND --option` in code; `xmore minmax` is a method and its adjustment."""
    assert len(COMMANDS) > 20
    for command in re.findall(r"(?<![\w/.-])(?:\.venv/bin/)?xmore ([a-z][^#;|&]*)", code_of(path)):
        words = command.split()
        starts = (" ".join(words[:n]) for n in (3, 2, 1))
        name = next((start for start in starts if start in COMMANDS), "")
        if words[0] != "minmax":
            assert name, command
            assert set(re.findall(r"(?<!\S)--[\w-]+", command)) <= COMMANDS[name], command


def code_of(path: Path) -> str:
    """Code blocks and code spans of a document, separated by semicolons."""
    fences = re.split(r"^```.*\n", path.read_text(), flags=re.M)
    prose = "".join(fences[::2])
    lines = [line for text in fences[1::2] for line in text.splitlines()]
    lines += re.findall(r"^ {4,}(.*)", prose, re.M)
    spans = re.findall(r"`([^`]+)`", re.sub(r"^ {4,}.*", "", prose, flags=re.M))
    return ";".join([*lines, *(" ".join(span.split()) for span in spans)])


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_exist(path):
    """Each file of the checkout that a document names, but for those that its reader writes."""
    rooms = (
        r"(?<![\w/.-])((?:flows|tasks|index_build|xmore|configs|benchmarks|tests)/[\w./-]+\.\w+)"
    )
    written = {"configs/mine.yaml", "configs/geometric.py"}
    named = set(re.findall(rooms, path.read_text())) - written
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []
