"""The kernel that takes means of groups, with which Phase 1 starts.

Programs have one axis, with batch and head as its slowest part.
"""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit(do_not_specialize=["heads", "groups", "stored", "size"])
def pool(
    x,
    order,
    offsets,
    places,
    share,
    low,
    heads,
    groups,
    stored,
    size,
    x_batch,
    x_head,
    x_row,
    CHANNELS: tl.constexpr,
    STORED: tl.constexpr,
    WIDTH: tl.constexpr,
    GROUPS: tl.constexpr,
    MEMBERS: tl.constexpr,
    FAR: tl.constexpr,
    EMULATED: tl.constexpr,
):
    """Mean of every group in float32, rounded to the dtype of x; what is not finite becomes NaN.

    Row i of ``low`` (B·H, stored, STORED) is group ``places[i]``, or i itself; rows past the last group are zero.
    Without ``offsets`` all groups have ``size`` elements. Where a part of a group is hidden, and zero, the mean is over
    its ``share`` (B·H, groups) that is not. FAR: a row may be 2³¹ numbers and more away from the first.
    """
    tiles = tl.cdiv(stored, GROUPS)
    batch_head, tile = tl.program_id(0) // tiles, tl.program_id(0) % tiles
    x += (batch_head // heads).to(tl.int64) * x_batch + (batch_head % heads).to(tl.int64) * x_head
    low += (batch_head.to(tl.int64) * stored + tile * GROUPS) * STORED

    row = tl.arange(0, GROUPS)
    real = tile * GROUPS + row < groups
    group = tile * GROUPS + row
    if places is not None:
        group = tl.load(places + group, mask=real, other=0)
    if offsets is None:
        start = group * size
        stop = tl.where(real, start + size, start)
    else:
        start = tl.load(offsets + group, mask=real, other=0)
        stop = tl.load(offsets + group + 1, mask=real, other=0)

    channel = tl.arange(0, WIDTH)
    total = tl.zeros((GROUPS, WIDTH), tl.float32)
    for first in range(0, tl.max(stop - start, 0).to(tl.int32), MEMBERS):
        for turn in tl.static_range(MEMBERS):  # so many loads are under way at a time
            member = start + first + turn
            inside = member < stop
            element = tl.load(order + member, mask=inside, other=0).to(tl.int64 if FAR else tl.int32)
            values = tl.load(
                x + (element * x_row)[:, None] + channel[None, :],
                mask=inside[:, None] & (channel < CHANNELS)[None, :],
                other=0,
            )
            total += values.to(tl.float32)
    count = tl.where(real, stop - start, 1).to(tl.float32)[:, None]
    mean = total / count
    if not EMULATED:  # NVIDIA divides to within two ulp: one Newton step more, without the stack that tl.div_rn takes
        mean += tl.fma(-mean, tl.broadcast_to(count, (GROUPS, WIDTH)), total) / count
    if share is not None:
        part = tl.load(share + batch_head.to(tl.int64) * groups + group, mask=real, other=1.0)[:, None]
        visible = mean / part
        if not EMULATED:
            visible += tl.fma(-visible, tl.broadcast_to(part, (GROUPS, WIDTH)), mean) / part
        mean = visible
    if EMULATED and low.dtype.element_ty == tl.bfloat16:  # Triton's interpreter cuts the digits off
        bits = mean.to(tl.int32, bitcast=True)
        mean = ((bits + 0x7FFF + ((bits >> 16) & 1)) & -0x10000).to(tl.float32, bitcast=True)
    rounded = mean.to(low.dtype.element_ty).to(tl.float32)
    rounded = tl.where(tl.abs(rounded) < float("inf"), rounded, float("nan"))
    inside = (tile * GROUPS + row < stored)[:, None] & (channel < STORED)[None, :]
    tl.store(low + row[:, None] * STORED + channel[None, :], rounded.to(low.dtype.element_ty), mask=inside)
