"""The commands of docs/ten-minutes.md, in order; and links between the documents."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "ten-minutes.md").read_text()
BLOCKS = re.findall(r"```sh\n(.*?)```", PAGE, re.S)
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


@pytest.fixture
def checkout(done_again, tmp_path) -> Path:
    """A checkout of its own, whose demo is the tiny world and has been run already."""
    for folder in ("flows", "tasks", "index_build", "xmore", "results/reference"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    shutil.copy(ROOT / "results" / "views.sql", tmp_path / "results")
    shutil.move(done_again.results / "store", tmp_path / "results")
    config = done_again.model_copy(update={"name": "demo", "results": tmp_path / "results"})
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "demo.yaml").write_text(yaml.safe_dump(config.model_dump(mode="json")))
    (tmp_path / "data").symlink_to(ROOT / "data")
    (tmp_path / ".venv").symlink_to(sys.prefix)
    return tmp_path


def test_the_ten_minutes_run(checkout):
    """Every command as it stands, in order; `make demo` without installing and downloading."""
    assert BLOCKS[0].startswith("make demo\n")
    script = "".join(BLOCKS).replace("make demo", ".venv/bin/xmore benchmark configs/demo.yaml", 1)
    answer = subprocess.run(
        ["bash", "-euxc", script],
        cwd=checkout,
        env=os.environ | {"PYTHONPATH": str(checkout)},  # its own code, not what is installed
        capture_output=True,
        text=True,
    )
    assert answer.returncode == 0, answer.stderr
    shown = ("xmore minmax", "report.html", "p_holm", "best_score", "mine.csv", "pelican.jpg")
    assert [part for part in shown if part not in answer.stdout] == []


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
