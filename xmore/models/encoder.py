"""Features of images and texts, from an open_clip model in inference mode."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
import torch

from xmore.files.errors import ModelError
from xmore.models.loading import keep_freed_memory, load, split
from xmore.models.precision import check_range, computing, convert, dtype_of
from xmore.models.spec import ModelCard
from xmore.models.transfer import Coming, to_host

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
    """An open_clip model; its features are float32 on the CPU, whatever device and precision."""

    def __init__(self, card: ModelCard, device: str) -> None:
        """Load the weights (never by unpickling code). Raises ModelError."""
        if device == "cpu":
            keep_freed_memory()
        elif ":" in device:
            torch.cuda.set_device(device)  # or pinned memory would open the first GPU, too
        self.card = card
        self.device = device
        self.at_most: int | None = None  # inputs at a time, since the device lacked memory for more
        self.dtype = dtype_of(card.precision, device)
        self.model, preprocess, self.tokenizer = load(card, device)
        # tau: the factor of the inner products of unit features, before it would be rounded.
        self.logit_scale = float(self.model.logit_scale.detach().exp())
        convert(self.model, card.precision, device)
        self.resize, self.mean, self.std = split(preprocess)
        self._scales: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        self.model.visual.to(memory_format=torch.channels_last)
        if card.spec.pooled and not hasattr(self.model.visual, "trunk"):
            raise ModelError(f"model `{card.name}`: `pooled` needs a timm image tower.")

    @property
    def has_text(self) -> bool:
        """Whether this encoder encodes texts; one of pooled features does not."""
        return not self.card.spec.pooled

    @property
    def by_core(self) -> bool:
        """Whether each pass of images has a core; timm's convolutions would be slower so."""
        return self.device == "cpu" and not hasattr(self.model.visual, "trunk")

    @property
    def weight_bytes(self) -> int:
        """Memory of the weights."""
        return sum(weight.nbytes for weight in self.model.parameters())

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
        mean, std = self._scale(raw.shape[1])
        out = torch.empty(raw.shape, device=self.device)
        step = 1 if self.device == "cpu" else max(1, len(raw))
        for start in range(0, len(raw), step):
            part = slice(start, start + step)
            torch.div(raw[part], 255, out=out[part]).sub_(mean).div_(std)
        return out.view(pixels.shape).permute(0, 3, 1, 2)  # channels_last without a copy

    def _scale(self, size: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return mean and deviation of each value of an image; copied to the device once."""
        if size not in self._scales:
            mean, std = (
                torch.tensor(values, device=self.device).repeat(size // 3)
                for values in (self.mean, self.std)
            )
            self._scales[size] = mean, std
        return self._scales[size]

    def computing(self) -> AbstractContextManager[None]:
        """Return a block in which the towers compute in the model's precision."""
        return computing(self.card.precision)

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

    def encode_images(self, pixels: torch.Tensor) -> np.ndarray:
        """Encode (N, 3, H, W) float32 to (N, D) float32 unit rows. Raises ModelError."""
        return self.rows(self.start_images(pixels))

    def rows(self, coming: Coming) -> np.ndarray:
        """Wait for features -> (N, D) float32. Raises ModelError if fp16 could not hold them."""
        rows = coming()
        check_range(self.card.name, self.card.precision, rows)
        return rows

    @torch.inference_mode()
    def start_images(self, pixels: torch.Tensor) -> Coming:
        """Begin to encode (N, 3, H, W) float32; a GPU goes on while this process does."""
        batch = pixels.to(self.device, self.dtype, memory_format=torch.channels_last)
        with self.computing():
            if self.card.spec.pooled:
                trunk = self.model.visual.trunk
                features = trunk.forward_head(trunk.forward_features(batch), pre_logits=True)
            else:
                features = self.model.encode_image(batch)
        unit = torch.nn.functional.normalize(features.float(), dim=-1)
        return to_host(unit, self.device)

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
        with self.computing():
            features = self.model.encode_text(tokens.to(self.device)).float()
        norm = features.norm(dim=-1)
        unit = torch.nn.functional.normalize(features, dim=-1)
        cut = [len(s) == most < len(text) for s, text in zip(short, texts, strict=True)]
        rows = unit.cpu().numpy()
        check_range(self.card.name, self.card.precision, rows)
        return TextFeatures(rows, norm.cpu().numpy(), truncated.numpy() | cut)


def _cut(text: str, most: int) -> str:
    """Return the begin of a long text: to tokenize one word of 16,000 letters takes minutes."""
    return text if len(text) <= most else " ".join(text.split())[:most]
