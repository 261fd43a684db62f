"""Loading of models through open_clip, never by unpickling code."""

from __future__ import annotations

import ctypes
import json
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import open_clip
import torch
from torch.overrides import TorchFunctionMode
from torchvision.transforms import Compose, Normalize, ToTensor

from xmore.files.digests import digest_of
from xmore.files.errors import ModelError, cause_of
from xmore.models.conse import register_towers
from xmore.models.folder import folder_config, text_folder
from xmore.models.preprocess import KEYS
from xmore.models.quick_tokenizer import quick
from xmore.models.spec import ModelCard, weights_path


class Undrawn(TorchFunctionMode):
    """Draws no random values for parameters: the weights that are loaded replace all of them.

    open_clip refuses weights that lack a parameter. Drawing took longer than loading.
    """

    RANDOM = frozenset(
        [getattr(torch.Tensor, name) for name in ("normal_", "uniform_", "erfinv_")]
        + [getattr(torch.nn.init, name) for name in ("normal_", "uniform_", "kaiming_uniform_")]
    )

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in self.RANDOM:
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


def load(card: ModelCard, device: str) -> tuple[Any, Any, Any]:
    """Return a model in float32 on a device, its preprocessing and tokenizer. Raises ModelError."""
    spec, settings = card.spec, card.identity["preprocess"]
    with tempfile.TemporaryDirectory() as scratch:
        if spec.folder is not None:
            architecture = _register_folder(spec.folder, Path(scratch))
        else:
            architecture = str(spec.architecture)
        weights = weights_path(card.name, spec)
        try:
            with Undrawn():
                model, _, preprocess = open_clip.create_model_and_transforms(
                    architecture,
                    pretrained=spec.pretrained or str(weights),
                    device=device,
                    pretrained_hf=False,
                    force_quick_gelu=settings.get("quick_gelu", False),
                    force_image_size=settings.get("size") if spec.checkpoint else None,
                    load_weights_only=True,
                    **{f"image_{key}": settings[key] for key in KEYS if key in settings},
                )
            tokenizer = quick(open_clip.get_tokenizer(architecture))
        except Exception as error:  # torch, safetensors and open_clip each raise their own
            what = "the model of its open_clip_config.json" if spec.folder else architecture
            raise ModelError(
                f"model `{card.name}`: {weights} could not be loaded as {what} ({cause_of(error)})."
            ) from error
    return model.eval(), preprocess, tokenizer


def split(preprocess: Compose) -> tuple[Compose, Sequence[float], Sequence[float]]:
    """Split open_clip's preprocessing: transforms of the image, then mean and standard deviation.

    The transforms run in worker processes, which pass on bytes: a quarter of the size of floats.
    Raises ModelError if the form is unknown.
    """
    *resize, _to_rgb, to_tensor, normalize = preprocess.transforms  # our images are RGB already
    if not (isinstance(to_tensor, ToTensor) and isinstance(normalize, Normalize)):
        raise ModelError(f"open_clip's preprocessing has an unknown form: {preprocess}.")
    return Compose(resize), normalize.mean, normalize.std


def keep_freed_memory() -> None:
    """Make glibc keep large freed blocks for reuse.

    By default it returns each layer's output to the system and faults the pages in again for the
    next: two thirds of a forward pass. Memory: up to 2 GB that the process keeps.
    """
    M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of malloc.h
    with suppress(OSError, AttributeError, TypeError):  # not glibc
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_THRESHOLD, 1 << 30)
        libc.mallopt(M_TRIM_THRESHOLD, (1 << 31) - 1)


def _register_folder(folder: Path, scratch: Path) -> str:
    """Register a model folder with open_clip; returns its name there."""
    register_towers()
    config = folder_config(folder)["model_cfg"]
    for key in ("hf_model_name", "hf_tokenizer_name"):
        # open_clip resolves these against the working directory; here they belong to the folder.
        if place := text_folder(folder, config["text_cfg"], key):
            config["text_cfg"][key] = str(place)
    name = f"xmore-{digest_of(config)[:16]}"  # open_clip takes a tokenizer by `siglip` in a name
    path = scratch / f"{name}.json"
    path.write_text(json.dumps(config))
    open_clip.add_model_config(path)
    return name
