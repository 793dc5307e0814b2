"""Checks that many functions make of their arguments: what was expected, and what came."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def check_int(name: str, value: object, at_least: int) -> None:
    """A whole number that is large enough.

    Raises:
        TypeError: not an int.
        ValueError: below ``at_least``.
    """
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name}: expected an int, got {value!r}")
    if value < at_least:
        raise ValueError(f"{name}: expected at least {at_least}, got {value}")


def check_positive(name: str, value: object) -> None:
    """A finite number above 0.

    Raises:
        TypeError: not a number.
        ValueError: 0, negative, infinite or NaN.
    """
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise TypeError(f"{name}: expected a number, got {value!r}")
    if not (value > 0 and math.isfinite(value)):
        raise ValueError(f"{name}: expected a finite number above 0, got {value}")


def check_tensor(name: str, value: object) -> None:
    """A tensor.

    Raises:
        TypeError: anything else.
    """
    if not isinstance(value, Tensor):
        raise TypeError(f"{name}: expected a tensor, got {type(value).__name__}")


def kind_of(value: object) -> str:
    """What came in place of an instance: its class, or that it is a class itself."""
    return f"the class {value.__name__}; make one" if isinstance(value, type) else type(value).__name__


def check_integers(name: str, value: object) -> None:
    """A tensor of int64 or int32.

    Raises:
        TypeError: anything else.
    """
    if not isinstance(value, Tensor) or value.dtype not in (torch.int64, torch.int32):
        got = value.dtype if isinstance(value, Tensor) else type(value).__name__
        raise TypeError(f"{name}: expected an int64 or int32 tensor, got {got}")
