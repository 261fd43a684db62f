"""`xmore texts`: write a file of neighbour texts for a dataset's classes."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from xmore.files.errors import ConfigError

if TYPE_CHECKING:
    import numpy as np

    from xmore.methods.coder.chat import Chat
    from xmore.methods.coder.generate import Tally
    from xmore.methods.coder.texts import Kind


Dataset = Annotated[str, typer.Argument(help="Name of a card in data/, or path of a card's YAML.")]
Kinds = Annotated[
    str,
    typer.Option(
        help="Kinds, separated by commas: synonym (from WordNet, through NLTK), attribute, "
        "analogue, versus. All but synonym are requested from the endpoint that "
        "XMORE_LLM_URL, XMORE_LLM_MODEL and XMORE_LLM_KEY name."
    ),
]
Benchmark = Annotated[
    Path | None,
    typer.Option(
        help="YAML of a benchmark. Its first inference model measures similarity: to choose "
        "WordNet's senses and the nearest classes, and to drop analogues that are another class."
    ),
]
Nearest = Annotated[
    int,
    typer.Option(
        min=1,
        help="Number of nearest classes to distinguish each class from. Without --config: all.",
    ),
]
ClassNames = Annotated[
    str | None, typer.Option(help="Name of one of the card's other lists of class names.")
]


def texts(
    dataset: Dataset,
    out: Annotated[Path, typer.Option(help="JSONL file to write.", show_default=False)],
    kinds: Kinds = "synonym",
    config: Benchmark = None,
    nearest: Nearest = 5,
    class_names: ClassNames = None,
) -> None:
    """Write neighbour texts for the method `coder`. Responses are kept; no request is repeated."""
    from flows.cli.terminal.console import safe, say
    from xmore.datasets.card import load_card, named_classes
    from xmore.datasets.scan import listing
    from xmore.files.paths import check_writable, write_whole
    from xmore.methods.coder.generate import Sources, Tally, generate
    from xmore.methods.coder.wordnet import open_wordnet

    wanted = parse_kinds(kinds)
    if out.exists():
        raise ConfigError(f"{out}: already exists. Name another file, or delete it.")
    check_writable(out)
    card = load_card(dataset, class_names=class_names)
    given = named_classes(card)
    names = [name for _, name in given] if given else listing(card)[0]
    senses, senses_by = open_wordnet() if "synonym" in wanted else (None, "")
    chat = _chat(out) if set(wanted) - {"synonym"} else None
    sources = Sources(
        senses,
        senses_by,
        chat.ask if chat else None,
        chat.endpoint.model if chat else "",
        _encoder(config) if config else None,
    )
    tally = Tally()
    rows = list(generate(names, wanted, sources, nearest, tally))
    write_whole(out, "".join(row.line() for row in rows).encode())
    for line in _summary(Counter(row.kind for row in rows), tally, chat):
        say(safe(line))
    say(safe(f"{out}: {len(rows)} texts of {len(set(names))} classes; read them before use"))


def parse_kinds(text: str) -> list[Kind]:
    """Return the kinds in a comma-separated text, each once. Raises ConfigError."""
    from xmore.methods.coder.texts import KINDS

    parts = list(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    wrong = [part for part in parts if part not in KINDS]
    if wrong or not parts:
        raise ConfigError(f"--kinds: must be among {', '.join(KINDS)}, got {text!r}.")
    return [kind for kind in KINDS if kind in parts]


def _chat(out: Path) -> Chat:
    from xmore.methods.coder.chat import Chat, endpoint_from

    return Chat(endpoint_from(os.environ), out.with_name(f"{out.name}.prompts.jsonl"))


def _encoder(path: Path) -> Callable[[Sequence[str]], np.ndarray]:
    """Return the function that encodes texts with a config's first inference model."""
    from xmore.config.benchmark import BenchmarkConfig
    from xmore.config.load import load_config
    from xmore.models.batch_size import settled
    from xmore.models.device import pick_device
    from xmore.models.loaded import load_encoder
    from xmore.models.spec import describe_model

    config = load_config(path, BenchmarkConfig)
    name = config.roles.inference[0]
    model = describe_model(name, config.model(name), config.results / "cache")
    device, wanted = config.execution.device, config.execution.batch_size
    encoder = load_encoder(model, pick_device(device))
    from xmore.models.features import encode_texts

    return lambda texts: encode_texts(texts, encoder, settled(wanted, [model], device)).unit


def _summary(counts: Counter[str], tally: Tally, chat: Chat | None) -> list[str]:
    """Return lines: how many texts were written, how many were not, and why."""
    lines = [f"{count:>8,} of kind {kind}" for kind, count in counts.items()]
    lines += [f"{n:>8,} classes or pairs without a {k}" for k, n in tally.empty.items() if n]
    lines += [f"{n:>8,} lines dropped: {cause}" for cause, n in tally.dropped.items() if n]
    if chat:
        lines.append(f"{chat.asked:>8,} requests sent; prompts and responses are in {chat.kept}")
    return lines
