"""`tda-views-oracle`: TDA's 64-view form with the settings that were chosen for each dataset."""

from __future__ import annotations

from xmore.methods.tda.answers import Weighting
from xmore.methods.tda.oracle import Published
from xmore.methods.tda.views import TdaViews

PUBLISHED = {  # of the positive cache, in the public code's configs of 64 views
    "imagenet-a": Weighting(2.0, 5.0),
    "imagenet-r": Weighting(1.0, 8.0),
    "imagenet-sketch": Weighting(2.363, 7.45),
    "imagenet-v2": Weighting(1.0, 8.0),
}


class TdaViewsOracle(Published, TdaViews):
    """The 64-view TDA of published tables."""

    name = "tda-views-oracle"
    version = 1
    published = PUBLISHED


METHOD = TdaViewsOracle()
