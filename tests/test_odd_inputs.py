"""Other people's files: each is read right, or counted by cause, or refused in one line.

The cases are in odd/, by kind of file. Each runs through a whole re-index, or through
`datasets check` and a whole benchmark, of all that are read at once.
"""

import json
import re
from collections import Counter, defaultdict
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml
from odd import exports, images, lists, programs, tables, tars, texts
from odd.cases import Pairs, Queries

from flows.reindex import xmore_reindex
from xmore.memory.snapshot import open_snapshot, resolve_current
from xmore.results.runs import load_run
from xmore.results.views import open_views

KINDS = (exports, images, lists, programs, tables, tars, texts)
CASES = [(kind.__name__.rpartition(".")[2], case) for kind in KINDS for case in kind.CASES]


def of(kind: type) -> list:
    """The cases of a kind. A source that is read is a whole re-index: two of three are slow."""
    params, read = [], 0
    for group, case in CASES:
        if isinstance(case, kind):
            read += kind is Pairs and not case.refused
            slow = [pytest.mark.slow] if read % 3 and not case.refused else []
            params.append(pytest.param(case, id=f"{group}-{case.name}", marks=slow))
    return params


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
    changes["index"] = {"key": "SQ8"}  # autofaiss starts hundreds of threads for three rows
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


def write_card(case: Queries, folder: Path, name: str) -> Path:
    folder.mkdir()
    card = folder / "card.yaml"
    made = {"name": name} | case.make(folder)
    if card.exists():  # a case of a card's own text writes it itself
        text = re.sub(rb'(name"?: "?)odd', rb"\1" + name.encode(), card.read_bytes())
        card.write_bytes(text)
    else:
        card.write_text(yaml.safe_dump(made, allow_unicode=True))
    return card


@pytest.fixture(scope="module")
def one_model(world, tmp_path_factory) -> dict:
    """Keys of a benchmark in which one model has all roles, so that none is loaded twice."""
    memory = tmp_path_factory.mktemp("one-model") / "memory"
    lite0 = {"folder": world.root / "models" / "lite0"}
    xmore_reindex.fn(world.memory_config(memory=memory, model_name="lite0", model=lite0))
    roles = {"inference": ["lite0"], "coarse": "lite0", "fine": "lite0"}
    alone = {"methods": ["xmore"], "adjustments": ["none"], "seeds": [0], "max_rejected": 0.95}
    return {"memory": str(memory), "roles": roles} | alone


def benchmark(cards: list[Path], keys: dict, world, xmore, folder: Path):
    config = world.config(folder / "results", **keys, datasets=list(map(str, cards)))
    config = config.model_dump(mode="json")
    (folder / "run.yaml").write_text(yaml.safe_dump(config))
    return xmore("benchmark", folder / "run.yaml")


@pytest.mark.parametrize("case", of(Queries))
def test_a_test_dataset(case, one_model, world, xmore, tmp_path):
    card = write_card(case, tmp_path / "dataset", "odd")
    checked = xmore("datasets", "check", card)
    if case.refused:
        refused(checked, case.refused)
        refused(benchmark([card], one_model, world, xmore, tmp_path), case.refused)
        return
    assert checked.returncode == bool(case.rejected), checked
    for cause in case.rejected.values():
        assert cause in checked.stdout, checked.stdout


MANY = [pytest.param(kind, marks=pytest.mark.slow) for kind in KINDS if kind is not texts]


@pytest.mark.parametrize("kind", [texts, *MANY], ids=lambda kind: kind.__name__[4:])
def test_a_benchmark_of_all_that_are_read(kind, one_model, world, xmore, tmp_path):
    cases = [case for case in kind.CASES if isinstance(case, Queries) and not case.refused]
    named = {f"odd-{number}": case for number, case in enumerate(cases)}
    cards = [write_card(case, tmp_path / name, name) for name, case in named.items()]
    if not cards:
        return
    ran = benchmark(cards, one_model, world, xmore, tmp_path)
    assert ran.returncode == 0, ran
    db = open_views(load_run(tmp_path / "results", "latest"))
    classes, causes = defaultdict(list), defaultdict(dict)
    for name, found in db.execute("select dataset, class_name from queries order by 2").fetchall():
        classes[name].append(found)
    for name, uri, cause in db.execute("select dataset, uri, cause from rejected").fetchall():
        causes[name][uri] = cause
    count = "select dataset, count(distinct query_id) from predictions group by all"
    counts = dict(db.execute(count).fetchall())
    for name, case in named.items():
        assert classes[name] == case.classes, case.name
        assert causes[name] == dict(case.rejected), case.name
        assert counts[name] == len(case.classes), case.name
