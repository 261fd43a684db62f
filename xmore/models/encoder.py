"""Features of images and texts, from an open_clip model in inference mode."""

from __future__ import annotations

import ctypes
import json
import logging
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import open_clip
import torch
from torchvision.transforms import Compose, Normalize, ToTensor

from xmore.files.digests import digest_of
from xmore.files.errors import ModelError, cause_of
from xmore.models.conse import register_towers
from xmore.models.folder import folder_config, text_folder
from xmore.models.preprocess import KEYS
from xmore.models.spec import ModelCard, weights_path

log = logging.getLogger(__name__)
Value = TypeVar("Value")

CHARACTERS = 16  # per token that a model reads; English has four


class Batch(Protocol):
    """Inputs of a model: a tensor, a list or a range."""

    def __len__(self) -> int: ...

    def __getitem__(self, part: slice, /) -> Any: ...


@dataclass(frozen=True)
class TextFeatures:
    """The features of N texts: unit rows, their norms before normalising, and truncation."""

    unit: np.ndarray  # (N, D) float32
    norm: np.ndarray  # (N,) float32
    truncated: np.ndarray  # (N,) bool: longer than the model's native limit


class OpenClipEncoder:
    """An open_clip model; its features are float32 on the CPU, whatever the device."""

    def __init__(self, card: ModelCard, device: str) -> None:
        """Load the weights (never by unpickling code). Raises ModelError."""
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.allow_tf32 = False
        if device == "cpu":
            _keep_freed_memory()
        self.card = card
        self.device = device
        self.at_most: int | None = None  # inputs at a time, since the device lacked memory for more
        self.model, preprocess, self.tokenizer = _load(card, device)
        self.resize, self.mean, self.std = _split(preprocess)
        self.model.visual.to(memory_format=torch.channels_last)
        if card.spec.pooled and not hasattr(self.model.visual, "trunk"):
            raise ModelError(f"model `{card.name}`: `pooled` needs a timm image tower.")

    @property
    def has_text(self) -> bool:
        """Whether this encoder encodes texts; one of pooled features does not."""
        return not self.card.spec.pooled

    @property
    def logit_scale(self) -> float:
        """tau: the factor of the inner products of unit features."""
        return float(self.model.logit_scale.detach().exp())

    @property
    def image_size(self) -> tuple[int, int]:
        """(H, W) of the image tower's input."""
        size = self.model.visual.image_size
        return (size, size) if isinstance(size, int) else tuple(size)

    @property
    def pad_id(self) -> int:
        """The padding token; a Hugging Face tokenizer has its own."""
        return getattr(getattr(self.tokenizer, "tokenizer", None), "pad_token_id", None) or 0

    def normalise(self, pixels: torch.Tensor) -> torch.Tensor:
        """Convert (N, H, W, 3) uint8 to (N, 3, H, W) float32 on the device, normalised.

        Equal bit for bit to ToTensor and Normalize. On the CPU one image at a time, which stays in
        the cache and takes a fifth of the time.
        """
        raw = pixels.to(self.device).flatten(1)
        mean, std = (
            torch.tensor(values, device=self.device).repeat(raw.shape[1] // 3)
            for values in (self.mean, self.std)
        )
        out = torch.empty(raw.shape, device=self.device)
        step = 1 if self.device == "cpu" else max(1, len(raw))
        for start in range(0, len(raw), step):
            part = slice(start, start + step)
            torch.div(raw[part], 255, out=out[part]).sub_(mean).div_(std)
        return out.view(pixels.shape).permute(0, 3, 1, 2)  # channels_last without a copy

    def in_parts(self, run: Callable[[Any], Value], batch: Batch) -> list[Value]:
        """Return what `run` makes of a batch: whole, or in parts that the device has memory for.

        The first time that it lacks memory, the batch size is halved, for good; which changes
        results no more than another batch size. Raises torch.OutOfMemoryError the second time.
        """
        if self.at_most is None:
            try:
                return [run(batch)]
            except torch.OutOfMemoryError:
                if len(batch) < 2:
                    raise
                self.at_most = (len(batch) + 1) // 2
            # Here the error is gone, and with it what it kept on the device.
            torch.cuda.empty_cache()
            log.warning(
                "%s: %s lacks memory for a batch of %d: going on with %d at a time. Lower "
                "`execution.batch_size` to start so.",
                self.card.name,
                self.device,
                len(batch),
                self.at_most,
            )
        size = self.at_most
        return [run(batch[start : start + size]) for start in range(0, len(batch), size)]

    @torch.inference_mode()
    def encode_images(self, pixels: torch.Tensor) -> np.ndarray:
        """Encode (N, 3, H, W) float32 to (N, D) float32 unit rows."""
        batch = pixels.to(self.device, memory_format=torch.channels_last)
        if self.card.spec.pooled:
            trunk = self.model.visual.trunk
            features = trunk.forward_head(trunk.forward_features(batch), pre_logits=True)
        else:
            features = self.model.encode_image(batch)
        return torch.nn.functional.normalize(features.float(), dim=-1).cpu().numpy()

    @torch.inference_mode()
    def encode_texts(self, texts: Sequence[str]) -> TextFeatures:
        """Encode one batch of texts, padded to the longest: sort texts by length beforehand.

        Longer texts than CHARACTERS per token are cut before they are tokenized, and count as
        truncated. Raises ModelError if the model has no text tower, or another one's tokenizer.
        """
        if not self.has_text:
            raise ModelError(
                f"model `{self.card.name}` encodes images only; use it for the coarse role."
            )
        limit = self.tokenizer.context_length
        most = CHARACTERS * limit
        short = [_cut(text, most) for text in texts]
        tokens = self.tokenizer(short, limit + 1)
        # One that blanks its end token (CLIPA's) shows a word in the place of that, instead.
        last = limit - getattr(self.tokenizer, "strip_sep_token", False)
        truncated = tokens[:, last] != self.pad_id
        tokens = self.tokenizer(short, limit) if truncated.any() else tokens[:, :limit]
        words = getattr(getattr(self.model, "text", self.model), "vocab_size", 0)
        if words and int(tokens.max()) >= words:
            raise ModelError(
                f"model `{self.card.name}`: its tokenizer gives {int(tokens.max())}, but its text "
                f"tower has {words} words. Use the tokenizer that it was trained with."
            )
        if hasattr(self.model, "text") and hasattr(self.model.text, "config"):
            # Only these towers mask their padding; CLIP's own needs its full length.
            tokens = tokens[:, : int((tokens != self.pad_id).sum(1).max())]
        features = self.model.encode_text(tokens.to(self.device)).float()
        norm = features.norm(dim=-1)
        unit = torch.nn.functional.normalize(features, dim=-1)
        cut = [len(s) == most < len(text) for s, text in zip(short, texts, strict=True)]
        return TextFeatures(unit.cpu().numpy(), norm.cpu().numpy(), truncated.numpy() | cut)


def _cut(text: str, most: int) -> str:
    """Return the begin of a long text: to tokenize one word of 16,000 letters takes minutes."""
    return text if len(text) <= most else " ".join(text.split())[:most]


def _split(preprocess: Compose) -> tuple[Compose, Sequence[float], Sequence[float]]:
    """Split open_clip's preprocessing: transforms of the image, then mean and standard deviation.

    The transforms run in worker processes, which pass on bytes: a quarter of the size of floats.
    Raises ModelError if the form is unknown.
    """
    *resize, _to_rgb, to_tensor, normalize = preprocess.transforms  # our images are RGB already
    if not (isinstance(to_tensor, ToTensor) and isinstance(normalize, Normalize)):
        raise ModelError(f"open_clip's preprocessing has an unknown form: {preprocess}.")
    return Compose(resize), normalize.mean, normalize.std


def _keep_freed_memory() -> None:
    """Make glibc keep large freed blocks for reuse.

    By default it returns each layer's output to the system and faults the pages in again for the
    next: two thirds of a forward pass. Memory: up to 2 GB that the process keeps.
    """
    M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of malloc.h
    with suppress(OSError, AttributeError, TypeError):  # not glibc
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_THRESHOLD, 1 << 30)
        libc.mallopt(M_TRIM_THRESHOLD, (1 << 31) - 1)


_loaded: dict[str, OpenClipEncoder] = {}
_at_most: dict[str, int | None] = {}  # of encoders that were loaded before


def load_encoder(card: ModelCard, device: str) -> OpenClipEncoder:
    """Return the encoder of `card`; it stays loaded until another one is requested.

    Memory: one model at a time. Raises ModelError.
    """
    key = digest_of([card.identity, device])
    if key not in _loaded:
        _at_most.update({other: encoder.at_most for other, encoder in _loaded.items()})
        _loaded.clear()
        _loaded[key] = OpenClipEncoder(card, device)
        _loaded[key].at_most = _at_most.get(key)
    return _loaded[key]


def pick_device(wanted: str) -> str:
    """Resolve `auto` to cuda if present, else cpu. Raises ModelError if the device is absent."""
    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if wanted.startswith("cuda") and not torch.cuda.is_available():
        raise ModelError(f"execution.device is `{wanted}` but torch sees no GPU. Use `auto`.")
    return wanted


def _load(card: ModelCard, device: str) -> tuple[Any, Any, Any]:
    spec, settings = card.spec, card.identity["preprocess"]
    with tempfile.TemporaryDirectory() as scratch:
        if spec.folder is not None:
            architecture = _register_folder(spec.folder, Path(scratch))
        else:
            architecture = str(spec.architecture)
        weights = weights_path(card.name, spec)
        try:
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
            tokenizer = open_clip.get_tokenizer(architecture)
        except Exception as error:  # torch, safetensors and open_clip each raise their own
            what = "the model of its open_clip_config.json" if spec.folder else architecture
            raise ModelError(
                f"model `{card.name}`: {weights} could not be loaded as {what} ({cause_of(error)})."
            ) from error
    return model.eval(), preprocess, tokenizer


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
