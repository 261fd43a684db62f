"""What there is to say of test images that are in the memory."""

from __future__ import annotations

from dataclasses import dataclass

SHOWN = 100  # test images of a dataset, of which a report has the pair


@dataclass(frozen=True)
class Pair:
    """A test image and the memory row that is most like it."""

    query_id: int
    uri: str
    class_name: str
    memory_id: int
    kind: str
    similarity: float | None
    caption: str
    place: str  # where the memory's image came from
    others: int  # further rows of the memory that are this test image


@dataclass(frozen=True)
class Accuracy:
    """Top-1 of a method, mean over the order seeds."""

    model: str
    method: str  # with its adjustment
    m: int | None
    all: float
    counted: float | None  # the same answers, those to leaked queries not counted
    alone: float | None  # of a stream without them; none where no query is left


@dataclass(frozen=True)
class Report:
    """What there is to say of a dataset."""

    dataset: str
    space: str  # the coarse model
    threshold: float
    n: int
    same: int  # queries whose very bytes are there
    told: bool  # whether all rows of the memory can tell
    near: int  # further queries that a near duplicate is there of
    pairs: list[Pair]  # one a query, same bytes first, then the most similar; at most SHOWN
    accuracies: list[Accuracy]  # empty where nothing is leaked

    @property
    def leaked(self) -> int:
        return self.same + self.near
