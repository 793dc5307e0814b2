"""How kernels find their way: from a program to its tile, and from a list of groups to the elements under them.

A program's rows are a tile of one group (queries of a cell, or keys of a group), its columns the elements under a list
of other groups, counted through. Groups of one size are found by division. Where sizes differ, tiles are found through
a table of slots, and elements by running sums over a block of the list, so that a giant costs only those who chose it.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from gpa_nd.engine.fused.launch import launch

SLOTS_AT_ONCE = 512


def slots_of(count: int, elements: int, largest: int, rows: int, entries: int = 0, per_slot: int = 1) -> int:
    """Slots for the tiles of ``count`` groups with ``elements`` in all, and for lists with ``entries`` in all.

    A group has ⌈size / rows⌉ tiles, and one more slot for every ``per_slot`` entries of its list. They are counted from
    bounds that need no running sum, so some slots stay idle: those at the end of a group's own.
    """
    tiles = count * -(-largest // rows) if largest * count == elements else count + elements // rows
    return tiles + entries // per_slot


def owners(
    offsets: Tensor,
    elements: int,
    largest: int,
    rows: int,
    lists: Tensor | None = None,
    entries: int = 0,
    per_slot: int = 1,
) -> Tensor:
    """The group that each slot belongs to: (heads, slots) int32.

    Args:
        offsets: (m + 1,) of a partition.
        elements: how many it has.
        largest: its largest group.
        rows: elements in a tile.
        lists: (heads, m + 1) where each group's list starts, counted through all heads; None for one head, no lists.
        entries: how many each head's lists have together.
        per_slot: how many of them are worth a slot.
    """
    count = len(offsets) - 1
    heads = 1 if lists is None else len(lists)
    slots = slots_of(count, elements, largest, rows, entries, per_slot)
    table = torch.empty(heads, slots, dtype=torch.int32, device=offsets.device)
    launch(
        owners_kernel,
        (heads * triton.cdiv(slots, SLOTS_AT_ONCE),),
        table,
        offsets,
        offsets if lists is None else lists,
        count,
        slots,
        entries,
        per_slot,
        count.bit_length(),
        SIZE=largest if largest * count == elements else 0,
        ROWS=rows,
        HAS_LISTS=lists is not None,
        BLOCK=SLOTS_AT_ONCE,
        num_warps=4,
    )
    return table


@triton.jit(do_not_specialize=["count", "slots", "entries", "per_slot", "steps"])
def owners_kernel(
    table,
    offsets,
    lists,
    count,
    slots,
    entries,
    per_slot,
    steps,
    SIZE: tl.constexpr,
    ROWS: tl.constexpr,
    HAS_LISTS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """By bisection: the last group whose first slot is not after this one."""
    blocks = tl.cdiv(slots, BLOCK)
    head = tl.program_id(0) // blocks
    slot = tl.program_id(0) % blocks * BLOCK + tl.arange(0, BLOCK)
    lists += head.to(tl.int64) * (count + 1)
    low = tl.zeros((BLOCK,), tl.int32)
    high = low + (count - 1)
    for _ in range(steps):
        middle = (low + high + 1) // 2
        start = first_tile(middle, offsets, SIZE, ROWS)
        if HAS_LISTS:
            start += first_list_slot(middle, lists, head, entries, per_slot)
        low = tl.where(start <= slot, middle, low)
        high = tl.where(start <= slot, high, middle - 1)
    tl.store(table + head.to(tl.int64) * slots + slot, low, mask=slot < slots)


@triton.jit
def first_tile(group, offsets, SIZE: tl.constexpr, ROWS: tl.constexpr):
    """The first tile slot of a group; SIZE is the size of every group, 0 if they differ."""
    if SIZE > 0:
        return group * ((SIZE + ROWS - 1) // ROWS)
    else:
        return group + (tl.load(offsets + group) // ROWS).to(tl.int32)


@triton.jit
def first_list_slot(group, lists, head, entries, per_slot):
    """How many slots the lists of the groups before this one have; ``lists`` points at those of its head."""
    return ((tl.load(lists + group) - head.to(tl.int64) * entries) // per_slot).to(tl.int32)


@triton.jit
def bounds(group, offsets, SIZE: tl.constexpr):
    """Where a group starts and stops in the order of its partition."""
    if SIZE > 0:
        return group * SIZE, group * SIZE + SIZE
    else:
        return tl.load(offsets + group).to(tl.int32), tl.load(offsets + group + 1).to(tl.int32)


@triton.jit
def listed(group, offsets, SIZE: tl.constexpr):
    """Of a block of a list: where each group starts in the order, and where its columns start and stop.

    A −1 has no columns where sizes differ, and columns that nobody sees where all are equal.
    """
    if SIZE > 0:
        stop = (tl.arange(0, group.shape[0]) + 1) * SIZE
        return group * SIZE, stop - SIZE, tl.where(group >= 0, stop, 0)
    else:
        first = tl.load(offsets + group, mask=group >= 0, other=0).to(tl.int32)
        size = tl.load(offsets + group + 1, mask=group >= 0, other=0).to(tl.int32) - first
        stop = tl.cumsum(size, 0)
        return first, stop - size, stop


@triton.jit
def find(column, first, start, stop):
    """Which entry of the block each column belongs to, its place in the order, and whether it has one."""
    inside = (start[None, :] <= column[:, None]) & (column[:, None] < stop[None, :])
    entry = tl.sum(tl.where(inside, tl.arange(0, start.shape[0])[None, :], 0), 1)
    place = tl.sum(tl.where(inside, column[:, None] + (first - start)[None, :], 0), 1)
    return entry, place, tl.sum(inside.to(tl.int32), 1) > 0


@triton.jit
def offsets_of(row, stride, WIDE: tl.constexpr):
    """Where rows start; in 64 bits where a tensor is so large."""
    if WIDE:
        return row.to(tl.int64) * stride
    else:
        return row * stride


@triton.jit
def load_rows(
    pointer, offset, seen, FIRST: tl.constexpr, WIDTH: tl.constexpr, CHANNELS: tl.constexpr, WIDEN: tl.constexpr
):
    """(rows, WIDTH) channels from FIRST on of the rows that start at these offsets; zeros where they are not seen."""
    channel = FIRST + tl.arange(0, WIDTH)
    if FIRST + WIDTH > CHANNELS:
        mask = seen[:, None] & (channel < CHANNELS)[None, :]
    else:
        mask = seen[:, None]
    rows = tl.load(pointer + offset[:, None] + channel[None, :], mask=mask, other=0.0)
    if WIDEN:  # the interpreter computes wrong with bfloat16
        return rows.to(tl.float32)
    else:
        return rows


@triton.jit
def chunked_products(
    left,
    left_offset,
    left_seen,
    right,
    right_offset,
    right_seen,
    CHANNELS: tl.constexpr,
    CHUNK: tl.constexpr,
    PRECISION: tl.constexpr,
    WIDEN: tl.constexpr,
):
    """``left @ right.T``, a few channels at a time: for rows too long to be held."""
    products = tl.zeros((left_offset.shape[0], right_offset.shape[0]), tl.float32)
    for first in range(0, CHANNELS, CHUNK):
        channel = first + tl.arange(0, CHUNK)
        there = (channel < CHANNELS)[None, :]
        a = tl.load(left + left_offset[:, None] + channel[None, :], mask=left_seen[:, None] & there, other=0.0)
        b = tl.load(right + right_offset[:, None] + channel[None, :], mask=right_seen[:, None] & there, other=0.0)
        if WIDEN:
            a, b = a.to(tl.float32), b.to(tl.float32)
        products = tl.dot(a, tl.trans(b), products, input_precision=PRECISION)
    return products


@triton.jit
def store_rows(pointer, offset, seen, rows, FIRST: tl.constexpr, WIDTH: tl.constexpr, CHANNELS: tl.constexpr):
    """The inverse of :func:`load_rows`."""
    channel = FIRST + tl.arange(0, WIDTH)
    mask = seen[:, None] & (channel < CHANNELS)[None, :]
    tl.store(pointer + offset[:, None] + channel[None, :], rows.to(pointer.dtype.element_ty), mask=mask)
