"""What a flow run leaves in Prefect's UI."""

import base64
import re
from dataclasses import replace
from xml.etree import ElementTree

from flows import prefect_ui
from xmore.memory.snapshot import open_snapshot, resolve_current
from xmore.report.snapshot import snapshot_card


def test_a_snapshots_card_says_what_its_index_is_worth(world):
    memory = world.root / "memory"
    snapshot = open_snapshot(memory, resolve_current(memory))
    size = snapshot.index_path.stat().st_size / 2**20
    lines = snapshot_card(snapshot).splitlines()
    assert "| index | Flat |" in lines and f"| index size | {size:.1f} MiB |" in lines
    kind = "rows mixed 2 to 1 with their nearest"
    assert f"| recall, 240 {kind} | 1.000 @1, 1.000 @16, 1.000 @128 |" in lines
    measured = {"1": 0.5, "16": 0.25, "128": 0.125}
    facts = snapshot.manifest["index"] | {"rerank": 4}
    facts["measured"] = facts["measured"] | {"of": {"captions": {"without_rerank": measured}}}
    changed = replace(snapshot, manifest=snapshot.manifest | {"index": facts})
    lines = snapshot_card(changed).splitlines()
    assert "| exact re-ranking | of the best 4 times K |" in lines
    kind = "recall without re-ranking, 240 captions"
    assert f"| {kind} | 0.500 @1, 0.250 @16, 0.125 @128 |" in lines


def test_a_cell_that_prefect_takes_for_markdown_stays_text():
    row = {"to clip": "* +5.5", "class": "a_b|c <i>#1</i>", "p": "< 0.001"}
    assert prefect_ui._cells(row) == {
        "to clip": r"\* +5.5",
        "class": r"a\_b\|c \<i\>\#1\</i\>",
        "p": r"\< 0.001",
    }


def test_a_plot_of_the_report_is_legible_on_a_dark_page(tmp_path):
    (tmp_path / "accuracy-1.svg").write_text('<svg xmlns="http://www.w3.org/2000/svg"></svg>')
    (tmp_path / "confidence-1.svg").write_text("<svg></svg>")
    (image,) = prefect_ui._images(tmp_path)
    ((name, data),) = re.findall(r"^!\[(.+)\]\(data:image/svg\+xml;base64,(.+)\)$", image)
    drawn = ElementTree.fromstring(base64.b64decode(data))
    assert name == "accuracy-1" and drawn.get("style") == "background: white"


def test_a_folder_of_another_program_has_no_card_to_link(world, tmp_path):
    memory = world.root / "memory"
    snapshot = open_snapshot(memory, resolve_current(memory))
    adopted = replace(snapshot, path=tmp_path, name="clip-retrieval-1")
    assert prefect_ui._linked(adopted, memory) == "clip-retrieval-1"
