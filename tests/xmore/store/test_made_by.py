"""What made an artifact is recorded, outside of its digest; another maker is said, once."""

import json
import logging
from pathlib import Path

import pyarrow as pa
import pytest
from sharing import unsealed

from xmore.store import made_by as makers
from xmore.store import schemas
from xmore.store.artifacts import ArtifactKey, ArtifactStore
from xmore.store.checks import read_manifest
from xmore.store.made_by import PACKAGES, warn_if_other

KEYS = [ArtifactKey("rejected", "d", {"a": i}) for i in range(3)]
EMPTY = schemas.REJECTED.empty_table()


def write(root: Path, key: ArtifactKey = KEYS[0], device: str = "cpu"):
    return ArtifactStore(root, device).write(key, [1], lambda *_: EMPTY)


@pytest.fixture(autouse=True)
def first_time(monkeypatch, caplog):
    monkeypatch.setattr(makers, "_warned", set())
    caplog.set_level(logging.WARNING)


def test_versions_and_device_are_in_the_manifest_and_not_in_the_digest(tmp_path):
    ref = write(tmp_path)
    made = read_manifest(Path(ref.path))["made_by"]
    assert set(made) == {*PACKAGES, "device"} and made["device"] == "cpu" and all(made.values())
    assert {"torch", "torchvision", "open_clip_torch", "pillow"} <= set(made)
    assert ref.digest == KEYS[0].digest


OTHERS = {
    "another torch": ({"torch": "1.0"}, "torch 1.0, now "),
    "another device": ({"device": "NVIDIA H100"}, "device NVIDIA H100, now cpu"),
    "another Pillow": ({"pillow": "9.0"}, "pillow 9.0, now "),
    "the same": ({}, None),
    "a package more": ({"jax": "1.0"}, None),
    "a package less": ({"timm": None}, None),
    "an older manifest": (None, None),
}


@pytest.mark.parametrize("case", OTHERS)
def test_another_maker_is_said_once_and_the_artifact_reused(tmp_path, caplog, case):
    changes, says = OTHERS[case]
    for key in KEYS:
        path = Path(write(tmp_path, key).path) / "manifest.json"
        manifest = json.loads(path.read_text())
        if changes is None:
            del manifest["made_by"]
        else:
            made = manifest["made_by"] | changes
            manifest["made_by"] = {k: v for k, v in made.items() if v is not None}
        path.write_text(json.dumps(unsealed(manifest)))
    assert all(write(tmp_path, key).skipped for key in KEYS)
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == (says is not None), lines
    assert all(says in line and "it is reused" in line and KEYS[0].digest in line for line in lines)


def test_parts_of_a_killed_run_on_another_device_are_said(tmp_path, caplog):
    rows = pa.table({"uri": ["u"], "cause": ["c"]}, schema=schemas.REJECTED)
    with pytest.raises(ZeroDivisionError):
        ArtifactStore(tmp_path, "mps").write(KEYS[0], [1, 1], lambda a, b: 1 / 0 if a else rows)
    ArtifactStore(tmp_path, "cpu").write(KEYS[0], [1, 1], lambda *_: rows)
    assert "device mps, now cpu" in caplog.text


@pytest.mark.parametrize("theirs", [None, [], "torch", 3])
def test_what_says_nothing_warns_of_nothing(theirs, caplog):
    warn_if_other(theirs, "cpu", "x")
    assert not caplog.records
