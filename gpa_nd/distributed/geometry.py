"""What a layout says about who belongs to whom, in numbers that processes compare."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence

from torch import Tensor

from gpa_nd.distributed.agreement import check_same
from gpa_nd.layout import Layout
from gpa_nd.partition import Partition

GEOMETRY = {"downsampler": 2, "partitioner": 2, "key_downsampler": 2, "key_upsampler": 2, "always": 2, "causal": 2}
"""The arguments of a GPA that a layout comes from: how much there is of each, and a checksum of all of it."""

COUNTED = {
    "downsampler": "groups of queries",
    "partitioner": "cells",
    "key_downsampler": "groups of keys",
    "key_upsampler": "keys under coarse keys",
    "always": "coarse keys that are always on",
    "causal": "coarse keys in sight",
}


def geometry_of(layout: Layout) -> dict[str, list[int]]:
    """How much a layout has of each kind, and checksums over all of its levels.

    Example:
        >>> import gpa_nd
        >>> geometry_of(gpa_nd.audio(downsample=4, cells=5, kappa=2).layout((40,), (40,)))["partitioner"][0]
        5
    """
    cells, keys = len(layout.query_cells), len(layout.key_groups)
    counts = {
        "downsampler": len(layout.query_groups),
        "partitioner": cells,
        "key_downsampler": keys,
        "key_upsampler": layout.members.num_elements,
        "always": 0 if layout.always is None else int((layout.always >= 0).sum()),
        "causal": cells * keys if layout.host_ranges is None else int(layout.host_ranges.diff().sum()),
    }
    sums = dict.fromkeys(counts, 0)
    level: Layout | None = layout
    while level is not None:
        for name, said in _said(level).items():
            for x in said:
                sums[name] = zlib.crc32(x.numpy().tobytes(), zlib.crc32(str(tuple(x.shape)).encode(), sums[name]))
        level = level.coarser
    return {name: [count, sums[name]] for name, count in counts.items()}


def check_geometry(told: Mapping[str, Sequence[Sequence[int]]]) -> None:
    """The same layout in every process.

    Args:
        told: what :func:`geometry_of` says, by name and process.

    Raises:
        ValueError: a process has another one.
    """
    for name, noun in COUNTED.items():
        count, checksum = told[name][0]
        other = [x[0] == count and x[1] != checksum for x in told[name]]  # as many, but not the same
        check_same(f"gpa.{name}", [f"{x[0]} {'other ' * o}{noun}" for x, o in zip(told[name], other, strict=True)])


def _said(layout: Layout) -> dict[str, list[Tensor]]:
    """What the layout of one level says, by what it comes from."""
    positions = [*(layout.positions or ()), *(layout.coarse_positions or ())]
    return {
        "downsampler": _tensors(layout.query_groups, layout.query_parts),
        "partitioner": _tensors(layout.query_cells, layout.fine_cells, layout.parents),
        "key_downsampler": _tensors(layout.key_groups, layout.key_parts),
        "key_upsampler": _tensors(layout.members),
        "always": _tensors(layout.always),
        "causal": _tensors(layout.key_ranges, layout.ranked_by, *positions),
    }


def _tensors(*said: Partition | Tensor | None) -> list[Tensor]:
    parts = [x.tensors()[:2] if isinstance(x, Partition) else [x] for x in said if x is not None]
    return [x for part in parts for x in part]
