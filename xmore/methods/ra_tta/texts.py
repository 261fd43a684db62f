"""What `ra-tta` says of each class: sentences from a file, with the dataset's template before."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from xmore.datasets.prompts import class_sentences
from xmore.files.errors import ConfigError
from xmore.files.paths import PROJECT_ROOT
from xmore.methods.base import MethodRequest

FOLDER = PROJECT_ROOT / "data" / "descriptions"  # one file per dataset, by its name
LEAST = 5  # descriptions of a class among the best, without which it is not kept

PHOTO = "a photo of a {}."
BEFORE = {  # by the name of the dataset's card; the public code's
    "imagenet": "a photo of the {}.",
    "imagenet-a": "a photo of the {}.",
    "imagenet-r": "a photo of the {}.",
    "imagenet-sketch": "a photo of the {}.",
    "imagenet-v2": "a photo of the {}.",
    "food101": "a photo of a {}, a type of food.",
    "cub-200-2011": "a photo of a {}, a type of bird.",
    "flowers102": "a photo of a {}, a type of flower.",
    "oxford-pets": "a photo of a {}, a type of pet.",
    "fgvc-aircraft": "a photo of a {} from Fine-Grained Visual Classification of Aircraft.",
    "ucf101": "a photo of a person doing {}.",
    "eurosat": "a satellite photo of the {}.",
    "dtd": "a photo of a {}, which is a type of texture, or a type of pattern.",
}


@dataclass(frozen=True)
class Described:
    """Each class's sentences, as they are in the file, and its descriptions made of them."""

    sentences: list[list[str]]
    descriptions: list[list[str]]


def template_of(dataset: str) -> str:
    """Return the template before each sentence; `a photo of a {}.` for a dataset of no own."""
    return BEFORE.get(dataset, PHOTO)


def texts_file(request: MethodRequest) -> Path:
    """Return the file of sentences: the config's, or that of the dataset's name.

    Raises ConfigError if there is no such file.
    """
    given = request.options.ratta.descriptions
    path = given or FOLDER / f"{request.dataset}.json"
    if path.is_file() and path.suffix == ".json":
        return path
    what = "not a .json file" if path.is_file() else "no such file"
    raise ConfigError(
        f"{path}: {what}. `ra-tta` needs sentences for each class of `{request.dataset}`, as "
        "CuPL's: set `options: {ratta: {descriptions: FILE}}` (docs/methods.md), or remove it from "
        "`methods`."
    )


def described(request: MethodRequest, class_names: list[str]) -> Described:
    """Read the sentences of each class. Raises ConfigError."""
    path = texts_file(request)
    sentences = class_sentences(class_names, path, "`options.ratta.descriptions`")
    if max(map(len, sentences)) + 1 < LEAST:
        raise ConfigError(
            f"{path}: no class has {LEAST - 1} sentences, but `ra-tta` keeps a class only for "
            f"{LEAST} of its descriptions. Write more sentences."
        )
    template = template_of(request.dataset)
    descriptions = []
    for name, of_class in zip(class_names, sentences, strict=True):
        before = template.replace("{}", name)
        descriptions.append([*(f"{before} {sentence}" for sentence in of_class), before])
    return Described(sentences, descriptions)
