"""QuickGELU or GELU: under the wrong one weights lose accuracy, and open_clip does not warn.

OpenAI's weights, and some others, were trained with QuickGELU. open_clip's `RN50` has GELU, its
`RN50-quickgelu` has QuickGELU. A tag (`RN50/openai`) determines its activation; a file does not.
This module therefore looks for signs of a file's origin, and refuses an architecture that
contradicts them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from xmore.files.errors import ModelError

TELLTALES = ("visual.conv1.weight", "text_projection", "positional_embedding")


def check_activation(
    name: str, architecture: str, quick_gelu: bool, weights: Path, sha256: str
) -> None:
    """Raise ModelError if the weights in a file need the other activation.

    `quick_gelu`: whether `architecture` has QuickGELU. `sha256`: the hash of the file.
    """
    found = _known_file(weights, sha256) or _config_beside(weights) or _openai_values(weights)
    if found is None or found[0] == quick_gelu:
        return
    needed, why = found
    plain = architecture.removesuffix("-quickgelu")
    right = f"{plain}-quickgelu" if needed else plain
    raise ModelError(
        f"model `{name}`: {weights} needs {'QuickGELU' if needed else 'GELU'} ({why}), but "
        f"{architecture} has the other, which silently lowers accuracy. Set `architecture: {right}`"
        f", or `activation: {'gelu' if needed else 'quick_gelu'}` if you are sure."
    )


def _known_file(weights: Path, sha256: str) -> tuple[bool, str] | None:
    """Recognise one of open_clip's own files by its hash or its path in the hub's cache."""
    place = weights.absolute().as_posix()
    for architecture, tag, config in _tags():
        url, hub = config.get("url") or "", (config.get("hf_hub") or "").rstrip("/")
        promised = url.rsplit("/", 2)[-2] if "openaipublic" in url else ""
        if "mlfoundations" in url:
            promised = Path(url).stem.rpartition("-")[2]
        by_hash = len(promised) >= 8 and sha256.startswith(promised)
        by_place = bool(hub) and f"/models--{hub.replace('/', '--')}/" in place
        if by_hash or by_place:
            return bool(config.get("quick_gelu", False)), f"it is {architecture}/{tag}"
    return None


def _tags() -> Iterator[tuple[str, str, dict[str, Any]]]:
    from open_clip import pretrained

    for architecture, tag in pretrained.list_pretrained():
        if not architecture.endswith("-quickgelu"):
            yield architecture, tag, pretrained.get_pretrained_cfg(architecture, tag)


def _config_beside(weights: Path) -> tuple[bool, str] | None:
    """Read the activation from the open_clip_config.json in the file's folder."""
    path = weights.parent / "open_clip_config.json"
    try:
        config = json.loads(path.read_bytes())["model_cfg"]
        return bool(config.get("quick_gelu", False)), f"according to {path.name} next to it"
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _openai_values(weights: Path) -> tuple[bool, str] | None:
    """Recognise OpenAI's weights: all values fit float16, and the scale is at its bound of 100.

    Other float16 weights with a scale of 100 are mistaken for OpenAI's; `activation` overrides it.
    """
    import torch

    try:
        tensors = _read(weights)
    except Exception:  # not a checkpoint: loading it reports that
        return None
    scale = tensors.get("logit_scale")
    values = [tensors[key] for key in TELLTALES if key in tensors]
    if scale is None or len(values) < len(TELLTALES):
        return None
    at_bound = math.isclose(float(scale), math.log(100), abs_tol=1e-3)
    if at_bound and all(torch.equal(t.float(), t.half().float()) for t in values):
        return True, "its values look like OpenAI's"
    return None


def _read(weights: Path) -> dict[str, Any]:
    """Read the telltale tensors of a checkpoint and nothing else; nothing is unpickled."""
    wanted = (*TELLTALES, "logit_scale")
    if weights.suffix == ".safetensors":
        from safetensors import safe_open

        with safe_open(weights, "pt") as stream:
            keys = set(stream.keys())
            return {key: stream.get_tensor(key) for key in wanted if key in keys}
    import torch

    state = torch.load(weights, map_location="cpu", weights_only=True, mmap=True)
    state = state.get("state_dict", state)
    named = {key.removeprefix("module."): tensor for key, tensor in state.items()}
    return {key: named[key] for key in wanted if key in named}
