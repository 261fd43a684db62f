"""The models that a config names, and their identity. torch is imported only if needed.

A model is `ARCHITECTURE/TAG` (open_clip's own, e.g. `RN50/openai`), a folder in the layout of
open_clip's hub (`open_clip_config.json` next to the weights), or an architecture with a checkpoint
file.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from xmore.files.anchored import AnchoredPath
from xmore.files.digests import cached_digest, digest_of
from xmore.files.errors import ModelError
from xmore.files.yaml import Section
from xmore.models.activation import check_activation

WEIGHT_FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin", "open_clip_model.pt")


class ModelSpec(Section):
    """One model: a folder, or an architecture with a pretrained tag or a checkpoint file."""

    folder: AnchoredPath | None = Field(
        None, description="Folder with open_clip_config.json and weights."
    )
    architecture: str | None = Field(None, description="open_clip's name, e.g. RN50.")
    pretrained: str | None = Field(None, description="open_clip's pretrained tag, e.g. openai.")
    checkpoint: AnchoredPath | None = Field(
        None, description="File with weights for the architecture."
    )
    pooled: bool = Field(
        False,
        description="Use a timm tower's pooled features, before its projection: images only.",
    )

    activation: Literal["gelu", "quick_gelu"] | None = Field(
        None, description="Activation of a checkpoint's towers. Default: the architecture's."
    )

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if self.activation is not None and self.checkpoint is None:
            raise ValueError("`activation` needs a `checkpoint`; tags and folders define theirs")
        if self.activation == "gelu" and str(self.architecture).endswith("-quickgelu"):
            raise ValueError(f"`activation: gelu` contradicts `architecture: {self.architecture}`")
        given = (self.folder is not None, self.architecture is not None)
        weights = (self.pretrained is not None) + (self.checkpoint is not None)
        if given not in ((True, False), (False, True)) or weights != given[1]:
            raise ValueError(
                "a model is either a `folder`, or an `architecture` with one of `pretrained` "
                "and `checkpoint`"
            )
        return self

    @classmethod
    def from_name(cls, name: str) -> ModelSpec:
        """Parse `RN50/openai`: open_clip's architecture and tag."""
        architecture, _, tag = name.rpartition("/")
        return cls(architecture=architecture.replace("/", "-"), pretrained=tag)


@dataclass(frozen=True)
class ModelCard:
    """A model in the pipeline: its name in tables, its spec and its identity."""

    name: str
    spec: ModelSpec
    identity: dict[str, Any]  # weights and preprocessing, which enter the digests

    @property
    def digest(self) -> str:
        """The same for all names and roles of one model."""
        return digest_of(self.identity)


def describe_model(name: str, spec: ModelSpec, cache: Path) -> ModelCard:
    """Find the weights and hash them; `cache` keeps the hashes. Raises ModelError."""
    weights = weights_path(name, spec)
    sha256 = cached_digest(weights, cache)
    if spec.checkpoint is not None and spec.activation is None:
        config = _architecture_config(name, str(spec.architecture))
        check_activation(
            name, str(spec.architecture), config.get("quick_gelu", False), weights, sha256
        )
    identity = {
        "weights_sha256": sha256,
        "architecture": _architecture(spec),
        "preprocess": _preprocess(spec),
        "pooled": spec.pooled,
    }
    return ModelCard(name, spec, identity)


def weights_path(name: str, spec: ModelSpec) -> Path:
    """Return the file of the model's weights; open_clip downloads a tag's if absent.

    Raises ModelError.
    """
    if spec.folder is not None:
        found = [spec.folder / file for file in WEIGHT_FILES if (spec.folder / file).is_file()]
        if not (spec.folder / "open_clip_config.json").is_file() or not found:
            raise ModelError(
                f"model `{name}`: {spec.folder} must contain open_clip_config.json and one of "
                f"{', '.join(WEIGHT_FILES)}. For the demo's models run `xmore demo` once."
            )
        return found[0]
    if spec.checkpoint is not None:
        if not spec.checkpoint.is_file():
            raise ModelError(f"model `{name}`: no file {spec.checkpoint}. Correct `checkpoint`.")
        return spec.checkpoint
    return _download(name, spec)


def folder_config(folder: Path) -> dict[str, Any]:
    """Read a model folder's open_clip_config.json: `model_cfg`, and `preprocess_cfg` if present.

    Raises ModelError.
    """
    path = folder / "open_clip_config.json"
    try:
        config = json.loads(path.read_text())
        config["model_cfg"]["embed_dim"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{path}: not an open_clip model config ({error!r}).") from error
    return config


def architecture_config(card: ModelCard) -> dict[str, Any]:
    """Return open_clip's config of a model: embed_dim, vision_cfg, text_cfg. Raises ModelError."""
    if card.spec.folder is not None:
        return folder_config(card.spec.folder)["model_cfg"]
    return _architecture_config(card.name, str(card.spec.architecture))


def _architecture(spec: ModelSpec) -> Any:
    if spec.folder is not None:
        return folder_config(spec.folder)["model_cfg"]
    return spec.architecture


def _architecture_config(name: str, architecture: str) -> dict[str, Any]:
    import open_clip

    config = open_clip.get_model_config(architecture)
    if config is None:
        raise ModelError(
            f"model `{name}`: open_clip has no architecture `{architecture}`. "
            "See open_clip.list_models()."
        )
    return config


def _preprocess(spec: ModelSpec) -> dict[str, Any]:
    if spec.folder is not None:
        return folder_config(spec.folder).get("preprocess_cfg", {})
    if spec.pretrained is None:
        return {"quick_gelu": True} if spec.activation == "quick_gelu" else {}
    from open_clip import pretrained

    config = pretrained.get_pretrained_cfg(spec.architecture, spec.pretrained)
    keys = ("mean", "std", "interpolation", "resize_mode", "quick_gelu")
    return {key: config[key] for key in keys if key in config}


def _download(name: str, spec: ModelSpec) -> Path:
    from open_clip import pretrained

    _architecture_config(name, str(spec.architecture))
    config = pretrained.get_pretrained_cfg(spec.architecture, spec.pretrained)
    if not config:
        tags = pretrained.list_pretrained_tags_by_model(spec.architecture)
        raise ModelError(
            f"model `{name}`: no pretrained tag `{spec.pretrained}` for {spec.architecture}. "
            f"Available: {', '.join(tags)}."
        )
    try:
        return Path(pretrained.download_pretrained(config))
    except Exception as error:  # whatever the hub's client or urllib raises
        raise ModelError(
            f"model `{name}`: its weights could not be downloaded "
            f"({type(error).__name__}: {str(error).splitlines()[0]}). "
            "Download them on a machine with network access, then set `checkpoint` to the file."
        ) from error
