"""What a file of weights is, and where it comes from: read without running anything in it."""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from xmore.files.errors import ModelError
from xmore.models import zoo

CONFIG = "open_clip_config.json"
TELLTALES = ("visual.conv1.weight", "text_projection", "positional_embedding")
POSITIONS = "visual.positional_embedding"  # of a ViT: one row per patch, and one for the class
THEIRS = "vision_model.embeddings.patch_embedding.weight"  # in transformers' layout
POINTER = b"version https://git-lfs."  # how a file begins that Git LFS has not fetched
NOT_THEIRS = (
    "open_clip cannot read it. Use the same model in open_clip's layout: an `ARCHITECTURE/TAG` of "
    "open_clip, or `hf-hub:ORG/NAME` of a repository with an open_clip_config.json."
)


@dataclass(frozen=True)
class Origin:
    """One of open_clip's own files: its architecture and tag, and open_clip's facts about it."""

    architecture: str
    tag: str
    facts: dict[str, Any]

    def __str__(self) -> str:
        return f"{self.architecture}/{self.tag}"


@dataclass(frozen=True)
class Checkpoint:
    """A file of weights."""

    path: Path
    sha256: str

    @cached_property
    def origin(self) -> Origin | None:
        """Which of open_clip's own files it is, by its hash or its path in the hub's cache."""
        place = self.path.absolute().as_posix()
        for origin in origins():
            url, hub = (origin.facts.get(key) or "" for key in ("url", "hf_hub"))
            promised = url.rsplit("/", 2)[-2] if "openaipublic" in url else ""
            if "mlfoundations" in url:
                promised = Path(url).stem.rpartition("-")[2]
            by_hash = len(promised) >= 8 and self.sha256.startswith(promised)
            hub = hub.rstrip("/").replace("/", "--")
            if by_hash or (hub and f"/models--{hub}/" in place):
                return origin
        return None

    @cached_property
    def config_beside(self) -> dict[str, Any]:
        """The open_clip_config.json in its folder; empty if there is none that can be read."""
        try:
            config = json.loads((self.path.parent / CONFIG).read_bytes())
        except (OSError, ValueError, RecursionError):
            return {}
        return config if isinstance(config, dict) else {}

    @cached_property
    def telltales(self) -> dict[str, Any]:
        """Those of its tensors that tell what it is; empty if it cannot be read."""
        try:
            found = _read(self.path, (*TELLTALES, "logit_scale", POSITIONS, THEIRS))
            return {key: value for key, value in found.items() if hasattr(value, "ndim")}
        except Exception:  # not a checkpoint: loading it reports that
            return {}


def origins() -> Iterator[Origin]:
    """Yield all of open_clip's own files; the plain architecture stands for its `-quickgelu`."""
    pretrained = zoo.pretrained()
    for architecture, tag in pretrained.list_pretrained():
        if not architecture.endswith("-quickgelu"):
            yield Origin(architecture, tag, pretrained.get_pretrained_cfg(architecture, tag))


def check_format(model: str, checkpoint: Checkpoint, architecture: str | None) -> None:
    """Raise ModelError if open_clip cannot read such a file, with what to use instead.

    `architecture` is None for a folder's, which is not opened.
    """
    path, todo = checkpoint.path, "Join the parts into one file of open_clip's state dict."
    if _is_pointer(path):
        raise ModelError(
            f"model `{model}`: {path} is a pointer of Git LFS, not the weights. Run `git lfs pull` "
            "in its repository, or download the file itself."
        )
    if path.name.endswith(".index.json") or re.search(r"-\d+-of-\d+\.", path.name):
        raise ModelError(f"model `{model}`: {path} is one part of several. {todo}")
    if _is_torchscript(path):
        tag = _openai(checkpoint, architecture)
        raise ModelError(
            f"model `{model}`: {path} is a TorchScript archive, as OpenAI published its models. It "
            f"contains code, so it is not loaded. {tag}"
        )
    if architecture is not None and THEIRS in checkpoint.telltales:
        raise ModelError(f"model `{model}`: {path} is in transformers' layout. {NOT_THEIRS}")


def _openai(checkpoint: Checkpoint, architecture: str | None) -> str:
    pretrained = zoo.pretrained()
    name = checkpoint.origin.architecture if checkpoint.origin else architecture or "RN50"
    plain = name.removesuffix("-quickgelu")
    if "openai" in pretrained.list_pretrained_tags_by_model(plain):
        return (
            f"Name the tag `{plain}/openai` instead of an entry under `models`, or save the "
            f"state dict as safetensors and use it with `architecture: {plain}-quickgelu`."
        )
    return "Save its state dict as safetensors."


def _is_pointer(path: Path) -> bool:
    try:
        with path.open("rb") as stream:
            return stream.read(len(POINTER)) == POINTER
    except OSError:
        return False


def _is_torchscript(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("/constants.pkl") for name in archive.namelist())
    except (OSError, ValueError, zipfile.BadZipFile, NotImplementedError):
        return False


def _read(path: Path, wanted: tuple[str, ...]) -> dict[str, Any]:
    if path.suffix == ".safetensors":
        from safetensors import safe_open

        with safe_open(path, "pt") as stream:
            keys = set(stream.keys())
            return {key: stream.get_tensor(key) for key in wanted if key in keys}
    import torch

    state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    state = state.get("state_dict", state)
    named = {key.removeprefix("module."): tensor for key, tensor in state.items()}
    return {key: named[key] for key in wanted if key in named}
