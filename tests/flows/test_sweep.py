"""Sweeps: what their members share is made once; the ablations' configs run and write tables."""

import csv
from pathlib import Path

import pytest
import yaml

from flows.benchmark import xmore_benchmark
from flows.sweep import run_sweep
from xmore.config.benchmark import BenchmarkConfig
from xmore.config.load import load_config
from xmore.config.sweep import SweepConfig, members
from xmore.files.paths import PROJECT_ROOT

ABLATIONS = sorted((PROJECT_ROOT / "configs" / "ablations").glob("*.yaml"))


@pytest.fixture
def base(world, tmp_path) -> Path:
    """A benchmark's YAML that nothing has run of yet."""
    config = world.config(tmp_path / "results").model_dump(mode="json", exclude_none=True)
    path = tmp_path / "base.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def start(config) -> str:
    return xmore_benchmark.fn(config)


def test_seven_values_of_m_encode_nothing_more_than_one(base, tmp_path, encoded):
    sweep = {"name": "m", "base": str(base), "table": "select m from entropies where m > 0"}
    spent = []
    for values in ([16], [1, 2, 4, 8, 16, 20, 24]):
        (tmp_path / "m.yaml").write_text(
            yaml.safe_dump(sweep | {"set": {"retrieval.captions": values}})
        )
        table = run_sweep(tmp_path / "m.yaml", None, start)
        assert [row for (row,) in table.rows] == values
        spent.append(dict(encoded))
    assert spent[0] == spent[1] and spent[0]["images"] == 40  # 20 photos, two models


def test_members_share_what_they_have_in_common(base, tmp_path, encoded):
    (tmp_path / "sweep.yaml").write_text(
        yaml.safe_dump(
            {
                "name": "both",
                "base": "base.yaml",
                "vary": {"retrieval.fine": ["indirect", "direct"], "seeds": [[0], [1, 2]]},
                "table": "select method, top1, seeds from leaderboard where adjustment = 'minmax'",
            }
        )
    )
    table = run_sweep(tmp_path / "sweep.yaml", None, start)
    assert table.columns == ["fine", "seeds", "method", "top1", "seeds"]
    assert [row[:2] for row in table.rows] == [
        ["indirect", "0"],
        ["indirect", "1, 2"],
        ["direct", "0"],
        ["direct", "1, 2"],
    ]
    assert encoded["images"] == 40 and len(table.runs) == 4
    written = read(table.path)
    assert [row["run"] for row in written] == table.runs
    assert [row["method"] for row in written] == ["xmore"] * 4
    before = dict(encoded)
    assert run_sweep(tmp_path / "sweep.yaml", None, start).rows == table.rows
    assert encoded == before


def test_keys_of_one_last_name_are_told_apart(base, tmp_path):
    fine = load_config(base, BenchmarkConfig).roles.fine
    vary = {"roles.fine": [fine], "retrieval.fine": ["direct", "indirect"], "seeds": [[0]]}
    sweep = SweepConfig(name="s", base=base, vary=vary, table="select 1")
    assert [member.values for member in members(sweep, tmp_path)] == [
        {"roles.fine": fine, "retrieval.fine": how, "seeds": "0"} for how in vary["retrieval.fine"]
    ]


@pytest.mark.parametrize(
    "path",
    [pytest.param(p, marks=[pytest.mark.slow] * (i % 2)) for i, p in enumerate(ABLATIONS)],
    ids=lambda path: path.stem,
)
def test_an_ablation_runs_and_writes_its_table(done_again, tmp_path, path):
    sweep = load_config(path, SweepConfig)
    assert sweep.base.name in ("demo.yaml", "paper.yaml") and sweep.base.is_file()
    list(members(sweep, path.parent))  # all of them are valid on their own base
    if sweep.base.name == "paper.yaml":
        pytest.skip("the paper's own models are not here; its members are valid")
    config = done_again.model_dump(mode="json", exclude_none=True)
    config["retrieval"] = {"candidates": 128, "captions": [16]}  # the demo's: M goes up to 64
    base = tmp_path / "base.yaml"
    base.write_text(yaml.safe_dump(config))
    table = run_sweep(path, base, start)
    written = read(table.path)
    assert len(written) == len(table.rows) > 0
    assert table.path.name == f"{path.stem}.csv"
    for key, values in sweep.vary.items():
        assert len({row[key.rpartition(".")[2]] for row in written}) == len(values)
