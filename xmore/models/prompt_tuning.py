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
CHUNK = 64  # classes whose activations are in memory at a time


def check_tunable(model: ModelCard) -> None:
    """Raise ModelError if a text tower cannot take a context; reads only the model's config."""
    text = architecture_config(model)["text_cfg"]
    if text.get("embed_cls"):
        raise ModelError(
            f"model `{model.name}`: its text tower appends a class token (as CoCa's), so `tpt` "
            "cannot tune it. Remove `tpt` from `methods`, or choose another inference model."
        )


class PromptedClasses:
    """C texts "{context} {class}."; the context is any (TOKENS, W) embeddings."""

    def __init__(self, encoder: OpenClipEncoder, class_names: Sequence[str]) -> None:
        """Tokenise the texts. Raises ModelError unless CONTEXT is TOKENS tokens to this model."""
        self._model: Any = encoder.model
        self._in_parts = encoder.in_parts
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
    def features(self, context: torch.Tensor) -> torch.Tensor:
        """Encode a (TOKENS, W) context to (C, D) unit rows."""
        encode = partial(self._encode, context)
        return torch.cat(
            [part for chunk in self._chunks() for part in self._in_parts(encode, chunk)]
        )

    def gradient(self, context: torch.Tensor, of_features: torch.Tensor) -> torch.Tensor:
        """Return the gradient (TOKENS, W) by the context, given that by the unit features (C, D).

        Memory: the activations of CHUNK classes.
        """
        leaf = context.detach().clone().requires_grad_()

        def of_part(rows: range) -> torch.Tensor:
            features = self._encode(leaf, rows)
            return torch.autograd.grad(features, leaf, of_features[rows.start : rows.stop])[0]

        total = torch.zeros_like(context)
        for chunk in self._chunks():
            for part in self._in_parts(of_part, chunk):
                total += part
        return total

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

    def _chunks(self) -> Iterator[range]:
        rows = range(len(self._tokens))
        for start in rows[::CHUNK]:
            yield rows[start : start + CHUNK]

    def _embed(self, tokens: torch.Tensor) -> torch.Tensor:
        if self._hugging:
            return self._tower.transformer.get_input_embeddings()(tokens)
        return self._tower.token_embedding(tokens)

    def _encode(self, context: torch.Tensor, rows: range) -> torch.Tensor:
        part = slice(rows.start, rows.stop)
        tokens, embedded = self._tokens[part], self._embedded[part]
        front = context.expand(len(tokens), -1, -1)
        inputs = torch.cat([embedded[:, :1], front, embedded[:, TOKENS + 1 :]], 1)
        encode = self._hugging_face if self._hugging else self._native
        return functional.normalize(encode(inputs, tokens).float(), dim=-1)

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
