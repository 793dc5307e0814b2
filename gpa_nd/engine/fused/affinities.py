"""What the kernels of Phase 1 share: affinities of a tile, their log-sum-exp and softmax, and who is seen.

Rows of pooled tensors have STORED channels, zeros after the last real one. A product takes MAIN + REST of them, powers
of two, from queries that a program holds; where these are not all, it reads queries again for the others, MAIN at a
time. Row numbers are int32 inside a tile, on top of a scalar int64 base.
"""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"

from __future__ import annotations

import triton
import triton.language as tl

LOWEST = tl.constexpr(-3.4028234663852886e38)  # the least finite float32: a visible key never ranks as an absent one


@triton.jit
def among(key, start, stop):
    """Whether key is one of start … stop − 1 (int32, start ≤ stop), by one comparison."""
    return (key - start).to(tl.uint32, bitcast=True) < (stop - start).to(tl.uint32, bitcast=True)


@triton.jit
def held(q, inside, MAIN: tl.constexpr, REST: tl.constexpr, EMULATED: tl.constexpr):
    """The two parts of the rows that q (ROWS, 1) points at; zeros where ``inside`` (ROWS, 1) is False."""
    main = tl.load(q + tl.arange(0, MAIN)[None, :], mask=inside, other=0)
    rest = main
    if REST:
        rest = tl.load(q + MAIN + tl.arange(0, REST)[None, :], mask=inside, other=0)
    if EMULATED:
        main, rest = main.to(tl.float32), rest.to(tl.float32)
    return main, rest


@triton.jit
def affinities(
    q,
    inside,
    main,
    rest,
    k,
    STORED: tl.constexpr,
    MAIN: tl.constexpr,
    REST: tl.constexpr,
    KEYS: tl.constexpr,
    PRECISION: tl.constexpr,
    EMULATED: tl.constexpr,
):
    """(ROWS, KEYS) float32: q·k for the rows of :func:`held` and the KEYS rows from k on."""
    return products(
        *(q, inside, main, rest, k + tl.arange(0, KEYS)[None, :] * STORED, STORED, MAIN, REST, PRECISION, EMULATED)
    )


@triton.jit
def products(
    q,
    inside,
    main,
    rest,
    k,
    STORED: tl.constexpr,
    MAIN: tl.constexpr,
    REST: tl.constexpr,
    PRECISION: tl.constexpr,
    EMULATED: tl.constexpr,
):
    """As :func:`affinities`, for the rows that k (1, KEYS) points at."""
    k_main = tl.load(k + tl.arange(0, MAIN)[:, None])
    if EMULATED:
        k_main = k_main.to(tl.float32)
    scores = tl.dot(main, k_main, input_precision=PRECISION)
    if REST:
        k_rest = tl.load(k + MAIN + tl.arange(0, REST)[:, None])
        if EMULATED:
            k_rest = k_rest.to(tl.float32)
        scores = tl.dot(rest, k_rest, scores, input_precision=PRECISION)
    if MAIN + REST < STORED:
        for channel in range(MAIN + REST, STORED, MAIN):
            q_more = tl.load(q + channel + tl.arange(0, MAIN)[None, :], mask=inside, other=0)
            k_more = tl.load(k + channel + tl.arange(0, MAIN)[:, None])
            if EMULATED:
                q_more, k_more = q_more.to(tl.float32), k_more.to(tl.float32)
            scores = tl.dot(q_more, k_more, scores, input_precision=PRECISION)
    return scores


@triton.jit
def not_later(seen, key, own, cell_positions, key_positions, AXES: tl.constexpr):
    """``seen`` (rows, keys), but not of keys that are later than ``own`` (rows), a cell or what has its position."""
    for axis in tl.static_range(AXES):
        then = tl.load(key_positions + key * AXES + axis)
        seen = seen & (then[None, :] <= tl.load(cell_positions + own * AXES + axis)[:, None])
    return seen


@triton.jit
def added_up(largest, total, scores, scale):
    """The two parts of a log-sum-exp, ``total`` still a sum, with one more tile of scores (ROWS, KEYS)."""
    higher = tl.maximum(largest, tl.max(scores, 1))
    finite = tl.where(higher == float("-inf"), 0.0, higher)
    total = total * tl.exp2((largest - finite) * scale)
    total += tl.sum(tl.exp2((scores - finite[:, None]) * scale), 1)
    return higher, total


@triton.jit
def joined(lse, row, inside, splits, rows, scale, ROWS: tl.constexpr):
    """The two parts of the log-sum-exp of rows over all splits; outside, such that nothing has a weight."""
    largest = tl.full((ROWS,), float("-inf"), tl.float32)
    for split in range(0, splits):
        part = lse + tl.cast(split, tl.int64) * (2 * rows) + row
        largest = tl.maximum(largest, tl.load(part, mask=inside, other=float("inf")))
    finite = tl.where(largest == float("-inf"), 0.0, largest)
    total = tl.zeros((ROWS,), tl.float32)
    for split in range(0, splits):
        part = lse + tl.cast(split, tl.int64) * (2 * rows) + row
        higher = tl.load(part, mask=inside, other=float("inf"))
        total += tl.exp2((higher - finite) * scale + tl.load(part + rows, mask=inside, other=0))
    return largest, tl.where(inside, tl.log2(total), 0)


@triton.jit
def weights_of(scores, largest, total, scale):
    """The softmax: no weight is over 1, even if the two kernels should round q·k differently."""
    zero = tl.zeros(scores.shape, tl.float32)
    below = tl.minimum(scores - largest[:, None], zero, propagate_nan=tl.PropagateNan.ALL)
    return tl.exp2(below * scale - total[:, None])
