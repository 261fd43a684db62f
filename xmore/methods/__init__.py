"""Methods: each turns stored scores into class scores, and never sees a label.

A new method is one module here that calls `register`; the flow, the leaderboard and the config's
validation find it by its name.
"""

from xmore.methods import caption_ensemble, clip, equal, xmore
from xmore.methods.base import Method, Scores, Stream, Variant, Weights

METHODS: dict[str, Method] = {
    method.name: method
    for method in (clip.METHOD, caption_ensemble.METHOD, equal.METHOD, xmore.METHOD)
}

__all__ = ["METHODS", "Method", "Scores", "Stream", "Variant", "Weights"]
