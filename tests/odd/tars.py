"""Odd tars, of a memory and of a dataset."""

import io
import tarfile
from pathlib import Path

from odd.cases import Pairs, Queries, pictures


def write_tar(path: Path, members: list[tuple[str, bytes]]) -> None:
    with tarfile.open(path, "w") as tar:
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))


def plain(folder: Path) -> dict:
    pairs = [(f"{i}.jpg", data) for i, data in enumerate(pictures()[:4])]
    write_tar(folder / "0.tar", pairs + [(f"{i}.txt", b"drawing %d" % i) for i in range(4)])
    return {"tars": {"folder": str(folder)}}


CASES: list[Pairs | Queries] = [
    Pairs("plain", plain, captions=[f"drawing {i}" for i in range(4)]),
]
