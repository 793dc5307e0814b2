"""What a call asks of its arguments in all processes: rows of one structure, and the same in every other respect."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gpa_nd.distributed.agreement import agree, check_same
from gpa_nd.distributed.peers import Peers
from gpa_nd.engine.arguments import DTYPES, check_key_bias, check_structured
from gpa_nd.engine.choice import choose
from gpa_nd.nn.gpa import GPA

MOST_AXES = 16  # of a grid
SHAPE = MOST_AXES + 4  # the number of axes; batch, heads, the grid, channels; zeros
TEXT = struct.Struct("16q")  # what a setting is, in so many characters that causal axes of the largest grid fit
SETTINGS = ("kappa", "causal", "scale", "affinity", "ranking", "mass", "enable_gqa", "backend")
FACTS = {
    **dict.fromkeys(SETTINGS, TEXT.size // 8),
    **{"dtype": 1, "key_mask": 1, "key_bias": 1, "gradients": 4},
    **{"q": SHAPE, "k": SHAPE, "v": SHAPE},
}


@dataclass(frozen=True)
class Agreed:
    """What all processes brought together.

    Attributes:
        query_shape: the shape of all queries.
        key_shape: that of all keys.
        rows: how many places along the first axis each process has, of q and of k.
    """

    query_shape: tuple[int, ...]
    key_shape: tuple[int, ...]
    rows: dict[str, list[int]]


def agreed(
    gpa: GPA, peers: Peers, q: Tensor, k: Tensor, v: Tensor, key_mask: Tensor | None, key_bias: Tensor | None
) -> Agreed:
    """Check the arguments of :class:`.ContextParallel`, which all processes do together.

    Raises:
        TypeError: wrong types in this process.
        ValueError: wrong shapes in this process, wrong arguments in another one, or arguments that differ in more than
            how many rows there are.
    """
    told = agree(peers, lambda: _facts(gpa, {"q": q, "k": k, "v": v}, key_mask, key_bias), FACTS)
    for name in SETTINGS:
        check_same(f"gpa.{name}", [_text_of(x) for x in told[name]])
    check_same("q: its dtype", [DTYPES[x[0]] for x in told["dtype"]])
    for name in ("key_mask", "key_bias"):
        check_same(name, ["a tensor" if x[0] else None for x in told[name]])
    names = ("q", "k", "v", "key_bias")
    needed = [[name for name, one in zip(names, x, strict=True) if one] for x in told["gradients"]]
    check_same("requires_grad", [", ".join(x) or "none of them" for x in needed])
    rows, shapes = {}, {}
    for name in ("q", "k", "v"):
        local = [tuple(x[1 : 1 + x[0]]) for x in told[name]]
        beside = [(*shape[:2], "rows", *shape[3:]) for shape in local]
        check_same(f"{name}: its shape", [f"({', '.join(map(str, shape))})" for shape in beside])
        rows[name] = [shape[2] for shape in local]
        shapes[name] = (sum(rows[name]), *local[0][3:-1])
    return Agreed(shapes["q"], shapes["k"], rows)


def _facts(
    gpa: GPA, tensors: dict[str, Tensor], key_mask: Tensor | None, key_bias: Tensor | None
) -> dict[str, list[int]]:
    for name, x in tensors.items():
        if isinstance(x, Tensor) and x.is_nested:
            raise ValueError(f"{name}: expected a tensor of one shape, got a nested one")
    check_structured(tensors, gpa.enable_gqa)
    check_key_bias(key_mask, key_bias, tensors["k"])
    choose(gpa.backend, tuple(tensors.values()), gpa.affinity, gpa.ranking)
    for name, x in tensors.items():
        if x.ndim > MOST_AXES + 3:
            raise ValueError(f"{name}: expected at most {MOST_AXES} axes of a grid, got {x.ndim - 3}")
    shapes = {name: [x.ndim, *x.shape] for name, x in tensors.items()}
    with_bias = [*tensors.values(), key_bias]
    return {
        **{name: _numbers_of(repr(getattr(gpa, name))) for name in SETTINGS},
        "dtype": [DTYPES.index(tensors["q"].dtype)],
        "key_mask": [key_mask is not None],
        "key_bias": [key_bias is not None],
        "gradients": [torch.is_grad_enabled() and x is not None and x.requires_grad for x in with_bias],
        **{name: shape + [0] * (SHAPE - len(shape)) for name, shape in shapes.items()},
    }


def _numbers_of(text: str) -> list[int]:
    """A text as numbers, which processes can pass on; what is beyond its room is cut off.

    Example:
        >>> _text_of(_numbers_of("(True, False)"))
        '(True, False)'
    """
    return list(TEXT.unpack(text.encode()[: TEXT.size].ljust(TEXT.size, b"\0")))


def _text_of(numbers: Sequence[int]) -> str:
    return TEXT.pack(*numbers).rstrip(b"\0").decode(errors="replace")
