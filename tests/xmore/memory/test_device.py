import numpy as np
import pytest
import torch

from xmore.files.errors import SnapshotError
from xmore.memory import device
from xmore.memory.device import DeviceRows
from xmore.memory.snapshot import MemoryShard, Snapshot

CPU = torch.device("cpu")


def memory(folder, counts=(70, 1, 130, 49)):
    rng, shards, every, start = np.random.default_rng(0), [], [], 0
    for number, count in enumerate(counts):
        rows = rng.normal(size=(count, 16))
        rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16)
        path = folder / f"img_emb_{number:05d}.npy"
        np.save(path, rows)
        shards.append(MemoryShard(path, path, start, count))
        every.append(rows)
        start += count
    rows = np.concatenate(every).astype(np.float32)
    return Snapshot(folder, "s", {"rows": start, "dim": 16}, tuple(shards)), rows


@pytest.mark.parametrize("chunk", [1, 64, 70, 250, 251])
def test_shards_of_any_size_become_chunks_of_one_size(tmp_path, monkeypatch, chunk):
    monkeypatch.setattr(device, "CHUNK_ROWS", chunk)
    snapshot, rows = memory(tmp_path)
    chunks = list(DeviceRows(snapshot, CPU))
    assert [first for first, _ in chunks] == list(range(0, 250, chunk))
    assert {len(block) for _, block in chunks[:-1]} <= {chunk}
    found = torch.cat([block for _, block in chunks])
    assert found.dtype == torch.float32 and found.numpy().tobytes() == rows.tobytes()


@pytest.mark.parametrize("fits", [True, False])
def test_rows_that_fit_are_read_once(tmp_path, monkeypatch, fits):
    monkeypatch.setattr(device, "CHUNK_ROWS", 64)
    monkeypatch.setattr(DeviceRows, "_fits", lambda self: fits)
    snapshot, rows = memory(tmp_path)
    there, reading, read = DeviceRows(snapshot, CPU), device.stored_blocks, []
    monkeypatch.setattr(device, "stored_blocks", lambda of: read.append(of) or reading(of))
    next(iter(there))  # not finished: nothing is complete yet
    for _ in range(3):
        found = torch.cat([block for _, block in there])
        assert found.numpy().tobytes() == rows.tobytes()
    assert len(read) == (2 if fits else 4)


def test_a_row_that_is_no_unit_vector_is_named(tmp_path):
    snapshot, _ = memory(tmp_path)
    path = snapshot.shards[2].embeddings
    rows = np.load(path)
    rows[5] *= 2
    np.save(path, rows)
    with pytest.raises(SnapshotError, match=r"img_emb_00002.npy: row 5 is not a unit vector"):
        list(DeviceRows(snapshot, CPU))
