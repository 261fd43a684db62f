"""Prompts of a class: one sentence, templates, or descriptions from a file; sets of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unicodedata import normalize

from xmore.datasets.names import plain
from xmore.files.errors import ConfigError
from xmore.files.paths import is_text
from xmore.files.text import first_twice, read_names, read_text, refuse_doubles, refuse_quotes

PAPERS_PROMPT = "a photo of a {}."
MAX_PROMPTS = 10_000  # per class


def prompts_of_sets(
    names: list[str], sets: Mapping[str, tuple[str, Path | None]]
) -> dict[str, list[list[str]]]:
    """Return the sentences of each class under each prompt set: see `class_prompts`.

    `sets` maps the name of each to its template and its file. Raises ConfigError.
    """
    return {name: class_prompts(names, *source) for name, source in sets.items()}


def class_prompts(names: list[str], template: str, file: Path | None) -> list[list[str]]:
    """Return the sentences of each class; its feature is the normalised mean of theirs.

    Without `file`, each class has one: `template` (as in the paper). A `.txt` file contains one
    template per line, with `{}` for the class name (CLIP's 80 are in data/prompts). A `.json` file
    maps each class name to its own sentences. Raises ConfigError.
    """
    if file is None:
        return [[template.replace("{}", name)] for name in names]
    if file.suffix == ".json":
        return class_sentences(names, file)
    rows = read_names(file, ConfigError, "`prompts`")
    refuse_doubles(file, rows, ConfigError)
    refuse_quotes(file, rows, ConfigError)
    templates = [template for _, template in rows]
    wrong = next((row for row in rows if "{}" not in row[1]), None)
    if wrong is not None:
        raise ConfigError(
            f"{file}, line {wrong[0]}: a template needs `{{}}` for the class name, "
            f"got {wrong[1]!r}."
        )
    if not 1 <= len(templates) <= MAX_PROMPTS:
        raise ConfigError(
            f"{file}: must contain 1 to {MAX_PROMPTS} templates, one per line, "
            f"got {len(templates)}."
        )
    return [[line.replace("{}", name) for line in templates] for name in names]


def class_sentences(names: list[str], file: Path, key: str = "`prompts`") -> list[list[str]]:
    """Return the sentences of each class by a JSON file that a key of the config names.

    It maps class names to lists of sentences, as CuPL's do. Raises ConfigError.
    """
    try:
        data = json.loads(read_text(file, ConfigError, key), object_pairs_hook=_each_once)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{file}: not valid JSON ({error}).") from error
    if not isinstance(data, dict):
        raise ConfigError(f"{file}: must map class names to lists of sentences.")
    for name in names:
        texts = data.get(name, "nothing")
        if name not in data and (close := _close(name, data)):
            raise ConfigError(f"{file}: no class {name!r}, but `{close}`. Rename it in the file.")
        is_list = isinstance(texts, list) and 1 <= len(texts) <= MAX_PROMPTS
        if not is_list or not all(isinstance(text, str) and text.strip() for text in texts):
            raise ConfigError(
                f"{file}: class {name!r} needs a list of 1 to {MAX_PROMPTS} sentences, "
                f"got {str(texts)[:60]}."
            )
        wrong = next((text for text in texts if "{}" in text or not is_text(text)), None)
        if wrong is not None:
            why = "templates with `{}` go in a .txt file" if "{}" in wrong else "half a character"
            raise ConfigError(f"{file}: class {name!r}: {wrong[:60]!r}: {why}.")
    return [[text.strip() for text in data[name]] for name in names]


def _close(name: str, data: dict[str, Any]) -> str | None:
    """Return the key that is `name` but for case, underscores and the form of accents."""
    return next((key for key in data if _bare(key) == _bare(name)), None)


def _bare(name: str) -> str:
    return normalize("NFC", plain(name)).casefold()


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if (twice := first_twice([name.strip() for name, _ in pairs])) is not None:
        raise ValueError(f"{twice!r} is there twice")
    return {name.strip(): value for name, value in pairs}
