"""The text store as it grows: adding a text should cost the same, and looking up what is asked for.

    python benchmarks/texts.py [TEXTS] [DIMENSIONS]

Adds made-up features of TEXTS texts (5,000,000 of 128 dimensions: 3 GB of disk, some minutes), then
looks up random ones, and compares them with what was added. Processor time, as disks differ.
"""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from xmore.models.encoder import TextFeatures
from xmore.models.spec import ModelCard, ModelSpec
from xmore.store.texts import CaptionStore

CALL = 1 << 16  # texts that are added at a time
CARD = ModelCard("synthetic", ModelSpec(architecture="RN50", pretrained="openai"), {"id": 1})


def made_up(numbers: np.ndarray, dim: int) -> TextFeatures:
    """Return the features of texts by their number: any values, always the same ones."""
    unit = (numbers[:, None] * 2_654_435_761 + np.arange(dim) * 40_503) % 65_521
    return TextFeatures(unit.astype(np.float32), numbers.astype(np.float32), numbers % 7 == 0)


def text(number: int) -> str:
    """Return a text of 60 characters."""
    return f"a photo of what is number {number:09d} of many, on a sunny day"


def encode(texts: list[str], dim: int) -> TextFeatures:
    """Return the features of some texts."""
    return made_up(np.array([int(each[26:35]) for each in texts]), dim)


def add(folder: Path, texts: int, dim: int) -> dict[int, float]:
    """Add texts; returns the microseconds of a text, measured up to each number of texts."""
    store = CaptionStore(folder, CARD)
    costs, peak = {}, _peak()
    for start in range(0, texts, CALL):
        new = [text(number) for number in range(start, min(start + CALL, texts))]
        encoded = made_up(np.arange(start, start + len(new)), dim)
        parts = iter(range(0, len(new), 4096))

        def given(chunk: list[str], parts=parts, encoded=encoded) -> TextFeatures:
            at = next(parts)
            part = slice(at, at + len(chunk))
            return TextFeatures(encoded.unit[part], encoded.norm[part], encoded.truncated[part])

        begun = time.process_time()
        store.features(new, given)
        costs[start + len(new)] = 1e6 * (time.process_time() - begun) / len(new)
    print(f"added {len(store):,} texts of {dim} dimensions, peak memory {_peak():,.0f} MB, "
          f"{_peak() - peak:,.0f} MB more than before")  # fmt: skip
    return costs


def look_up(folder: Path, texts: int, dim: int, asked: int) -> float:
    """Look up random texts, twice, and compare them; returns the seconds of the second time."""
    begun = time.perf_counter()
    store = CaptionStore(folder, CARD)
    opened = time.perf_counter() - begun
    numbers = np.random.default_rng(asked).integers(0, texts, asked)
    wanted, expected = [text(number) for number in numbers], made_up(numbers, dim)
    for _ in range(2):
        cpu, wall = time.process_time(), time.perf_counter()
        found = store.lookup(wanted)
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    same = all(np.array_equal(a, b) for a, b in zip(vars(found).values(), vars(expected).values(),
                                                   strict=True))  # fmt: skip
    print(f"{asked:>7,} of {texts:,}: {wall:6.2f} s, {cpu:6.2f} s of processor time, opened in "
          f"{opened:.2f} s; {'equal' if same else 'DIFFERENT'}")  # fmt: skip
    return cpu


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main(texts: int, dim: int) -> None:
    """Print what adding and looking up cost as the store grows, and the ratios."""
    with tempfile.TemporaryDirectory() as scratch:
        costs = add(Path(scratch), texts, dim)
        for size in costs:
            if size in (CALL, 4 * CALL, 16 * CALL, texts):
                print(f"up to {size:>9,} texts: {costs[size]:6.1f} us for each of the last")
        third = max(1, len(costs) // 3)
        begin, end = (np.median(list(costs.values())[part])
                      for part in (slice(0, third), slice(-third, None)))  # fmt: skip
        print(f"a text of the first third: {begin:.1f} us, of the last: {end:.1f} us (medians), "
              f"{end / begin:.2f} times")  # fmt: skip
        seconds = {n: look_up(Path(scratch), texts, dim, n) for n in (1_000, 10_000, 100_000)}
        print(f"looking up ten times as many: {seconds[100_000] / seconds[10_000]:.1f} times")


if __name__ == "__main__":
    arguments = [int(value) for value in sys.argv[1:]]
    main(*(arguments + [5_000_000, 128][len(arguments) :]))
