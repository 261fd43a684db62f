"""The table of all methods.

A new method is one module in this folder and one entry in METHODS, by which the flow, the
leaderboard and the config's validation find it. docs/write-a-method.md shows an example.
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
PAPERS = ("clip", "caption-ensemble", "equal", "xmore")  # the default of the key `methods`
