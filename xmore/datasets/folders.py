"""A dataset of class folders: which folders and files belong to it, and what is passed over."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from xmore.datasets.names import plain
from xmore.datasets.sources import Listing
from xmore.files.errors import DatasetError
from xmore.files.paths import is_text, shown
from xmore.images.decode import IMAGE_SUFFIXES, begins_as_image
from xmore.images.readers import Files

# What desktops and file servers leave; and all names that begin with a dot.
HIDDEN = frozenset({"__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "@eadir", "#recycle"})
HIDDEN |= {"$recycle.bin", "system volume information", "lost+found"}
NUMBERS = re.compile(r"n?[0-9]+([._-].*)?")  # a folder's name that is a number or an id
SPLITS = frozenset({"train", "training", "val", "valid", "validation", "dev", "test", "testing"})


def class_folders(root: Path, named: Iterable[str]) -> tuple[list[str], list[str]]:
    """Return the names of the class folders, sorted, and notes on what may not be meant so.

    A folder whose name begins with an underscore is none, unless the card has `named` it. Raises
    DatasetError for a name that is no text.
    """
    named = set(named)
    entries = [entry for entry in sorted(root.iterdir()) if not _hidden(entry.name)]
    names = [entry.name for entry in entries if entry.is_dir()]
    aside = [name for name in names if name.startswith("_") and name not in named]
    chosen = [name for name in names if name not in aside]
    for name in chosen:
        if not is_text(name):
            raise DatasetError(f"class folder {shown(name)} in {root}: not UTF-8. Rename it.")
    notes = [
        f"{shown(name)} is no class, as its name begins with an underscore. To make it one, "
        "rename it, or name it in `classes`."
        for name in aside
    ]
    splits = [name for name in chosen if name.lower() in SPLITS]
    if len(splits) > 1:
        notes.append(
            f"the class folders {', '.join(splits)} look like splits. If they are, set `root` to "
            "one of them."
        )
    if not named and chosen and all(NUMBERS.fullmatch(name) for name in chosen):
        notes.append(
            f"class names look like numbers or ids: {', '.join(map(plain, chosen[:2]))}. Prompts "
            "contain them; if they should not, name the classes in `classes`."
        )
    if loose := sum(_is_image(entry) for entry in entries if not entry.is_dir()):
        notes.append(f"images beside the class folders, which have no class: {loose}.")
    return chosen, notes


def folder_listing(root: Path, folders: Iterable[str], follow_links: bool = False) -> Listing:
    """Return the images of class folders; labels follow their order.

    Hidden files, and files that are no images by their suffix (or, without one, by their first
    bytes) are passed over and counted. Raises DatasetError.
    """
    labels: dict[str, int] = {}
    rejected: list[tuple[str, str]] = []
    passed: Counter[str] = Counter()
    for label, folder in enumerate(folders):
        place, before = root / folder, len(labels) + len(rejected)
        if not follow_links and not place.resolve().is_relative_to(root):
            raise DatasetError(
                f"class folder {place} leads out of the root. Copy it, or set `follow_links: true`."
            )
        for path in _images(place, follow_links, passed):
            uri = path.relative_to(root).as_posix()
            if is_text(uri):
                labels[uri] = label
            else:
                rejected.append((shown(uri), "name is not UTF-8"))
        if len(labels) + len(rejected) == before:
            raise DatasetError(f"no images in {place}. Remove the folder, or complete it.")
    notes = [_passed_over(passed)] if passed else []
    return Listing(labels, None, Files(root, follow_links), rejected, notes)


def _images(place: Path, follow_links: bool, passed: Counter[str]) -> Iterator[Path]:
    """Yield the images under a folder, also in folders of it; count in `passed` what is none."""

    def fail(error: OSError) -> None:
        raise DatasetError(f"{error.filename}: cannot be read ({error.strerror}).") from error

    real = place.resolve()
    seen = {real, *real.parents}  # followed links may lead to these again
    for folder, inner, files in os.walk(place, onerror=fail, followlinks=follow_links):
        for name in inner.copy():
            path = Path(folder, name)
            aside = "hidden" if _hidden(name) else ""
            if not aside and path.is_symlink():
                aside = "link to a folder" if not follow_links or path.resolve() in seen else ""
            if aside:
                inner.remove(name)
                passed[aside] += 1
            elif follow_links:
                seen.add(path.resolve())
        for name in files:
            path = Path(folder, name)
            if _is_image(path):
                yield path
            else:
                passed["hidden" if _hidden(name) else path.suffix.lower() or "no suffix"] += 1


def _hidden(name: str) -> bool:
    return name.startswith(".") or name.lower() in HIDDEN


def _is_image(path: Path) -> bool:
    if _hidden(path.name):
        return False
    return path.suffix.lower() in IMAGE_SUFFIXES or (not path.suffix and begins_as_image(path))


def _passed_over(passed: Counter[str]) -> str:
    most = sorted(passed.items(), key=lambda kind: (-kind[1], kind[0]))
    kinds = [f"{shown(kind)} {n}" for kind, n in most[:5]]
    if rest := sum(n for _, n in most[5:]):
        kinds.append(f"others {rest}")
    return f"files passed over: {passed.total()} ({', '.join(kinds)})."
