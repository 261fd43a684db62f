"""Zero-shot image classification from CLIP and retrieved captions.

    import xmore

    run = xmore.benchmark("configs/demo.yaml")       # or xmore.open_run("latest")
    run.leaderboard().to_pandas()
    run.explain(0)                                   # in a notebook, with pictures
    xmore.classify("cat.jpg", ["cat", "dog"])

Each name is loaded when it is used: to import this loads neither torch nor Prefect. The rooms below
know nothing of Prefect; this module alone reaches the flows.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flows.python import Found as Found
    from flows.python import benchmark as benchmark
    from flows.python import classify as classify
    from flows.python import reindex as reindex
    from flows.python import search as search
    from xmore.files.errors import XmoreError as XmoreError
    from xmore.report.opened import Explained as Explained
    from xmore.report.opened import OpenRun as OpenRun
    from xmore.report.opened import open_run as open_run

_PLACES = {
    "flows.python": ("Found", "benchmark", "classify", "reindex", "search"),
    "xmore.files.errors": ("XmoreError",),
    "xmore.report.opened": ("Explained", "OpenRun", "open_run"),
}
_PLACE_OF = {name: place for place, names in _PLACES.items() for name in names}
__all__ = sorted(_PLACE_OF)


def __getattr__(name: str) -> Any:
    if name not in _PLACE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_PLACE_OF[name]), name)


def __dir__() -> list[str]:
    return [*globals(), *_PLACE_OF]
