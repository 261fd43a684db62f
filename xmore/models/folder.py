"""A model's folder in the layout of open_clip's hub: open_clip_config.json next to the weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field, ValidationError

from xmore.files.errors import ModelError, cause_of
from xmore.files.yaml import explain
from xmore.models.checkpoint import CONFIG, NOT_THEIRS
from xmore.models.preprocess import check_theirs

WEIGHT_FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin", "open_clip_model.pt")


class _ModelConfig(BaseModel, strict=True):
    """`model_cfg`; open_clip itself checks the rest when it builds the model."""

    embed_dim: int = Field(ge=1)
    vision_cfg: dict[str, Any]
    text_cfg: dict[str, Any]


def weights_in(name: str, folder: Path) -> Path:
    """Return the file of a folder's weights. Raises ModelError."""
    found = [folder / file for file in WEIGHT_FILES if (folder / file).is_file()]
    if (folder / CONFIG).is_file() and found:
        return found[0]
    kind = _transformers_kind(folder)
    if kind:
        raise ModelError(
            f"model `{name}`: {folder} is transformers' layout of `{kind}`. {NOT_THEIRS}"
        )
    parts = sorted(path.name for path in folder.glob("*-of-*"))
    also = f" It has weights in parts ({parts[0]}); join them into one file." if parts else ""
    raise ModelError(
        f"model `{name}`: {folder} must contain {CONFIG} and one of {', '.join(WEIGHT_FILES)}."
        f"{also} For the demo's models run `xmore demo` once."
    )


def folder_config(folder: Path) -> dict[str, Any]:
    """Read a folder's open_clip_config.json: `model_cfg`, and `preprocess_cfg` if present.

    Raises ModelError if it cannot be read or has a value of a wrong type.
    """
    path = folder / CONFIG
    try:
        config = json.loads(path.read_text(encoding="utf-8-sig"), parse_constant=_no_number)
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{path}: not an open_clip model config ({cause_of(error)}).") from error
    if not isinstance(config, dict) or "model_cfg" not in config:
        raise ModelError(f"{path}: not an open_clip model config (it has no `model_cfg`).")
    try:
        _ModelConfig.model_validate(config["model_cfg"])
    except ValidationError as error:
        raise ModelError(f"{path}: `model_cfg`: {explain(error, _ModelConfig)}") from error
    return config | {"preprocess_cfg": check_theirs(path, config.get("preprocess_cfg"))}


def text_folder(folder: Path, text_cfg: dict[str, Any], key: str) -> Path | None:
    """Return the folder that `hf_model_name` or `hf_tokenizer_name` names; None for the hub's.

    A relative path is relative to the model's folder. Raises ModelError if it is elsewhere.
    """
    named = text_cfg.get(key)
    if not named:
        return None
    if not isinstance(named, str):
        raise ModelError(f"{folder / CONFIG}: `{key}` must be text, got {named!r}.")
    if (folder / named).is_dir():
        return (folder / named).resolve()
    if named.startswith(("/", ".", "~")) or Path(named).exists():
        # transformers would look in the working directory, whatever that is
        raise ModelError(
            f"{folder / CONFIG}: `{key}: {named}`: there is no such folder in {folder}. Copy it "
            "there, or name one of the hub's repositories."
        )
    return None


def _no_number(word: str) -> None:
    raise ValueError(f"{word} is no number")


def _transformers_kind(folder: Path) -> str | None:
    """Return the model type in transformers' config.json, if the folder has one."""
    try:
        config = json.loads((folder / "config.json").read_bytes())
        return str(config["model_type"])
    except (OSError, ValueError, RecursionError, KeyError, TypeError):
        return None
