"""QuickGELU or GELU: under the wrong one weights lose accuracy, and open_clip does not warn.

OpenAI's weights, and some others, were trained with QuickGELU. open_clip's `RN50` has GELU, its
`RN50-quickgelu` has QuickGELU. A tag (`RN50/openai`) determines its activation; a file does not.
This module therefore looks for signs of a file's origin, and refuses an architecture that
contradicts them.
"""

from __future__ import annotations

import math

from xmore.files.errors import ModelError
from xmore.models.checkpoint import CONFIG, TELLTALES, Checkpoint


def check_activation(
    name: str, architecture: str, quick_gelu: bool, checkpoint: Checkpoint
) -> None:
    """Raise ModelError if the weights in a file need the other activation.

    `quick_gelu`: whether `architecture` has QuickGELU.
    """
    found = _known_file(checkpoint) or _config_beside(checkpoint) or _openai_values(checkpoint)
    if found is None or found[0] == quick_gelu:
        return
    needed, why = found
    plain = architecture.removesuffix("-quickgelu")
    right = f"{plain}-quickgelu" if needed else plain
    raise ModelError(
        f"model `{name}`: {checkpoint.path} needs {'QuickGELU' if needed else 'GELU'} ({why}), but "
        f"{architecture} has the other, which silently lowers accuracy. Set `architecture: {right}`"
        f", or `activation: {'gelu' if needed else 'quick_gelu'}` if you are sure."
    )


def _known_file(checkpoint: Checkpoint) -> tuple[bool, str] | None:
    origin = checkpoint.origin
    return (bool(origin.facts.get("quick_gelu", False)), f"it is {origin}") if origin else None


def _config_beside(checkpoint: Checkpoint) -> tuple[bool, str] | None:
    config = checkpoint.config_beside.get("model_cfg")
    if not isinstance(config, dict):
        return None
    return bool(config.get("quick_gelu", False)), f"according to {CONFIG} next to it"


def _openai_values(checkpoint: Checkpoint) -> tuple[bool, str] | None:
    """Recognise OpenAI's weights: all values fit float16, and the scale is at its bound of 100.

    Other float16 weights with a scale of 100 are mistaken for OpenAI's; `activation` overrides it.
    """
    import torch

    tensors = checkpoint.telltales
    scale = tensors.get("logit_scale")
    values = [tensors[key] for key in TELLTALES if key in tensors]
    if scale is None or scale.numel() != 1 or len(values) < len(TELLTALES):
        return None
    at_bound = math.isclose(float(scale), math.log(100), abs_tol=1e-3)
    if at_bound and all(torch.equal(t.float(), t.half().float()) for t in values):
        return True, "its values look like OpenAI's"
    return None
