"""The leaks of a run: test images in the memory, and the accuracy without them."""

from __future__ import annotations

from dataclasses import dataclass

SHOWN = 100  # maximum number of pairs in a report, per dataset


@dataclass(frozen=True)
class Pair:
    """A test image and the most similar memory row."""

    query_id: int
    uri: str
    class_name: str
    memory_id: int
    kind: str
    similarity: float | None
    caption: str
    place: str  # URL or path of the memory's image
    others: int  # additional rows of the memory with this test image


@dataclass(frozen=True)
class Accuracy:
    """Top-1 of a method, mean over the order seeds."""

    model: str
    method: str  # with its adjustment
    m: int | None
    all: float
    counted: float | None  # the same predictions, without those for leaked queries
    alone: float | None  # of a stream without leaked queries; None if no query is left


@dataclass(frozen=True)
class Report:
    """The leaks of one dataset."""

    dataset: str
    space: str  # the coarse model
    threshold: float
    n: int
    same: int  # queries whose exact bytes are in the memory
    told: bool  # whether all rows of the memory have hashes, so that `same` is exact
    near: int  # additional queries with a near duplicate in the memory
    pairs: list[Pair]  # one per query, same bytes first, then the most similar; at most SHOWN
    accuracies: list[Accuracy]  # empty without leaks

    @property
    def leaked(self) -> int:
        return self.same + self.near
