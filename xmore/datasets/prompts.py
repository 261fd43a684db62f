"""Prompts of a class: one sentence, templates, or descriptions from a file."""

from __future__ import annotations

import json
from pathlib import Path

from xmore.files.errors import ConfigError

PAPERS_PROMPT = "a photo of a {}."
MAX_PROMPTS = 10_000  # per class


def class_prompts(names: list[str], template: str, file: Path | None) -> list[list[str]]:
    """Return the sentences of each class; its feature is the normalised mean of theirs.

    Without `file`, each class has one: `template` (as in the paper). A `.txt` file contains one
    template per line, with `{}` for the class name (CLIP's 80 are in data/prompts). A `.json` file
    maps each class name to its own sentences. Raises ConfigError.
    """
    if file is None:
        return [[template.replace("{}", name)] for name in names]
    if file.suffix == ".json":
        return _descriptions(names, file)
    templates = [line for line in _read(file).splitlines() if line and not line.startswith("#")]
    wrong = next((line for line in templates if "{}" not in line), None)
    if wrong is not None:
        raise ConfigError(f"{file}: a template needs `{{}}` for the class name, got {wrong!r}.")
    if not 1 <= len(templates) <= MAX_PROMPTS:
        raise ConfigError(
            f"{file}: must contain 1 to {MAX_PROMPTS} templates, one per line, "
            f"got {len(templates)}."
        )
    return [[line.replace("{}", name) for line in templates] for name in names]


def _descriptions(names: list[str], file: Path) -> list[list[str]]:
    try:
        data = json.loads(_read(file))
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{file}: not valid JSON ({error}).") from error
    if not isinstance(data, dict):
        raise ConfigError(f"{file}: must map class names to lists of sentences.")
    for name in names:
        texts = data.get(name, "nothing")
        is_list = isinstance(texts, list) and 1 <= len(texts) <= MAX_PROMPTS
        if not is_list or not all(isinstance(text, str) and text for text in texts):
            raise ConfigError(
                f"{file}: class {name!r} needs a list of 1 to {MAX_PROMPTS} sentences, "
                f"got {str(texts)[:60]}."
            )
    return [data[name] for name in names]


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise ConfigError(f"{file}: cannot be read ({error}). Correct `prompts`.") from error
