"""`tda-views-oracle`: TDA's 64-view form with the settings that were chosen for each dataset."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xmore.methods.base import MethodRequest
from xmore.methods.options import Source
from xmore.methods.tda.answers import Weighting
from xmore.methods.tda.oracle import check_published
from xmore.methods.tda.views import TdaViews

if TYPE_CHECKING:
    from xmore.models.spec import ModelCard

PUBLISHED = {  # of the positive cache, in the public code's configs of 64 views
    "imagenet-a": Weighting(2.0, 5.0),
    "imagenet-r": Weighting(1.0, 8.0),
    "imagenet-sketch": Weighting(2.363, 7.45),
    "imagenet-v2": Weighting(1.0, 8.0),
}


class TdaViewsOracle(TdaViews):
    """The 64-view TDA of published tables. It is not zero-shot, so tables omit it by default."""

    name = "tda-views-oracle"
    version = 1

    def check(self, request: MethodRequest, model: ModelCard, class_names: list[str]) -> None:
        check_published(self.name, PUBLISHED, request.dataset)

    def positive(self, request: MethodRequest) -> tuple[Weighting, Source]:
        return PUBLISHED[request.dataset], "oracle"


METHOD = TdaViewsOracle()
