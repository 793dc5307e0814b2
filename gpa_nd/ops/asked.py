"""What a geometry answers when it is asked about a shape; an answer that cannot be used names who gave it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import TypeVar

from torch import Tensor

from gpa_nd.partition import Partition

Answer = TypeVar("Answer")


def partition_of(method: Callable[[Sequence[int]], Partition], shape: Sequence[int]) -> Partition:
    """What ``groups``, ``cells`` or ``members`` says of a shape.

    Raises:
        TypeError: it is no Partition.
        ValueError: it is one of another number of elements, or the method raised something.
    """
    part = _asked(method, shape)
    if not isinstance(part, Partition):
        more = "; Partition.from_labels makes one of labels" if isinstance(part, Tensor) else ""
        raise TypeError(f"{named(method, shape)}: expected it to return a Partition, got {type(part).__name__}{more}")
    if part.covers and part.num_elements != prod(shape):
        raise ValueError(f"{named(method, shape)}: expected a Partition of {prod(shape)} elements, got {part}")
    return part


def coarse_shapes_of(
    method: Callable[[Sequence[int]], tuple[int, ...]], shapes: Sequence[tuple[int, ...]], groups: int
) -> tuple[tuple[int, ...], ...]:
    """What ``coarse_shape`` says of structures side by side, which have so many groups together.

    Raises:
        TypeError: it is no tuple of ints.
        ValueError: there are not as many coarse elements as groups, or the method raised something.
    """
    coarse = {shape: _asked(method, shape) for shape in set(shapes)}
    for shape, said in coarse.items():
        if not isinstance(said, tuple | list) or not all(hasattr(size, "__index__") for size in said):
            raise TypeError(f"{named(method, shape)}: expected it to return a tuple of ints, got {said!r}")
    found = tuple(tuple(coarse[shape]) for shape in shapes)
    if (count := sum(map(prod, found))) != groups:
        raise ValueError(
            f"{named(method, shapes[0])}: expected one coarse element for each of {groups} groups, got {count} in "
            f"{found[0] if len(found) == 1 else f'{len(found)} structures'}"
        )
    return found


def _asked(method: Callable[[Sequence[int]], Answer], shape: Sequence[int]) -> Answer:
    try:
        return method(shape)
    except Exception as error:
        raised = f": {error}" if isinstance(error, ValueError) else f" raised {type(error).__name__}: {error}"
        raise ValueError(f"{named(method, shape)}{raised}") from error


def named(method: Callable[..., object], shape: Sequence[object]) -> str:
    """A method and what it is asked about, as ``HexDownsampler.groups((48, 64))``."""
    owner = type(getattr(method, "__self__", None)).__name__
    return f"{owner}.{getattr(method, '__name__', method)}({tuple(shape)})"
