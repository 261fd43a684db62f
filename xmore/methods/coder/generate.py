"""Generate neighbour texts for a dataset's classes: CODER's Auto Text Generator (Yi et al. 2024).

Pure code: the caller provides callables for senses and answers. Answers are untrusted text: only
clean lines within bounds are kept, and dropped ones are counted by cause.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np
from pydantic import ValidationError

from xmore.datasets.prompts import PAPERS_PROMPT
from xmore.files.errors import ConfigError
from xmore.methods.coder.neighbours import Encode
from xmore.methods.coder.texts import Kind, Row

MAX_LINES = 20  # per answer
MAX_PHRASE = 200  # characters per line
TOO_NEAR = 0.9  # minimum cosine at which an analogue counts as another class
ROUNDS = 5  # additional requests to replace such analogues
MAX_PAIRS = 5000  # requests for `versus` texts without an encoder to select pairs

Ask = Callable[[str], str]


@dataclass(frozen=True)
class Sense:
    """One meaning of a word: its definition, and the words for it."""

    definition: str
    words: list[str]


@dataclass(frozen=True)
class Sources:
    """The sources of texts, each with the name that its rows carry; None if absent."""

    senses: Callable[[str], list[Sense]] | None = None
    senses_by: str = ""
    ask: Ask | None = None
    asked_by: str = ""
    encode: Encode | None = None


@dataclass
class Tally:
    """Counts of dropped texts by cause, and of classes or pairs without texts by kind."""

    dropped: Counter[str] = field(default_factory=Counter)
    empty: Counter[str] = field(default_factory=Counter)


def generate(
    names: Sequence[str], kinds: Sequence[Kind], sources: Sources, nearest: int, tally: Tally
) -> Iterator[Row]:
    """Yield the rows of each kind, class by class.

    With an encoder, each class is distinguished from its `nearest` others; without, from all
    others. Raises ConfigError.
    """
    classes = _Classes(list(dict.fromkeys(names)), sources.encode)
    for kind in kinds:
        by = sources.senses_by if kind == "synonym" else sources.asked_by
        for name, other in _subjects(kind, classes, nearest):
            texts = _texts(kind, name, other, classes, sources, tally)
            tally.empty[kind] += not texts
            facts = {"class": name, "kind": kind, "other": other, "made_by": by}
            for text in dict.fromkeys(texts):  # "cat" and "a cat" have become equal
                try:
                    yield Row.model_validate(facts | {"text": text})
                except ValidationError:  # a class's own name may be very long
                    tally.dropped["not fit for a file"] += 1


class _Classes:
    """The classes' names, and with an encoder their similarities to texts."""

    def __init__(self, names: list[str], encode: Encode | None) -> None:
        self.names, self.encode = names, encode
        self.lower = {name.lower() for name in names}
        self.features = encode([PAPERS_PROMPT.format(n) for n in names]) if encode else None

    def taken(self, name: str, texts: list[str]) -> list[bool]:
        """Return which of `texts` are another class, or too near to one: a bool per text."""
        same = [text.lower() in self.lower for text in texts]
        if self.encode is None or self.features is None or not texts:
            return same
        cosines = self.encode([PAPERS_PROMPT.format(text) for text in texts]) @ self.features.T
        cosines[:, self.names.index(name)] = -1
        return [a or bool(b) for a, b in zip(same, cosines.max(1) > TOO_NEAR, strict=True)]

    def pairs(self, nearest: int) -> list[tuple[str, str]]:
        """Return all pairs of classes, or each class with its nearest ones, in both directions."""
        count = len(self.names)
        if self.features is None:
            if count * (count - 1) > MAX_PAIRS:
                raise ConfigError(
                    f"`versus`: {count} classes need {count * (count - 1):,} requests. Give a "
                    "benchmark's YAML with --config, whose text model selects the nearest pairs."
                )
            chosen = set(combinations(range(count), 2))
        else:
            cosines = self.features @ self.features.T
            np.fill_diagonal(cosines, -np.inf)
            near = np.argsort(-cosines, axis=1, kind="stable")[:, : min(nearest, count - 1)]
            chosen = {(min(c, o), max(c, o)) for c, row in enumerate(near.tolist()) for o in row}
        both = sorted(chosen | {(o, c) for c, o in chosen})
        return [(self.names[c], self.names[o]) for c, o in both]


def _subjects(kind: Kind, classes: _Classes, nearest: int) -> list[tuple[str, str | None]]:
    if kind == "versus":
        return list(classes.pairs(nearest))
    return [(name, None) for name in classes.names]


def _texts(
    kind: Kind, name: str, other: str | None, classes: _Classes, sources: Sources, tally: Tally
) -> list[str]:
    """Return the texts of one class, or of one pair, as they are written to a file."""
    if kind == "synonym":
        if sources.senses is None:
            raise ValueError("synonyms need senses")
        return synonyms(name, sources.senses(name), classes, tally)
    if sources.ask is None:
        raise ValueError("texts other than synonyms need a language model")
    if kind == "analogue":
        found = analogues(name, classes, sources.ask, tally)
        return [f"{a(name)}, which looks like {a(each)}." for each in found]
    if kind == "attribute":
        found = phrases(sources.ask(attribute_prompt(name)), tally)
        return [f"{a(name)}, which has {each}." for each in found]
    found = phrases(sources.ask(versus_prompt(name, str(other))), tally)
    return [f"{a(name)} rather than {a(str(other))}, by {each}." for each in found]


def synonyms(name: str, senses: list[Sense], classes: _Classes, tally: Tally) -> list[str]:
    """Return other words for the sense whose definition is nearest to the name.

    Without an encoder, the first sense is used: in WordNet the most frequent one. A word for
    another class of the dataset is dropped.
    """
    if not senses:
        return []
    best = 0
    if classes.encode is not None and len(senses) > 1:
        features = classes.encode(
            [PAPERS_PROMPT.format(name), *(sense.definition for sense in senses)]
        )
        best = int(np.argmax(features[1:] @ features[0]))
    words = [word.replace("_", " ") for word in senses[best].words]
    words = [word for word in phrases("\n".join(words), tally) if word.lower() != name.lower()]
    others = [word.lower() in classes.lower for word in words]
    tally.dropped["a synonym that is another class"] += sum(others)
    return [word for word, taken in zip(words, others, strict=True) if not taken]


def analogues(name: str, classes: _Classes, ask: Ask, tally: Tally) -> list[str]:
    """Return things that look like a class and are no class; for those that are, request others."""
    found: list[str] = []
    refused: list[str] = []
    answered = phrases(ask(analogue_prompt(name)), tally)
    for again in range(ROUNDS + 1):
        answered = [text for text in answered if text not in found]
        taken = classes.taken(name, answered)
        found += [text for text, bad in zip(answered, taken, strict=True) if not bad]
        bad = [text for text, is_bad in zip(answered, taken, strict=True) if is_bad]
        tally.dropped["an analogue too near to another class"] += len(bad)
        if not bad or again == ROUNDS:
            break
        refused = list(dict.fromkeys([*refused, *bad]))[-MAX_LINES:]
        answered = phrases(ask(analogue_prompt(name, len(bad), refused)), tally)[: len(bad)]
    return found[:MAX_LINES]


def attribute_prompt(name: str) -> str:
    """Return the prompt for visible features of a class."""
    return (
        f"List useful visual features for recognising {a(name)} in a photo.\n"
        f'Each must finish the sentence "{a(name)}, which has ...".\n{FORM}'
    )


def analogue_prompt(name: str, count: int = 0, refused: Sequence[str] = ()) -> str:
    """Return the prompt for things that look like a class, or for `count` others than `refused`."""
    text = f"What other things is {a(name)} visually similar to? Name things, not features.\n"
    if refused:
        text += f"Give {count} more. These are in the set of classes or too near to one: "
        text += ", ".join(refused) + ".\n"
    return text + FORM


def versus_prompt(name: str, other: str) -> str:
    """Return the prompt for features that distinguish a class from another."""
    return (
        f"What can be seen in a photo of {a(name)}, and not in one of {a(other)}? Only the key "
        f'differences.\nEach must finish the sentence "This is {a(name)} rather than {a(other)}, '
        f'by ...".\n{FORM}'
    )


FORM = 'Answer with a list only, one short phrase a line, each line beginning with "- ".'


def phrases(answer: str, tally: Tally) -> list[str]:
    """Return an answer's distinct clean lines, without bullets, numbers and a last full stop."""
    found: dict[str, None] = {}
    for line in answer.splitlines():
        text = (
            re.sub(r"^\s*(?:[-*_\u2022]+|\d{1,3}[.)]\s)?\s*", "", line).strip().rstrip(".").strip()
        )
        text = text.strip("\"'`*").strip()
        cause = _unfit(text, found)
        if cause:
            tally.dropped[cause] += 1
        elif text:
            found[text] = None
    return list(found)


def _unfit(text: str, found: dict[str, None]) -> str | None:
    """Return why a line is dropped; None for a good line and for an empty one."""
    if not text:
        return None
    if not text.isprintable():
        return "control characters"
    if len(text) > MAX_PHRASE:
        return f"longer than {MAX_PHRASE} characters"
    if text.endswith(":") or not any(c.isalpha() for c in text):
        return "not a phrase"
    if text in found:
        return "repeated"
    return f"beyond {MAX_LINES} lines" if len(found) >= MAX_LINES else None


def a(name: str) -> str:
    """Return a name with an indefinite article, unless it already has an article."""
    if name.lower().startswith(("a ", "an ", "the ")):
        return name
    return f"{'an' if name[:1].lower() in tuple('aeiou') else 'a'} {name}"
