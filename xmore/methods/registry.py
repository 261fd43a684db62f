"""Which methods there are.

A new method is one module in this folder, named in METHODS: the flow, the leaderboard and the
config's validation find it by its name. docs/write-a-method.md walks through one.
"""

from xmore.methods import (
    calip,
    calip_oracle,
    caption_ensemble,
    clip,
    confident_views,
    equal,
    tpt,
    xmore,
)
from xmore.methods.base import Method
from xmore.methods.coder import captions as coder_captions
from xmore.methods.coder import coder
from xmore.methods.coder import rerank as coder_rerank
from xmore.methods.reco import reco

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
