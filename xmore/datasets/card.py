"""A test dataset's card: where its images and labels are, and its expected size."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from xmore.datasets.captions import CaptionsFile
from xmore.datasets.names import plain, read_classes
from xmore.datasets.prompts import PAPERS_PROMPT
from xmore.datasets.sources import FolderSource, Source
from xmore.files.anchored import AnchoredPath
from xmore.files.errors import ConfigError, DatasetError, meant
from xmore.files.paths import PROJECT_ROOT, real
from xmore.files.yaml import NAME, Section, explain, load_yaml

CARDS = PROJECT_ROOT / "data"
DATA_ROOT = CARDS / "datasets"  # default folder of the datasets to obtain


def _as_text(value: object) -> object:
    """Return a name that YAML has read as a number as text again. Raises ValueError."""
    if value is None or isinstance(value, bool):
        raise ValueError(f"a name is text, and YAML reads {value} otherwise; write it in quotes")
    return str(value) if isinstance(value, int | float) else value


ClassText = Annotated[str, BeforeValidator(_as_text)]
"""The name of a class or of its folder."""


class Expected(Section):
    """The counts of the complete dataset; with other counts it is not the published test set."""

    classes: int = Field(ge=2, description="Number of classes.")
    images: int = Field(ge=1, description="Number of test images.")
    source: str = Field("", description="Where these numbers were published.")


class Obtain(Section):
    """How to obtain a dataset by hand. Whether `xmore datasets get` can depends on its source."""

    page: str = Field("", description="The authors' page.")
    steps: list[str] = Field([], description="Steps to do by hand, in the dataset's folder.")


class DatasetCard(Section):
    """A test dataset: where its images and labels are, and its expected size."""

    name: str = Field(pattern=NAME, description="Its name in configs, tables and the store.")
    version: int = Field(
        1, ge=1, description="The card's version; increase it when its meaning changes."
    )
    task: Literal["classification", "retrieval"] = Field(
        "classification",
        description="`retrieval`: find the image of each caption and a caption of each image.",
    )
    title: str = Field("", description="One line about the dataset.")
    paper_name: str | None = Field(None, description="Its name in the paper's tables.")
    licence: str = Field("", description="Licence of the images, as far as it is known.")
    root: AnchoredPath = Field(Path(), description="Folder of the images, relative to the card.")
    folder: str | None = Field(
        None, description="Instead of `root`: the folder under the config's `data_root`."
    )
    follow_links: bool = Field(
        False, description="Also read images and class folders by links that lead out of `root`."
    )
    source: Source = Field(FolderSource(), description="Layout of its images and labels.")
    captions: CaptionsFile | None = Field(
        None, description="Of `task: retrieval`, instead of `source`: the captions of its images."
    )
    classes: dict[ClassText, ClassText] | AnchoredPath | None = Field(
        None,
        description="Folder -> class name; or a text file with one name per line "
        "(`folder<TAB>name` for folders). Default: the source's own names; for folders, the name "
        "of each, with spaces for underscores.",
    )
    alternatives: dict[str, AnchoredPath] = Field(
        default_factory=dict,
        description="Other files of class names, by the name that a config's `class_names` uses.",
    )
    expected: Expected | None = Field(None, description="Counts of the complete dataset.")
    prompt: str = Field(PAPERS_PROMPT, description="`{}` is the class name.")
    obtain: Obtain = Obtain()

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        if (self.folder is None) == ("root" not in self.model_fields_set):
            raise ValueError("name either `root` or `folder`")
        if self.folder is not None and (self.folder[:1] in ("", "/") or ".." in self.folder):
            raise ValueError(f"`folder` must lie under `data_root`, got {self.folder!r}")
        if "{}" not in self.prompt:
            raise ValueError(f"`prompt` needs `{{}}` for the class name, got {self.prompt!r}")
        if (self.task == "retrieval") != (self.captions is not None):
            raise ValueError("`task: retrieval` and `captions` belong together; name both")
        without_use = {"source", "classes", "alternatives", "expected", "prompt"}
        if self.captions and (others := without_use & self.model_fields_set):
            raise ValueError(f"`task: retrieval` has no `{min(others)}`; remove it")
        return self


def load_card(
    name_or_path: str, data_root: Path | None = None, class_names: str | None = None
) -> DatasetCard:
    """Load a card by its name in data/, or by its path; its paths become absolute.

    `data_root` contains the datasets whose card has a `folder`. `class_names` is one of the card's
    alternatives; a retrieval card has none. Raises ConfigError.
    """
    path = Path(name_or_path)
    if path.suffix not in (".yaml", ".yml"):
        path = CARDS / f"{name_or_path}.yaml"
        if not path.is_file():
            raise ConfigError(
                f"dataset `{name_or_path}`: no card of that name in {CARDS}."
                f"{meant(name_or_path, all_cards())} Available: {', '.join(all_cards())}. "
                "Write one, or give the path of its YAML."
            )
    try:
        base = real(path).parent
        card = DatasetCard.model_validate(load_yaml(path), context={"base": base})
    except ValidationError as error:
        raise ConfigError(f"{path}: {explain(error, DatasetCard)}") from error
    root = (data_root or DATA_ROOT) / card.folder if card.folder else base / card.root
    changes: dict[str, object] = {"root": real(root)}
    if class_names is not None and card.task == "classification":
        if class_names not in card.alternatives:
            available = ", ".join(card.alternatives) or "none"
            raise ConfigError(
                f"{path}: has no class names `{class_names}`."
                f"{meant(class_names, card.alternatives)} Available: {available}. Correct "
                "`class_names`, or remove it to use the card's own."
            )
        changes["classes"] = card.alternatives[class_names]
    return card.model_copy(update=changes)


def all_cards() -> list[str]:
    """Return the names of the cards in data/, sorted."""
    return sorted(card.stem for card in CARDS.glob("*.yaml"))


def named_classes(card: DatasetCard) -> list[tuple[str, str]] | None:
    """Return the card's (folder or '', class name) in label order; None if it has no classes.

    Raises DatasetError.
    """
    if card.classes is None:
        return None
    if isinstance(card.classes, dict):
        return [(folder, plain(name)) for folder, name in card.classes.items()]
    numbers = not isinstance(card.source, FolderSource)
    rows = read_classes(card.classes, DatasetError, "`classes`", numbers)
    return [(folder, plain(name)) for folder, name in rows]
