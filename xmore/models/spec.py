"""The models that a config names, and their identity. torch is imported only if needed.

A model is `ARCHITECTURE/TAG` (open_clip's own, e.g. `RN50/openai`), `hf-hub:ORG/NAME`, a folder in
the layout of open_clip's hub (`open_clip_config.json` next to the weights), or an architecture with
a checkpoint file.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from xmore.files.anchored import AnchoredPath
from xmore.files.digests import cached_digest, digest_of
from xmore.files.errors import ModelError, cause_of, meant
from xmore.files.yaml import Section
from xmore.models import zoo
from xmore.models.activation import check_activation
from xmore.models.checkpoint import CONFIG, Checkpoint, check_format
from xmore.models.folder import folder_config, weights_in
from xmore.models.preprocess import KEYS, PreprocessSpec, of_checkpoint
from xmore.models.tokenizer import tokenizer_digest

HUB = "hf-hub:"
REPOSITORY = r"^[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*$"
TOKENIZER = "tokenizer"  # the key of an identity that older ones lack
PRECISION = "precision"  # the key of an identity that those in float32 lack

Precision = Literal["fp32", "tf32", "bf16", "fp16"]
IN_2_BYTES = ("bf16", "fp16")


class ModelSpec(Section):
    """One model: a folder, the hub's, or an architecture with a pretrained tag or a checkpoint."""

    folder: AnchoredPath | None = Field(
        None, description="Folder with open_clip_config.json and weights."
    )
    hub: str | None = Field(
        None,
        pattern=REPOSITORY,
        description="Repository of the Hugging Face hub with the same files: ORG/NAME.",
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
    preprocess: PreprocessSpec | None = Field(
        None,
        description="Preprocessing of a checkpoint. Default: that of the open_clip_config.json "
        "next to it, or of open_clip's tags of the architecture if they agree.",
    )
    precision: Precision | None = Field(
        None,
        description="In which the towers compute; part of the model's identity. Default: the "
        "config's `precision`, or fp32. A CPU computes in fp32 and rounds to 16 bits.",
    )

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        for key in ("activation", "preprocess"):
            if getattr(self, key) is not None and self.checkpoint is None:
                raise ValueError(f"`{key}` needs a `checkpoint`; tags and folders define theirs")
        if self.activation == "gelu" and str(self.architecture).endswith("-quickgelu"):
            raise ValueError(f"`activation: gelu` contradicts `architecture: {self.architecture}`")
        given = [key for key in ("folder", "hub", "architecture") if getattr(self, key) is not None]
        weights = (self.pretrained is not None) + (self.checkpoint is not None)
        if len(given) != 1 or weights != (given == ["architecture"]):
            raise ValueError(
                "a model is either a `folder`, a `hub`, or an `architecture` with one of "
                "`pretrained` and `checkpoint`"
            )
        return self

    @classmethod
    def from_name(cls, name: str) -> ModelSpec:
        """Parse `RN50/openai`, open_clip's architecture and tag, or `hf-hub:ORG/NAME`.

        Raises ModelError.
        """
        if name.startswith(HUB):
            repository = name.removeprefix(HUB)
            if not re.match(REPOSITORY, repository):
                raise ModelError(f"model `{name}`: a repository is named `{HUB}ORG/NAME`.")
            return cls(hub=repository)
        architecture, _, tag = name.rpartition("/")
        return cls(architecture=architecture.replace("/", "-"), pretrained=tag)


@dataclass(frozen=True)
class ModelCard:
    """A model in the pipeline: its name in tables, its spec and its identity."""

    name: str
    spec: ModelSpec
    identity: dict[str, Any]  # weights, preprocessing, tokenizer, precision; enters the digests

    @property
    def digest(self) -> str:
        """The same for all names and roles of one model."""
        return digest_of(self.identity)

    @property
    def precision(self) -> Precision:
        """In which its towers compute."""
        return self.identity.get(PRECISION, "fp32")

    @property
    def image_identity(self) -> dict[str, Any]:
        """What the features of images depend on: all but the tokenizer."""
        return {key: value for key, value in self.identity.items() if key != TOKENIZER}

    def as_in(self, identity: Mapping[str, Any]) -> ModelCard:
        """Return this model under an older identity of it; unchanged if that is of another."""
        return (
            replace(self, identity=dict(identity)) if same_model(self.identity, identity) else self
        )


def same_model(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Return whether two identities are of one model.

    Older identities lack the tokenizer: such a one is the same as one that has it.
    """
    if (TOKENIZER in one) != (TOKENIZER in other):
        one, other = ({k: v for k, v in i.items() if k != TOKENIZER} for i in (one, other))
    return one == other


def same_space(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Return whether features under two identities can be compared: one model in any precision."""
    one, other = ({k: v for k, v in i.items() if k != PRECISION} for i in (one, other))
    return same_model(one, other)


def describe_model(name: str, spec: ModelSpec, cache: Path) -> ModelCard:
    """Find the weights and hash them; `cache` keeps the hashes. Raises ModelError."""
    if spec.hub is not None:
        spec = spec.model_copy(update={"hub": None, "folder": _from_hub(name, spec.hub)})
    weights = weights_path(name, spec)
    file = Checkpoint(weights, cached_digest(weights, cache))
    config = _model_config(name, spec)
    if spec.pretrained is None:
        check_format(name, file, spec.architecture)
    if spec.checkpoint is not None and spec.activation is None:
        check_activation(name, str(spec.architecture), config.get("quick_gelu", False), file)
    identity = {
        "weights_sha256": file.sha256,
        "architecture": config if spec.folder is not None else spec.architecture,
        "preprocess": _preprocess(name, spec, config, file),
        "pooled": spec.pooled,
    }
    if spec.precision not in (None, "fp32"):
        identity[PRECISION] = spec.precision
    tokenizer = None if spec.pooled else tokenizer_digest(spec.folder, config["text_cfg"])
    return ModelCard(name, spec, identity | ({TOKENIZER: tokenizer} if tokenizer else {}))


def check_tag(name: str, spec: ModelSpec) -> None:
    """Raise ModelError if open_clip knows no such architecture or tag."""
    if spec.architecture is None:
        return
    zoo.architecture_config(name, spec.architecture)
    pretrained, tag = zoo.pretrained(), spec.pretrained
    if tag is not None and not pretrained.is_pretrained_cfg(spec.architecture, tag):
        tags = pretrained.list_pretrained_tags_by_model(spec.architecture)
        raise ModelError(
            f"model `{name}`: no pretrained tag `{tag}` for {spec.architecture}."
            f"{meant(tag, tags)} Available: {', '.join(tags)}."
        )


def weights_path(name: str, spec: ModelSpec) -> Path:
    """Return the file of the model's weights; open_clip downloads a tag's if absent.

    Raises ModelError.
    """
    if spec.folder is not None:
        return weights_in(name, spec.folder)
    if spec.checkpoint is not None:
        if not spec.checkpoint.is_file():
            raise ModelError(f"model `{name}`: no file {spec.checkpoint}. Correct `checkpoint`.")
        return spec.checkpoint
    return _download(name, spec)


def architecture_config(card: ModelCard) -> dict[str, Any]:
    """Return open_clip's config of a model: embed_dim, vision_cfg, text_cfg. Raises ModelError."""
    return _model_config(card.name, card.spec)


def context_length(card: ModelCard) -> int:
    """Return the number of tokens that a model reads of a text."""
    return architecture_config(card)["text_cfg"].get("context_length", 77)


def _model_config(name: str, spec: ModelSpec) -> dict[str, Any]:
    if spec.folder is not None:
        return folder_config(spec.folder)["model_cfg"]
    return zoo.architecture_config(name, str(spec.architecture))


def _preprocess(
    name: str, spec: ModelSpec, config: dict[str, Any], file: Checkpoint
) -> dict[str, Any]:
    if spec.folder is not None:
        return folder_config(spec.folder)["preprocess_cfg"]
    if spec.pretrained is None:
        given = spec.preprocess or PreprocessSpec()
        found = of_checkpoint(name, str(spec.architecture), config, given, file)
        return found | ({"quick_gelu": True} if spec.activation == "quick_gelu" else {})
    of_tag = zoo.pretrained().get_pretrained_cfg(spec.architecture, spec.pretrained)
    return {key: of_tag[key] for key in (*KEYS, "quick_gelu") if key in of_tag}


def _from_hub(name: str, repository: str) -> Path:
    """Return the folder of a repository's files in the hub's cache, downloaded if absent."""
    download = zoo.pretrained().download_pretrained_from_hf
    try:
        download(repository, filename=CONFIG)
        return Path(download(repository)).parent
    except Exception as error:  # whatever the hub's client raises
        raise ModelError(
            f"model `{name}`: {repository} could not be downloaded from the hub, or has no {CONFIG}"
            f" ({cause_of(error)}). Download it on a machine with network access, then set "
            "`folder` to it."
        ) from error


def _download(name: str, spec: ModelSpec) -> Path:
    check_tag(name, spec)
    pretrained = zoo.pretrained()
    config = pretrained.get_pretrained_cfg(spec.architecture, spec.pretrained)
    try:
        return Path(pretrained.download_pretrained(config))
    except Exception as error:  # whatever the hub's client or urllib raises
        raise ModelError(
            f"model `{name}`: its weights could not be downloaded "
            f"({cause_of(error)}). "
            "Download them on a machine with network access, then set `checkpoint` to the file."
        ) from error
