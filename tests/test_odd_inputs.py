"""Other people's files: each is read right, or counted by cause, or refused in one line.

The cases are in odd/, by kind of file. Each runs through a whole re-index, or through
`datasets check` and a whole benchmark.
"""

import json
import re
from collections import Counter

import pyarrow.parquet as pq
import pytest
import yaml
from odd import images, lists, models, tables, tars, texts
from odd.cases import Pairs, Queries

from xmore.memory.snapshot import open_snapshot, resolve_current
from xmore.results.runs import load_run
from xmore.results.views import open_views

KINDS = (images, lists, models, tables, tars, texts)
CASES = [(kind.__name__.rpartition(".")[2], case) for kind in KINDS for case in kind.CASES]


def of(kind: type) -> list:
    chosen = [(group, case) for group, case in CASES if isinstance(case, kind)]
    return [pytest.param(case, id=f"{group}-{case.name}") for group, case in chosen]


def refused(answer, pattern: str) -> None:
    """One line on stderr, exit code 2, no traceback."""
    lines = answer.stderr.strip().splitlines()
    assert answer.returncode == 2 and len(lines) == 1, answer
    assert re.search(pattern, lines[0]), lines[0]
    assert lines[0].isprintable()


@pytest.mark.parametrize("case", of(Pairs))
def test_a_source_of_a_memory(case, world, xmore, tmp_path):
    folder = tmp_path / "source"
    folder.mkdir()
    changes = {"memory": str(tmp_path / "memory"), "max_rejected": 0.95, "shard_rows": 10}
    config = world.memory_config().model_dump(mode="json", exclude_none=True)
    bounds = {"timeout": 5, "threads": 4, "processes": 1, "retries": 0}
    changes["download"] = {"allow_private": True} | bounds
    config |= changes | {"sources": [case.make(folder)]}
    path = tmp_path / "memory.yaml"
    path.write_text(yaml.safe_dump(config))
    answer = xmore("reindex", path)
    if case.refused:
        refused(answer, case.refused)
        assert not (tmp_path / "memory" / "CURRENT").exists()
        return
    assert answer.returncode == 0, answer
    memory = tmp_path / "memory"
    snapshot = open_snapshot(memory, resolve_current(memory))
    rows = [row for s in snapshot.shards for row in pq.read_table(s.metadata).to_pylist()]
    assert Counter(row["caption"] for row in rows) == Counter(case.captions)
    facts = json.loads((snapshot.path / "manifest.json").read_bytes())
    assert facts["failures"] == dict(case.failures)
    assert facts["asked"] == facts["rows"] + sum(facts["failures"].values())
    again = xmore("reindex", path)
    assert again.returncode == 0 and "unchanged" in again.stdout, again


@pytest.mark.parametrize("case", of(Queries))
def test_a_test_dataset(case, world, xmore, tmp_path):
    folder = tmp_path / "dataset"
    folder.mkdir()
    card = folder / "card.yaml"
    made = {"name": "odd"} | case.make(folder)
    if not card.exists():  # a case of a card's own text writes it itself
        card.write_text(yaml.safe_dump(made, allow_unicode=True))
    changes = {"datasets": [str(card)], "adjustments": ["none"], "max_rejected": 0.95}
    config = world.config(tmp_path / "results", **changes).model_dump(mode="json")
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(config))
    checked, ran = xmore("datasets", "check", card), xmore("benchmark", path)
    if case.refused:
        refused(checked, case.refused)
        refused(ran, case.refused)
        return
    assert checked.returncode == bool(case.rejected), checked
    assert ran.returncode == 0, ran
    for cause in case.rejected.values():
        assert cause in checked.stdout, checked.stdout
    db = open_views(load_run(tmp_path / "results", "latest"))
    names = db.execute("select class_name from queries order by all").fetchall()
    assert [name for (name,) in names] == case.classes
    causes = dict(db.execute("select uri, cause from rejected").fetchall())
    assert causes == dict(case.rejected)
    count = db.execute("select count(distinct query_id) from predictions").fetchone()
    assert count == (len(case.classes),)
