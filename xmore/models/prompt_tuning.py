"""Class texts after a tunable context of token embeddings (CoOp's, as TPT uses it)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch.nn import functional

from xmore.files.errors import ModelError
from xmore.models.encoder import OpenClipEncoder
from xmore.models.spec import ModelCard, architecture_config

CONTEXT = "a photo of a"
TOKENS = 4  # in that context
CHUNK = 64  # texts whose activations are in memory at a time, on a CPU
CHUNK_ON_GPU = 512  # fewer do not fill it


def check_tunable(model: ModelCard) -> None:
    """Raise ModelError if a text tower cannot take a context; reads only the model's config."""
    text = architecture_config(model)["text_cfg"]
    if text.get("embed_cls"):
        raise ModelError(
            f"model `{model.name}`: its text tower appends a class token (as CoCa's), so `tpt` "
            "cannot tune it. Remove `tpt` from `methods`, or choose another inference model."
        )


class PromptedClasses:
    """C texts "{context} {class}."; a context is any (TOKENS, W) float32 embeddings.

    The tower computes in the model's precision; contexts, features and gradients are float32.
    """

    def __init__(self, encoder: OpenClipEncoder, class_names: Sequence[str]) -> None:
        """Tokenise the texts. Raises ModelError unless CONTEXT is TOKENS tokens to this model."""
        self._model: Any = encoder.model
        self._in_parts, self._computing = encoder.in_parts, encoder.computing
        self._dtype, self._precision = encoder.dtype, encoder.card.precision
        on_gpu = encoder.device != "cpu"
        self.chunk = CHUNK_ON_GPU if on_gpu else CHUNK
        # On a CPU one image's texts fill a pass; so its numbers do not depend on the other images.
        self.together = max(1, CHUNK_ON_GPU // len(class_names)) if on_gpu else 1
        self._tower: Any = getattr(encoder.model, "text", encoder.model)
        limit = encoder.tokenizer.context_length
        tokens = encoder.tokenizer([f"{CONTEXT} {name}." for name in class_names], limit)
        self._tokens = tokens.to(encoder.device)
        bare, pad = encoder.tokenizer([CONTEXT], limit)[0], encoder.pad_id
        there = slice(1, TOKENS + 1)  # after the start token
        if int((bare != pad).sum()) != TOKENS + 2 or (tokens[:, there] != bare[there]).any():
            raise ModelError(
                f"model `{encoder.card.name}`: `tpt` starts from {CONTEXT!r}, which its tokenizer "
                f"does not split into {TOKENS} tokens. Remove `tpt` from `methods`."
            )
        if self._hugging or self._causal:  # padding has no effect there
            self._tokens = self._tokens[:, : int((tokens != pad).sum(1).max())]
        with torch.no_grad():
            self._embedded = self._embed(self._tokens).float()
        self.start = self._embedded[0, 1 : TOKENS + 1].clone()

    @torch.no_grad()
    def features(self, contexts: torch.Tensor) -> torch.Tensor:
        """Encode (B, TOKENS, W) contexts to (B, C, D) unit rows.

        On a GPU, a pass has texts of several contexts if those of one do not fill it.
        """
        classes = len(self._tokens)
        encode = partial(self._encode, contexts)
        parts: list[torch.Tensor] = []
        with self._computing():
            for first in range(0, len(contexts), self.together):
                last = min(first + self.together, len(contexts))
                rows = range(first * classes, last * classes)
                for chunk in self._chunks(rows):
                    parts += self._in_parts(encode, chunk)
        return torch.cat(parts).view(len(contexts), classes, -1)

    def gradients(self, of_features: torch.Tensor) -> torch.Tensor:
        """Return B gradients (B, TOKENS, W) by the initial context, given those by its features.

        `of_features` are (B, C, D). The classes are encoded once for all B. Memory: the activations
        of a chunk of classes.
        """
        leaf = self.start.detach().clone().requires_grad_()
        scales = self._scales(of_features)

        def of_part(rows: range) -> torch.Tensor:
            features = self._encode(leaf[None], rows)
            part = slice(rows.start, rows.stop)
            found: list[torch.Tensor] = []
            for one, scale in zip(of_features[:, part], scales, strict=True):
                more = len(found) + 1 < len(scales)
                found += torch.autograd.grad(features, leaf, scale * one, retain_graph=more)
            return torch.stack(found)

        total = torch.zeros((len(of_features), *leaf.shape), device=leaf.device)
        with self._computing():
            for chunk in self._chunks(range(len(self._tokens))):
                for part in self._in_parts(of_part, chunk):
                    total += part
        return total / scales.view(-1, 1, 1)

    def _scales(self, of_features: torch.Tensor) -> torch.Tensor:
        """Return a power of two for each gradient that keeps it within fp16; 1 in other precisions.

        The largest is brought to 1 to 2, as smaller ones become 0 on the way through the tower.
        """
        if self._precision != "fp16":
            return torch.ones(len(of_features), device=of_features.device)
        largest = of_features.abs().flatten(1).amax(1).clamp_min(1e-30)
        return torch.exp2(-torch.floor(torch.log2(largest)))

    @property
    def _hugging(self) -> bool:
        return hasattr(self._tower, "config")

    @property
    def _pool(self) -> str | None:
        """The position that a native tower pools; CLIP itself uses another name for it."""
        return getattr(self._tower, "text_pool_type", getattr(self._tower, "pool_type", None))

    @property
    def _causal(self) -> bool:
        return self._pool == "argmax" and self._tower.attn_mask is not None

    def _chunks(self, rows: range) -> Iterator[range]:
        for first in range(0, len(rows), self.chunk):
            yield rows[first : first + self.chunk]

    def _embed(self, tokens: torch.Tensor) -> torch.Tensor:
        if self._hugging:
            return self._tower.transformer.get_input_embeddings()(tokens)
        return self._tower.token_embedding(tokens)

    def _encode(self, contexts: torch.Tensor, rows: range) -> torch.Tensor:
        """Encode texts (context r // C, class r % C) of `rows`: (B, TOKENS, W) -> (n, D)."""
        which = torch.arange(rows.start, rows.stop, device=contexts.device)
        classes = which % len(self._tokens)
        tokens, embedded = self._tokens[classes], self._embedded[classes]
        front = contexts[which // len(self._tokens)]
        inputs = torch.cat([embedded[:, :1], front, embedded[:, TOKENS + 1 :]], 1)
        encode = self._hugging_face if self._hugging else self._native
        return functional.normalize(encode(inputs.to(self._dtype), tokens).float(), dim=-1)

    def _hugging_face(self, inputs: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        mask = (tokens != self._tower.config.pad_token_id).long()
        out = self._tower.transformer(inputs_embeds=inputs, attention_mask=mask)
        return self._tower.proj(self._tower.pooler(out, mask))

    def _native(self, inputs: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """Run the part of open_clip's text towers that follows the token embedding."""
        tower, length = self._tower, tokens.shape[1]
        mask = tower.attn_mask if tower.attn_mask is None else tower.attn_mask[:length, :length]
        hidden = inputs + tower.positional_embedding[:length]
        hidden = tower.ln_final(tower.transformer(hidden, attn_mask=mask))
        at = {"first": 0, "last": -1}
        pooled = (
            hidden[:, at[self._pool]]
            if self._pool in at
            else hidden[torch.arange(len(tokens)), tokens.argmax(-1)]
        )
        projection = tower.text_projection
        if projection is None:
            return pooled
        return projection(pooled) if callable(projection) else pooled @ projection
