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
from xmore.store.texts import PART_TEXTS, CaptionStore

CALL = 1 << 16  # texts that are added at a time
ROUNDS = 7
CARD = ModelCard("synthetic", ModelSpec(architecture="RN50", pretrained="openai"), {"id": 1})


def made_up(numbers: np.ndarray, dim: int) -> TextFeatures:
    """Return the features of texts by their number: any values, always the same ones."""
    unit = (numbers[:, None] * 2_654_435_761 + np.arange(dim) * 40_503) % 65_521
    return TextFeatures(unit.astype(np.float32), numbers.astype(np.float32), numbers % 7 == 0)


def text(number: int) -> str:
    """Return a text of 60 characters."""
    return f"a photo of what is number {number:09d} of many, on a sunny day"


def add(store: CaptionStore, first: int, dim: int) -> float:
    """Add CALL texts from a number on; returns the microseconds of processor time of each."""
    new = [text(number) for number in range(first, first + CALL)]
    encoded = made_up(np.arange(first, first + CALL), dim)
    begins = iter(range(0, CALL, PART_TEXTS))

    def encode(chunk: list[str]) -> TextFeatures:
        begin = next(begins)
        part = slice(begin, begin + len(chunk))
        return TextFeatures(encoded.unit[part], encoded.norm[part], encoded.truncated[part])

    begun = time.process_time()
    store.features(new, encode)
    return 1e6 * (time.process_time() - begun) / CALL


def compare(folder: Path, large: CaptionStore, dim: int) -> None:
    """Add as many texts to a large store as to new ones, in turns; print what a text costs."""
    costs: dict[str, list[float]] = {"empty": [], "large": []}
    texts = len(large)
    for n in range(ROUNDS):
        costs["large"].append(add(large, len(large), dim))
        costs["empty"].append(add(CaptionStore(folder / str(n), CARD), 0, dim))
    small, grown = (float(np.median(each)) for each in costs.values())
    print(f"a text costs {small:.1f} us in a store that was empty, {grown:.1f} us in one of "
          f"{texts:,} (medians of {ROUNDS}, in turns): {grown / small:.2f} times")  # fmt: skip


def look_up(folder: Path, texts: int, dim: int, asked: int) -> None:
    """Look up random texts, twice, and compare them; print the seconds of the second time."""
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


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main(texts: int, dim: int) -> None:
    """Print what adding and looking up cost in a large store, and the ratios."""
    with tempfile.TemporaryDirectory() as scratch:
        folder, peak = Path(scratch), _peak()
        store = CaptionStore(folder / "large", CARD)
        for first in range(0, texts, CALL):
            add(store, first, dim)
        print(f"added {len(store):,} texts of {dim} dimensions; peak memory {_peak():,.0f} MB, "
              f"{_peak() - peak:,.0f} MB more than before")  # fmt: skip
        compare(folder, store, dim)
        for asked in (1_000, 10_000, 100_000):
            look_up(folder / "large", len(store), dim, asked)


if __name__ == "__main__":
    arguments = [int(value) for value in sys.argv[1:]]
    main(*(arguments + [5_000_000, 128][len(arguments) :]))
