"""`calip-oracle`: CALIP with the betas that were searched on each dataset's test labels."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xmore.methods.base import MethodRequest, Setting, Settings, Variant, check_published
from xmore.methods.calip import Calip

if TYPE_CHECKING:
    from xmore.models.spec import ModelCard

PUBLISHED = {  # (beta2, beta3) from the code of SuS-X, which cites CALIP's paper for them
    "imagenet": (1.12, 0.02),
    "caltech101": (5.0, 0.18),
    "sun397": (0.43, 0.01),
    "food101": (0.6, 0.02),
    "flowers102": (0.5, 0.01),
    "stanford-cars": (2.8, 0.01),
    "fgvc-aircraft": (1.3, 0.01),
    "oxford-pets": (0.61, 0.01),
    "dtd": (1.4, 0.01),
    "eurosat": (6.08, 0.06),
    "ucf101": (1.28, 0.01),
}


class CalipOracle(Calip):
    """The CALIP of published tables. It is not zero-shot, so tables omit it by default."""

    name = "calip-oracle"
    version = 1

    def check(self, request: MethodRequest, model: ModelCard, class_names: list[str]) -> None:
        check_published(self.name, "betas", PUBLISHED, request.dataset)
        super().check(request, model, class_names)

    def settings(self, request: MethodRequest, variant: Variant) -> Settings:
        beta2, beta3 = self.betas(request)
        return {"beta2": Setting(beta2, "oracle"), "beta3": Setting(beta3, "oracle")}

    def betas(self, request: MethodRequest) -> tuple[float, float]:
        return PUBLISHED[request.dataset]


METHOD = CalipOracle()
