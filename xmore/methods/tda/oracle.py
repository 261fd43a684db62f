"""`tda-oracle`: TDA with the settings that were chosen for each dataset."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from xmore.methods.base import MethodRequest, check_published
from xmore.methods.options import Source
from xmore.methods.tda.answers import Weighting
from xmore.methods.tda.tda import Tda

if TYPE_CHECKING:
    from xmore.models.spec import ModelCard

PUBLISHED = {  # of the positive cache, in the public code's configs of one view
    "imagenet": Weighting(2.0, 5.0),
    "caltech101": Weighting(5.0, 5.0),
    "dtd": Weighting(2.0, 3.0),
    "eurosat": Weighting(4.0, 8.0),
    "fgvc-aircraft": Weighting(2.0, 2.0),
    "food101": Weighting(1.0, 1.0),
    "flowers102": Weighting(1.0, 5.0),
    "oxford-pets": Weighting(2.0, 7.0),
    "stanford-cars": Weighting(1.0, 7.0),
    "sun397": Weighting(2.0, 3.0),
    "ucf101": Weighting(3.0, 8.0),
}


class Published(Tda):
    """TDA with the `published` settings of each dataset. It is not zero-shot: hidden by default."""

    published: ClassVar[dict[str, Weighting]]

    def check(self, request: MethodRequest, model: ModelCard, class_names: list[str]) -> None:
        check_published(self.name, "settings", self.published, request.dataset)

    def positive(self, request: MethodRequest) -> tuple[Weighting, Source]:
        return self.published[request.dataset], "oracle"


class TdaOracle(Published):
    """The TDA of published tables."""

    name = "tda-oracle"
    version = 1
    published = PUBLISHED


METHOD = TdaOracle()
