"""A memory's embeddings on a GPU: read once, sent through pinned memory, kept there if they fit."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from xmore.memory.rows import check_unit, stored_blocks
from xmore.memory.snapshot import MemoryShard, Snapshot, open_array

CHUNK_ROWS = 131_072  # rows in a product: 0.5 GB of similarities to 1,024 queries
KEPT_SHARE = 0.5  # of the device's free memory, for the rows; the rest is for what is computed


class DeviceRows:
    """A snapshot's embeddings on a device, to be iterated more than once.

    Yields (first memory_id, (n, D) float32) of CHUNK_ROWS rows, the last fewer. Whether the rows
    are kept, as they are stored, is decided by the device's free memory; else each iteration reads
    them again. Memory: on the device the kept rows and two chunks; here three blocks as stored.
    Raises SnapshotError for rows that are not unit vectors.
    """

    def __init__(self, snapshot: Snapshot, device: torch.device) -> None:
        self.snapshot, self.device = snapshot, device
        self._kept: list[torch.Tensor] = []
        self._complete = False

    def __iter__(self) -> Iterator[tuple[int, torch.Tensor]]:
        if self._complete:
            chunks = iter(self._kept)
        else:
            self._kept.clear()  # of an iteration that was not finished
            chunks = self._sent()
        keep = not self._complete and self._fits()
        first = 0
        for chunk in chunks:
            if keep:
                self._kept.append(chunk)
            yield first, chunk.float()
            first += len(chunk)
        self._complete = self._complete or keep

    def _fits(self) -> bool:
        if self.device.type != "cuda":
            return False
        itemsize = open_array(self.snapshot.shards[0].embeddings).itemsize
        free, _ = torch.cuda.mem_get_info(self.device)
        return self.snapshot.rows * self.snapshot.dim * itemsize <= KEPT_SHARE * free

    def _sent(self) -> Iterator[torch.Tensor]:
        """Read all blocks and yield them on the device, joined to chunks of CHUNK_ROWS rows."""
        held: list[torch.Tensor] = []
        missing = CHUNK_ROWS
        for shard, first, block in _ahead(stored_blocks(self.snapshot)):
            sent = self._send(block)
            wide = sent.float()
            check_unit(shard, first, (wide * wide).sum(1).cpu().numpy())
            while len(sent) >= missing:
                yield torch.cat([*held, sent[:missing]])
                held, sent, missing = [], sent[missing:], CHUNK_ROWS
            if len(sent):
                held.append(sent)
                missing -= len(sent)
        if held:
            yield torch.cat(held)

    def _send(self, block: np.ndarray) -> torch.Tensor:
        stored = torch.from_numpy(block)
        if self.device.type == "cuda":
            stored = stored.pin_memory()
        return stored.to(self.device, non_blocking=True)


def _ahead(
    blocks: Iterator[tuple[MemoryShard, int, np.ndarray]],
) -> Iterator[tuple[MemoryShard, int, np.ndarray]]:
    """Yield the blocks; the next one is read in a thread while one is used."""
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(next, blocks, None)
        while (block := coming.result()) is not None:
            coming = pool.submit(next, blocks, None)
            yield block
