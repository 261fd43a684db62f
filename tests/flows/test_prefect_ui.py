"""What a flow run leaves in Prefect's UI."""

from dataclasses import replace

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
