"""The commands of docs/ten-minutes.md, in order; and links between the documents."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "ten-minutes.md").read_text()
BLOCKS = re.findall(r"```sh\n(.*?)```", PAGE, re.S)
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


def test_the_ten_minutes_run(done, tmp_path):
    """On the tiny world instead of the demo: its run is `latest`, its config configs/demo.yaml."""
    (tmp_path / "configs").mkdir()
    config = yaml.safe_dump(done.config.model_dump(mode="json"))
    (tmp_path / "configs" / "demo.yaml").write_text(config)
    (tmp_path / "data").symlink_to(ROOT / "data")
    install, *blocks = BLOCKS
    assert install.splitlines()[0] == "make demo"
    ours = f"--results {done.config.results} {done.name}"
    script = "\n".join(blocks).replace(" latest latest", f" {ours} {done.name}")
    script = script.replace(" latest", f" {ours}")
    answer = subprocess.run(
        ["bash", "-euxc", script],
        cwd=tmp_path,
        env=os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
    )
    assert answer.returncode == 0, answer.stderr
    for part in ("xmore minmax", "report.html", "p_holm", "captions.csv", "Their configs are"):
        assert part in answer.stdout, part


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
