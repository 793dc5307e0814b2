"""Which settings proposals try: every downsampling factor and size of cells, and κ for each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import copy
from dataclasses import dataclass
from math import prod

from torch import nn

from gpa_nd.layout import Layout
from gpa_nd.nn.gpa import GPA
from gpa_nd.ops.base import Shape
from gpa_nd.ops.grid import PerAxis

LINES, OTHERS = (4, 8, 16, 32, 64), (2, 4, 8)
"""d that are tried on a single axis, of time or of nodes, and along each of several."""
FEWER_FRAMES = (1, 2)
"""d that are tried along the first axis of three or more, beside larger ones along the others."""
SIDES_OF_LINES, SIDES = (1, 4, 16, 64), (1, 2, 4)
"""Coarse queries in a cell that are tried on a single axis, and along each side of a cell."""
KAPPAS = (1, 2, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128)
"""κ that are tried, as far as there are more coarse keys."""

Make = Callable[..., GPA]
"""What makes a GPA of ``downsample``, ``cells`` and ``kappa``: :func:`gpa_nd.image`, its like, or a partial of one."""


@dataclass(frozen=True)
class Candidate:
    """A downsampling factor and a size of cells.

    Attributes:
        gpa: what these make with κ = 1.
        downsample: d, a number where it is the same along every axis.
        cells: m, along every axis.
    """

    gpa: GPA
    downsample: PerAxis
    cells: PerAxis

    def kappas(self, layout: Layout) -> list[int]:
        """κ below the number of coarse keys, and not above the number of candidates, if a selection has one."""
        most = len(layout.key_groups) - 1
        if self.gpa.selection is not None and self.gpa.selection.candidates is not None:
            most = min(most, self.gpa.selection.candidates)
        return [kappa for kappa in KAPPAS if kappa <= most]

    def with_kappa(self, kappa: int) -> GPA:
        """The same GPA with another κ."""
        other = copy(self.gpa)
        other.kappa = kappa
        return other


def candidates(make: Make, query_shape: Shape) -> Iterator[Candidate]:
    """A GPA for every downsampling factor and size of cells.

    Raises:
        TypeError: something else than a function, or a shape that is no tuple of ints.
        ValueError: a partial that fixes what is to be tried.
    """
    if isinstance(make, nn.Module) or not callable(make):
        raise TypeError(
            f"make: expected a function that makes a GPA, such as gpa_nd.image or a partial of it, got "
            f"{type(make).__name__}"
        )
    if fixed := {"downsample", "cells", "kappa"} & set(getattr(make, "keywords", ())):
        raise ValueError(
            f"make: expected it to leave open what is proposed, got a partial with {', '.join(sorted(fixed))}"
        )
    if not isinstance(query_shape, tuple | list) or not all(hasattr(size, "__index__") for size in query_shape):
        raise TypeError(f"query_shape: expected a tuple of ints, such as (256, 256), got {query_shape!r}")
    line = len(query_shape) == 1
    for factors in _factors(len(query_shape)):
        coarse = [-(-size // factor) for size, factor in zip(query_shape, factors, strict=True)]
        if prod(coarse) < 2:
            continue
        sides = [_sides(side, factors) for side in (SIDES_OF_LINES if line else SIDES)]
        for cells in dict.fromkeys(_divided(coarse, each) for each in sides):
            downsample = factors[0] if len(set(factors)) == 1 else factors
            given = cells[0] if line else cells
            yield Candidate(make(downsample=downsample, cells=given, kappa=1), downsample, given)


def group_size(downsample: PerAxis, axes: int) -> int:
    """Elements in a group."""
    return downsample**axes if isinstance(downsample, int) else prod(downsample)


def settings_text(downsample: PerAxis, cells: PerAxis, kappa: int) -> str:
    """Arguments as one writes them.

    Example:
        >>> settings_text(4, (8, 8), 12)
        'downsample=4, cells=(8, 8), kappa=12'
    """
    return f"downsample={downsample}, cells={cells}, kappa={kappa}"


def _factors(axes: int) -> list[tuple[int, ...]]:
    """A factor for each axis: all of them alike, and of three or more axes fewer along the first."""
    alike = [(factor,) * axes for factor in (LINES if axes == 1 else OTHERS)]
    if axes < 3:
        return alike
    return alike + [(first, *[factor] * (axes - 1)) for first in FEWER_FRAMES for factor in OTHERS if first < factor]


def _sides(side: int, factors: tuple[int, ...]) -> tuple[int, ...]:
    """Coarse queries along each side of a cell: one along an axis of which nothing is grouped."""
    return tuple(1 if factor == 1 else side for factor in factors)


def _divided(coarse: list[int], sides: tuple[int, ...]) -> tuple[int, ...]:
    """How many cells there are along each axis."""
    return tuple(-(-size // side) for size, side in zip(coarse, sides, strict=True))
