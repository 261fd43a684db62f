"""How images become a model's input: mean, standard deviation, interpolation, resizing, size.

A tag or a model folder defines it; a checkpoint file does not. Under another model's preprocessing
every feature is slightly wrong, and open_clip does not warn: it takes CLIP's own.
"""

from __future__ import annotations

import json
import math
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, ValidationError

from xmore.files.errors import ModelError
from xmore.files.yaml import Section, explain
from xmore.models import zoo
from xmore.models.checkpoint import CONFIG, POSITIONS, Checkpoint

KEYS = ("mean", "std", "interpolation", "resize_mode")

_Means = Annotated[list[float], Field(min_length=3, max_length=3)]
_Positive = Annotated[float, Field(gt=0)]
_Deviations = Annotated[list[_Positive], Field(min_length=3, max_length=3)]
_Resizing = Literal["shortest", "longest", "squash"]


class PreprocessSpec(Section):
    """How images become a checkpoint's input. A key that is not set is looked up."""

    mean: _Means | None = Field(None, description="Mean of red, green and blue, in 0 to 1.")
    std: _Deviations | None = Field(None, description="Standard deviation of the same.")
    interpolation: Literal["bicubic", "bilinear"] | None = Field(
        None, description="How pixels are interpolated."
    )
    resize_mode: _Resizing | None = Field(
        None,
        description="`shortest`: resize the shorter side, crop the longer; `longest`: resize the "
        "longer, pad the shorter; `squash`: resize both to the size.",
    )
    size: int | None = Field(None, ge=1, description="Side of the input, in pixels.")


class _Theirs(BaseModel, strict=True):
    """`preprocess_cfg` of an open_clip_config.json: as open_clip reads it."""

    mean: _Means | float | None = None
    std: _Deviations | _Positive | None = None
    interpolation: Literal["bicubic", "bilinear", "random"] | None = None
    resize_mode: _Resizing | None = None


def check_theirs(place: object, settings: Any) -> dict[str, Any]:
    """Return a config's `preprocess_cfg`, or {} for None. Raises ModelError if it is none."""
    try:
        _Theirs.model_validate({} if settings is None else settings)
    except ValidationError as error:
        raise ModelError(f"{place}: `preprocess_cfg`: {explain(error, _Theirs)}") from error
    return settings or {}


def of_checkpoint(
    name: str, architecture: str, config: dict[str, Any], given: PreprocessSpec, file: Checkpoint
) -> dict[str, Any]:
    """Return the preprocessing of a checkpoint file: KEYS, and `size` if not `config`'s.

    Empty if it is CLIP's own, which open_clip takes by default. It is that of the tag which the
    file is, else of the config beside it, else of the architecture's tags if they agree; `given`
    replaces single keys. `config` is open_clip's of `architecture`. Raises ModelError if the tags
    differ, or if the file is of another size.
    """
    asked = given.model_dump(exclude_none=True)
    kinds: dict[str, list[str]] = {}
    for source, settings in _sources(architecture, file):
        settled = _clips_own() | _plain(settings) | _plain(asked)
        kinds.setdefault(json.dumps(settled, sort_keys=True), []).append(source)
    if len(kinds) > 1:
        raise ModelError(_unclear(name, architecture, kinds, file))
    found = json.loads(next(iter(kinds)))
    vision = config["vision_cfg"]
    size = given.size or _size_beside(file) or vision.get("image_size", 224)
    _check_size(name, architecture, vision, size, given, file)
    changed = {} if found == _clips_own() else found
    return changed | ({} if size == vision.get("image_size", 224) else {"size": size})


def _sources(architecture: str, file: Checkpoint) -> list[tuple[str, dict[str, Any]]]:
    """Return what may say how images are prepared, with what it says."""
    if file.origin:
        return [(str(file.origin), file.origin.facts)]
    if "preprocess_cfg" in file.config_beside:
        place = file.path.parent / CONFIG
        return [(CONFIG, check_theirs(place, file.config_beside["preprocess_cfg"]))]
    pretrained = zoo.pretrained()
    tags = pretrained.list_pretrained_tags_by_model(architecture)
    of_tags = [(tag, pretrained.get_pretrained_cfg(architecture, tag)) for tag in tags]
    return of_tags or [("open_clip's default", {})]


def _clips_own() -> dict[str, Any]:
    of_clip = zoo.pretrained()
    own = {"mean": list(of_clip.OPENAI_DATASET_MEAN), "std": list(of_clip.OPENAI_DATASET_STD)}
    return own | {"interpolation": "bicubic", "resize_mode": "shortest"}


def _plain(settings: dict[str, Any]) -> dict[str, Any]:
    """Return the KEYS that are set, in one form: three floats, one word."""
    found = {}
    for key in KEYS:
        value = settings.get(key)
        if key in ("mean", "std") and value is not None:
            value = [float(v) for v in (value if isinstance(value, list | tuple) else [value] * 3)]
        if value is not None:
            found[key] = "bicubic" if value == "random" else value
    return found


def _unclear(name: str, architecture: str, kinds: dict[str, list[str]], file: Checkpoint) -> str:
    read = [(json.loads(kind), tags) for kind, tags in kinds.items()]
    differ = [key for key in KEYS if len({str(kind[key]) for kind, _ in read}) > 1]
    listed = "; ".join(
        f"{', '.join(f'{key}: {kind[key]}' for key in differ)} for {_some(tags)}"
        for kind, tags in read
    )
    return (
        f"model `{name}`: nothing says how images are prepared for {file.path}, and open_clip's "
        f"tags of {architecture} differ ({listed}). Put the model's {CONFIG} next to the file, or "
        f"set `preprocess`: {{{', '.join(f'{key}: ...' for key in differ)}}}."
    )


def _some(tags: list[str]) -> str:
    rest = len(tags) - 3
    return ", ".join(tags[:3]) + (f" and {rest} more" if rest > 0 else "")


def _size_beside(file: Checkpoint) -> int | None:
    model = file.config_beside.get("model_cfg")
    vision = model.get("vision_cfg") if isinstance(model, dict) else None
    size = vision.get("image_size") if isinstance(vision, dict) else None
    return size if isinstance(size, int) and not isinstance(size, bool) and size > 0 else None


def _check_size(
    name: str,
    architecture: str,
    vision: dict[str, Any],
    size: int,
    given: PreprocessSpec,
    file: Checkpoint,
) -> None:
    """Raise ModelError if a ViT's positions are of another size: open_clip would resize them."""
    positions, patch = file.telltales.get(POSITIONS), vision.get("patch_size")
    if positions is None or positions.ndim != 2 or given.size or not isinstance(patch, int):
        return
    side = math.isqrt(max(0, len(positions) - 1))
    if side != size // patch:
        raise ModelError(
            f"model `{name}`: {file.path} is for images of {side * patch} pixels, but "
            f"{architecture} reads {size}; open_clip would interpolate its positions. Set another "
            f"`architecture`, or `preprocess: {{size: {side * patch}}}`."
        )
