"""The commands `xmore datasets`: list cards, show one, check a dataset, download it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.options import Commands, with_json
from xmore.files.paths import RESULTS
from xmore.files.text import counted

if TYPE_CHECKING:
    from xmore.datasets.captions import ImageCaptions
    from xmore.datasets.card import DatasetCard
    from xmore.datasets.scan import Scan

commands = Commands(
    help="List, show, check and download test datasets.",
    no_args_is_help=True,
    add_completion=False,
)

Name = Annotated[str, typer.Argument(help="Name of a card in data/, or path of a card's YAML.")]
Root = Annotated[
    Path | None, typer.Option(help="Folder of the dataset. Default: the card's `root`.")
]


@commands.command("list")
@with_json
def list_() -> None:
    """List the cards in data/: classes, test images, kind of source, whether the folder exists."""
    from flows.cli.terminal.console import show_table
    from xmore.datasets.card import all_cards, load_card
    from xmore.report.table import Table

    show_table(
        Table(
            "datasets",
            "",
            "",
            [
                ("dataset", "text"),
                ("classes", "figure"),
                ("images", "figure"),
                ("source", "text"),
                ("on disk", "text"),
            ],
            [
                (
                    card.name,
                    card.expected.classes if card.expected else None,
                    card.expected.images if card.expected else None,
                    _kind(card),
                    "yes" if card.root.is_dir() else "no",
                )
                for card in map(load_card, all_cards())
            ],
        )
    )


@commands.command()
@with_json
def show(name: Name) -> None:
    """Print a dataset's card, and how to obtain the dataset."""
    from flows.cli.terminal.console import record, safe, say
    from xmore.datasets.card import load_card, named_classes
    from xmore.datasets.obtain import can_get

    card = load_card(name)
    classes = named_classes(card)
    record("dataset", [card.model_dump(mode="json")])
    record("classes", ({"folder": folder, "name": name} for folder, name in classes or []))
    lines = {
        "name": f"{card.name}, version {card.version}",
        "title": card.title,
        "the paper's name": card.paper_name or "",
        "licence": card.licence,
        "folder": str(card.root),
        "source": _source(card),
        "classes": _shortened([name for _, name in classes] if classes else []),
        "other class names": ", ".join(card.alternatives),
        "expected": _expected(card),
        "prompt": "" if card.captions else card.prompt,
        "how to obtain": f"xmore datasets get {card.name}" if can_get(card) else _by_hand(card),
    }
    for key, text in lines.items():
        if text:
            say(safe(f"{key:<18}{text}"))
    if _by_hand(card) and not can_get(card):
        _say_steps(card)


@commands.command()
@with_json
def check(
    name: Name,
    root: Root = None,
    class_names: Annotated[
        str | None, typer.Option(help="Name of one of the card's other lists of class names.")
    ] = None,
) -> None:
    """Count and read every image of a dataset; print what cannot be used."""
    from flows.cli.terminal.console import record, safe, say
    from xmore.datasets.scan import scan
    from xmore.datasets.sources import CoopSource
    from xmore.files.digests import digest_file
    from xmore.files.errors import printable

    card = _card(name, root, class_names)
    found = scan(card, RESULTS / "cache", max_rejected=1)
    texts = card.captions.read() if card.captions else None
    if texts:
        found.rejected.extend(texts.rejected)
        found.notes.extend(texts.notes)
    counts, told = _counts(found, texts)
    record("dataset", [{"name": card.name, "root": card.root} | counts])
    record("rejected", ({"uri": uri, "cause": cause} for uri, cause in found.rejected))
    record("notes", ({"note": note} for note in found.notes))
    say(safe(f"{card.name}: {told}, in {card.root}"))
    if isinstance(card.source, CoopSource):
        sha256 = digest_file(card.root / card.source.split)
        known = "as in the card" if card.source.sha256 else "the card has none"
        say(safe(f"{card.source.split}: sha256 {sha256} ({known})"))
    for note in found.notes:
        say(safe(f"note: {printable(note)}"))
    for uri, cause in found.rejected[:5]:
        say(safe(f"cannot be used: {printable(uri)}: {cause}"))
    if found.rejected:
        what = "image or caption" if card.captions else "image"
        count = counted(len(found.rejected), what)
        say(f"{count} cannot be used: replace or remove them. A run sets them aside.")
        raise typer.Exit(1)
    if card.captions:
        return
    complete = "The dataset is complete."
    say(complete if card.expected else "The card has no expected counts: add `expected` to it.")


@commands.command()
def get(name: Name, root: Root = None) -> None:
    """Download a dataset, or print the steps to obtain it by hand."""
    from flows.cli.terminal.console import safe, say
    from xmore.datasets.obtain import can_get
    from xmore.datasets.obtain import get as download

    card = _card(name, root, None)
    if not can_get(card):
        say(safe(f"Obtain {card.name} by hand, into {card.root}:"))
        _say_steps(card)
        return
    download(card)
    say(safe(f"{card.name} is in {card.root}. Next: xmore datasets check {name}"))


def _card(name: str, root: Path | None, class_names: str | None) -> DatasetCard:
    from xmore.datasets.card import load_card
    from xmore.files.paths import real

    card = load_card(name, class_names=class_names)
    return card.model_copy(update={"root": real(root)}) if root else card


def _say_steps(card: DatasetCard) -> None:
    from flows.cli.terminal.console import safe, say

    for number, step in enumerate([*card.obtain.steps, f"xmore datasets check {card.name}"], 1):
        say(safe(f"  {number}. {step}"))
    if card.obtain.page:
        say(safe(f"  Web page: {card.obtain.page}"))


def _by_hand(card: DatasetCard) -> str:
    return "by hand:" if card.obtain.steps else ""


def _counts(found: Scan, texts: ImageCaptions | None) -> tuple[dict[str, int], str]:
    """Return what a scan has found, by name and in words."""
    images = counted(len(found.queries), "test image")
    if texts is None:
        per_class = Counter(query.label for query in found.queries).values()
        counts = {"classes": len(found.class_names), "images": len(found.queries)}
        told = f"{len(found.class_names)} classes, {images}, {_range(per_class)} per class"
        return counts, told
    per_image = [len(texts.of[query.uri]) for query in found.queries]
    counts = {"images": len(found.queries), "captions": sum(per_image)}
    return counts, f"{images}, {counted(sum(per_image), 'caption')}, {_range(per_image)} per image"


def _kind(card: DatasetCard) -> str:
    return "captions" if card.captions else card.source.kind


def _source(card: DatasetCard) -> str:
    of = card.captions or card.source
    facts = of.model_dump(exclude={"kind"}, exclude_none=True, exclude_defaults=True)
    return ", ".join([_kind(card), *(f"{key}: {value}" for key, value in facts.items())])


def _expected(card: DatasetCard) -> str:
    if card.expected is None:
        return ""
    source = f" ({card.expected.source})" if card.expected.source else ""
    return f"{card.expected.classes} classes, {card.expected.images} test images{source}"


def _shortened(names: list[str]) -> str:
    some = ", ".join(names[:4])
    return f"{some}, ... ({len(names)})" if len(names) > 4 else some


def _range(counts: Iterable[int]) -> str:
    found = sorted(set(counts)) or [0]
    return f"{found[0]}" if len(found) == 1 else f"{found[0]} to {found[-1]}"
