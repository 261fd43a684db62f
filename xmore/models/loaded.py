"""The encoders that this process has loaded; torch and open_clip are imported with the first."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xmore.files.digests import digest_of
from xmore.files.imports import load_first
from xmore.files.progress import counting
from xmore.models.spec import ModelCard

if TYPE_CHECKING:
    from xmore.models.encoder import OpenClipEncoder

KEPT = 1_000_000_000  # bytes of weights that stay loaded when another model is

_loaded: dict[str, OpenClipEncoder] = {}
_at_most: dict[str, int | None] = {}  # of encoders that were loaded before


def load_encoder(card: ModelCard, device: str, images: int = 0) -> OpenClipEncoder:
    """Return the encoder of `card`; it stays loaded until others are requested.

    The processes that will decode so many images are started meanwhile. Memory: one model, and
    others of KEPT bytes. Raises ModelError.
    """
    key = digest_of([card.identity, device])
    if images:
        load_first("xmore.models.decoding")
        from xmore.models.decoding import prepare

        prepare(images)
    if key not in _loaded:
        with counting(f"loading {card.name}", 1, "model"):
            _load(key, card, device)
    return _loaded[key]


def _load(key: str, card: ModelCard, device: str) -> None:
    load_first("xmore.models.encoder")
    from xmore.models.encoder import OpenClipEncoder
    from xmore.models.precision import say_cost

    if sum(encoder.weight_bytes for encoder in _loaded.values()) > KEPT:
        _at_most.update({other: encoder.at_most for other, encoder in _loaded.items()})
        _loaded.clear()
    say_cost(card.precision, device)
    _loaded[key] = OpenClipEncoder(card, device)
    _loaded[key].at_most = _at_most.get(key)
