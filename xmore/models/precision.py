"""In what a model's towers compute: float32, TF32, or 16 bits."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, partial
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from xmore.files.errors import ModelError
from xmore.models.spec import Precision

log = logging.getLogger(__name__)

IN_16_BITS = {"bf16": torch.bfloat16, "fp16": torch.float16}


def dtype_of(precision: Precision, device: str) -> torch.dtype:
    """Return the type of the weights and of what the towers are given."""
    return torch.float32 if device == "cpu" else IN_16_BITS.get(precision, torch.float32)


def convert(model: nn.Module, precision: Precision, device: str) -> None:
    """Let a model on a device compute in 16 bits, if that is the precision.

    Batch norm keeps its float32, as in OpenAI's code: a variance can exceed fp16's range. On a CPU,
    whose kernels for 16 bits are slow or wrong, weights and what goes in and out of each layer are
    rounded to 16 bits, and sums are float32, as those of a GPU are.
    """
    if precision not in IN_16_BITS:
        return
    dtype = IN_16_BITS[precision]
    kept = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    exact = [{k: v.clone() for k, v in module.state_dict().items()} for module in kept]
    model.to(dtype)
    if device == "cpu":
        model.float()
        for module in model.modules():
            if not any(module.children()):
                module.register_forward_pre_hook(partial(_round_inputs, dtype))
                module.register_forward_hook(partial(_round_output, dtype))
    for module, state in zip(kept, exact, strict=True):
        module.float().load_state_dict(state)


def _round_inputs(dtype: torch.dtype, _: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(_rounded(each, dtype) for each in given)


def _round_output(dtype: torch.dtype, _: nn.Module, __: tuple[Any, ...], output: Any) -> Any:
    return _rounded(output, dtype)


def _rounded(value: Any, dtype: torch.dtype) -> Any:
    if isinstance(value, torch.Tensor) and value.dtype == torch.float32:
        return value.to(dtype).float()
    return value


@contextmanager
def computing(precision: Precision) -> Iterator[None]:
    """Allow TF32 in a block if that is the precision; nothing else of a process computes so."""
    _allow_tf32(precision == "tf32")
    try:
        yield
    finally:
        _allow_tf32(False)


def _allow_tf32(allowed: bool) -> None:
    torch.backends.cuda.matmul.allow_tf32 = allowed
    torch.backends.cudnn.allow_tf32 = allowed


def check_range(model: str, precision: Precision, features: np.ndarray) -> None:
    """Raise ModelError if features are no numbers because fp16 ends at 65,504."""
    if precision == "fp16" and not np.isfinite(features).all():
        raise ModelError(
            f"model `{model}`: some of its numbers exceed the range of fp16. Set `precision: bf16` "
            "for it, which has the range of fp32."
        )


def say_cost(precision: Precision, device: str) -> None:
    """Say once a process what fp32 costs on a GPU."""
    if precision == "fp32" and device != "cpu":
        _say_cost()


@cache
def _say_cost() -> None:
    log.warning(
        "`precision: fp32` on a GPU: on an H200, `bf16` was 4 to 7 times as fast; "
        "docs/footguns.md says which answers a precision changes"
    )
