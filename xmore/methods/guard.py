"""What a method from outside does wrong: one line, with the file and the line in it."""

from __future__ import annotations

import functools
import json
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from inspect import unwrap
from pathlib import Path
from typing import Any

import numpy as np

from xmore.files.errors import MethodError, XmoreError, cause_of, is_shortage, what_to_do
from xmore.methods.base import Method, Origin, Scorer, Setting, Variant, Weights
from xmore.methods.source import package_of

MAKERS = ("prepare", "evidence", "follow")  # each returns a function
CALLED = ("variants", "settings", "weights", "class_scores", "check", "identity", *MAKERS)
ROUNDING = 1e-6  # how far a probability may lie beyond 0 and 1


def guard(method: Method, origin: Origin) -> None:
    """Make every error of a method's functions one line, and check what they return."""
    object.__setattr__(method, "origin", origin)
    for name in CALLED:
        function = getattr(method, name, None)
        if function is not None:
            object.__setattr__(method, name, _guarded(method, name, function))


def _guarded(method: Method, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        with blamed(method.origin, name):
            result = function(*args, **kwargs)
            wrong = _wrong(name, result, args)
        if wrong:
            raise MethodError(f"{_defined(method, name)}: {wrong}")
        return _guarded(method, f"what `{name}` returns", result) if name in MAKERS else result

    return call


@contextmanager
def blamed(origin: Origin | None, what: str) -> Iterator[None]:
    """Raise MethodError for an error in code of `origin`, which `what` names; a shortage is not."""
    try:
        yield
    except XmoreError:
        raise
    except (Exception, SystemExit) as error:
        if origin is None or is_shortage(error):
            raise
        told = cause_of(error) if isinstance(error, Exception) else "SystemExit"
        hint = what_to_do(told) if "No module" not in told else ""
        place = f"{_line_in(origin, error)}, in {what}"
        raise MethodError(f"{place}: {told.rstrip('.')}. {hint}") from error


def check_scores(method: Method, scores: Any, shape: tuple[int, int], answered: np.ndarray) -> None:
    """Raise MethodError unless `scores` are what a method may return for Q queries and C classes.

    That is (Q, C) numbers between 0 and 1; a row of NaN where a query need not be `answered`, (Q,)
    bool.
    """
    wrong = ""
    if not isinstance(scores, np.ndarray) or scores.shape != shape:
        got = f"{scores.shape}" if isinstance(scores, np.ndarray) else _short(scores)
        wrong = f"must return an array (queries, classes) of shape {shape}, got {got}."
    elif scores.dtype.kind not in "fiub":
        wrong = f"must return numbers, got an array of {scores.dtype}."
    else:
        empty = np.isnan(scores)
        bad = empty.any(1) & (answered | ~empty.all(1))
        beyond = (scores < -ROUNDING) | (scores > 1 + ROUNDING)
        if bad.any():
            wrong = (
                f"NaN for {bad.sum()} of {len(bad)} queries. Only a query without captions may "
                "have a row of NaN, of a method that reads captions: it has no prediction."
            )
        elif beyond.any():
            wrong = f"must return probabilities, between 0 and 1, got {scores[beyond][0]:.6g}."
    if wrong:
        name = "prepare" if isinstance(method, Scorer) else "class_scores"
        raise MethodError(f"{_defined(method, name)}: {wrong}")


def _wrong(name: str, result: Any, args: tuple[Any, ...]) -> str:
    """Return what is wrong with the result of one of a method's functions, or an empty text."""
    if name == "variants" and not (
        isinstance(result, list) and result and all(isinstance(v, Variant) for v in result)
    ):
        return f"must return a list of Variant, got {_short(result)}."
    if name == "settings":
        if not isinstance(result, dict) or not all(isinstance(s, Setting) for s in result.values()):
            return f"must return a dict of Setting, got {_short(result)}."
        json.dumps({key: asdict(setting) for key, setting in result.items()}, allow_nan=False)
    if name == "identity":
        json.dumps(result, allow_nan=False)
    if name in MAKERS and not callable(result):
        return f"must return a function, got {_short(result)}."
    if name == "weights" and result is not None:
        shape = args[0].image_confidence.shape
        parts = (result.image, result.text) if isinstance(result, Weights) else (result,)
        if not all(isinstance(part, np.ndarray) and part.shape == shape for part in parts):
            return f"must return Weights of arrays {shape}, or None, got {_short(result)}."
    return ""


def _short(value: Any) -> str:
    return f"{type(value).__name__} {value!r}"[:100]


def _defined(method: Method, name: str) -> str:
    """Return the file and line where a method's function is defined, and its name."""
    code = getattr(unwrap(getattr(method, name)), "__code__", None)
    place = f"{code.co_filename}, line {code.co_firstlineno}" if code else method.origin
    return f"{place}, in {name}"


def _line_in(origin: Origin, error: BaseException) -> str:
    """Return the file and line of `origin` where an error arose."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}, line {error.lineno}"
    folder = package_of(origin) or origin.path
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if Path(frame.filename).is_relative_to(folder):
            return f"{frame.filename}, line {frame.lineno}"
    return str(origin)
