"""What the runs of an experiment left behind, read again by the command that compares them."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from examples.pose_morph.errors import UserError

SHOWN = ("source", "truth", "result")
"""The arrays of pictures that a run keeps for a look."""


def read_result(path: Path, numbers: Sequence[str]) -> dict[str, Any]:
    """Read the JSON object that a run left.

    Args:
        path: Its file.
        numbers: What must be there and a number, such as ``scores.loss``.

    Raises:
        UserError: it cannot be read, or lacks one of the numbers.
    """
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
        for name in numbers:
            value = result
            for key in name.split("."):
                value = value[key]
            if not isinstance(value, int | float):
                raise TypeError(f"expected {name} to be a number, got {str(value)[:80]}")
            float(value)  # Python's integers may be larger
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise UserError(
            f"out: {path} is not the result of a run; remove it, or choose another --out ({type(error).__name__}: "
            f"{str(error)[:200]})"
        ) from error
    return result


def read_shown(path: Path) -> dict[str, np.ndarray]:
    """Read the pictures that a run kept, arrays of bytes (cases, 3, height, width) by name.

    Raises:
        UserError: the file is damaged, or not one of a run.
    """
    unlike = f"out: {path} does not hold the pictures of a run; remove it, and run again"
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in SHOWN}
    except Exception as error:  # NumPy raises whatever the archive's reader meets
        raise UserError(f"{unlike} ({error})") from error
    kinds = {(getattr(array, "dtype", None), np.shape(array)) for array in arrays.values()}  # no array comes as bytes
    (dtype, shape), *others = kinds
    if others or dtype != np.uint8 or len(shape) != 4 or shape[1] != 3:
        raise UserError(f"{unlike}: expected three arrays of bytes (cases, 3, height, width) alike")
    return arrays
