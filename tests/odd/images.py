"""Odd images, and folders of images."""

from pathlib import Path

from odd.cases import Pairs, Queries, photos


def plain(folder: Path) -> dict:
    for i, name in enumerate(("bird", "tool")):
        (folder / name).mkdir()
        for j in (0, 1):
            (folder / name / f"{j}.jpg").write_bytes(photos()[2 * i + j])
    return {"root": "."}


CASES: list[Pairs | Queries] = [
    Queries("plain", plain, classes=["bird", "bird", "tool", "tool"]),
]
