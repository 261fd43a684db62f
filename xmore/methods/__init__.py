"""Methods: each gives class scores, and never sees a label.

A new method is one module here, named in METHODS: the flow, the leaderboard and the config's
validation find it by its name. docs/write-a-method.md walks through one.
"""

from xmore.methods import (
    calip,
    calip_oracle,
    caption_ensemble,
    clip,
    coder,
    coder_captions,
    coder_rerank,
    confident_views,
    equal,
    reco,
    tpt,
    xmore,
)
from xmore.methods.base import (
    Asked,
    Bench,
    Method,
    Scorer,
    Scores,
    Setting,
    Shard,
    Stream,
    Variant,
    Weights,
)

METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        clip.METHOD,
        calip.METHOD,
        calip_oracle.METHOD,
        confident_views.METHOD,
        tpt.METHOD,
        coder.METHOD,
        coder_rerank.METHOD,
        reco.METHOD,
        coder_captions.METHOD,
        caption_ensemble.METHOD,
        equal.METHOD,
        xmore.METHOD,
    )
}
PAPERS = ("clip", "caption-ensemble", "equal", "xmore")  # what a config runs unless it says more

__all__ = [
    "METHODS",
    "PAPERS",
    "Asked",
    "Bench",
    "Method",
    "Scorer",
    "Scores",
    "Setting",
    "Shard",
    "Stream",
    "Variant",
    "Weights",
]
