"""Structures side by side in one tensor: from offsets to shapes, and nested tensors to packed ones and back."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import prod

import torch
from jaxtyping import Float, Int
from torch import Tensor

from gpa_nd.checks import check_integers
from gpa_nd.ops.base import Shape


def checked_pack(
    query_shapes: Sequence[Shape] | Int[Tensor, " b_plus_1"],
    key_shapes: Sequence[Shape] | Int[Tensor, " b_plus_1"] | None,
) -> tuple[tuple[tuple[int, ...], ...], tuple[tuple[int, ...], ...]]:
    """The shapes of the queries and of the keys of each structure.

    Raises:
        TypeError: as :func:`checked_shapes`.
        ValueError: as :func:`checked_shapes`, or different numbers of structures.
    """
    queries = checked_shapes("query_shapes", query_shapes)
    keys = queries if key_shapes is None else checked_shapes("key_shapes", key_shapes)
    if len(queries) != len(keys):
        raise ValueError(f"key_shapes: expected {len(queries)} structures as query_shapes has, got {len(keys)}")
    return queries, keys


def checked_shapes(name: str, shapes: Sequence[Shape] | Int[Tensor, " b_plus_1"]) -> tuple[tuple[int, ...], ...]:
    """The shape of each structure, from shapes or from the offsets of sequences.

    Raises:
        TypeError: neither a sequence of tuples of ints nor an integer tensor.
        ValueError: no structure, different numbers of axes, a negative size, or offsets that do not ascend from 0.

    Example:
        >>> checked_shapes("query_shapes", torch.tensor([0, 3, 3, 8]))
        ((3,), (0,), (5,))
    """
    if isinstance(shapes, Tensor):
        check_integers(name, shapes)
        if shapes.ndim != 1 or len(shapes) < 2:
            raise ValueError(f"{name}: expected offsets of shape (structures + 1,), got {tuple(shapes.shape)}")
        offsets = shapes.tolist()
        if offsets[0] != 0:
            raise ValueError(f"{name}: expected offsets that start at 0, got {offsets[0]}")
        sizes = [end - start for start, end in pairwise(offsets)]
        if min(sizes) < 0:
            place = next(place for place, size in enumerate(sizes) if size < 0)
            raise ValueError(
                f"{name}: expected ascending offsets, got {offsets[place + 1]} after {offsets[place]} at {place + 1}"
            )
        return tuple((size,) for size in sizes)
    if not isinstance(shapes, tuple | list) or not all(isinstance(shape, tuple | list) for shape in shapes):
        of_ints = isinstance(shapes, tuple | list) and shapes and all(isinstance(size, int) for size in shapes)
        hint = "; offsets are torch.tensor([0, …])" if of_ints else ""
        raise TypeError(f"{name}: expected a sequence of shapes or a tensor of offsets, got {_short(shapes)}{hint}")
    if not shapes:
        raise ValueError(f"{name}: expected at least one structure, got none")
    if len(axes := {len(shape) for shape in shapes}) > 1:
        raise ValueError(f"{name}: expected shapes with the same number of axes, got {sorted(axes)}")
    for shape in shapes:
        if not all(isinstance(size, int) for size in shape):
            raise TypeError(f"{name}: expected shapes of ints, got {shape!r}")
        if not shape or min(shape) < 0:
            raise ValueError(f"{name}: expected the sizes of at least one axis, none negative, got {shape!r}")
    return tuple(map(tuple, shapes))


def check_total(name: str, shapes: Sequence[Shape], of: str, x: Tensor) -> None:
    """As many elements as the structures have together.

    Raises:
        ValueError: another number of axes or of elements.
    """
    if x.ndim != 4:
        raise ValueError(f"{of}: expected shape (batch, heads, elements, channels), got {tuple(x.shape)}")
    if x.shape[2] != (total := sum(prod(shape) for shape in shapes)):
        raise ValueError(f"{name}: they add up to {total} elements, but {of} has {x.shape[2]}: {tuple(x.shape)}")


def check_jagged(tensors: dict[str, Tensor]) -> None:
    """Jagged nested tensors by name, each (B, H, elements, channels), as scaled_dot_product_attention takes them.

    Raises:
        TypeError: not all of them are jagged nested tensors.
        ValueError: axes in another order, or gaps between the structures.
    """
    for name, x in tensors.items():
        if not isinstance(x, Tensor) or not x.is_nested or x.layout is not torch.jagged:
            got = f"a tensor of layout {x.layout}" if isinstance(x, Tensor) else type(x).__name__
            raise TypeError(f"{name}: expected a nested tensor of layout torch.jagged, as others are, got {got}")
        if x.ndim != 4 or not isinstance(x.shape[2], torch.SymInt):
            raise ValueError(
                f"{name}: expected a nested tensor (batch, heads, elements, channels), got {tuple(x.shape)}; transpose "
                f"(batch, elements, heads, channels) as for scaled_dot_product_attention: x.transpose(1, 2)"
            )
        if x.lengths() is not None:
            raise ValueError(f"{name}: expected a nested tensor without gaps; x.contiguous() has none")


def jagged(values: Float[Tensor, "1 h total c"], offsets: Int[Tensor, " b_plus_1"]) -> Tensor:
    """The nested tensor (B, H, elements, c) of packed values."""
    return torch.nested.nested_tensor_from_jagged(values[0], offsets, jagged_dim=2)


def _short(value: object) -> str:
    return repr(value) if len(repr(value)) < 60 else type(value).__name__
