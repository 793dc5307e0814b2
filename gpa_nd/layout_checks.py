"""What a Layout asks of its parts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from jaxtyping import Int
from torch import Tensor

from gpa_nd.checks import check_integers
from gpa_nd.partition import Partition

if TYPE_CHECKING:
    from gpa_nd.layout import Layout


def check_layout(layout: Layout) -> None:
    """Partitions and tensors whose types, sizes and devices fit one another.

    Raises:
        TypeError: a part of another type.
        ValueError: sizes that do not fit, numbers that name no coarse key or cell, or different devices.
    """
    for name in ("query_groups", "query_cells", "key_groups", "key_members"):
        part = getattr(layout, name)
        if name == "key_members" and part is None:
            continue
        if not isinstance(part, Partition):
            raise TypeError(f"{name}: expected a Partition, got {type(part).__name__}")
        if name != "key_members" and not part.covers:
            raise ValueError(f"{name}: expected a partition of all elements, got one that leaves elements out")
    if layout.query_cells.num_elements != len(layout.query_groups):
        raise ValueError(
            f"query_cells: expected a partition of the {len(layout.query_groups)} coarse queries, got one of "
            f"{layout.query_cells.num_elements} elements"
        )
    m, n_k = len(layout.query_cells), len(layout.key_groups)
    if layout.key_members is not None:
        _check_members(layout.key_members, layout.key_groups)
    if layout.key_ranges is not None:
        _check_ranges(layout.key_ranges, m, n_k)
    if layout.always is not None:
        _check_always(layout.always, m, n_k)
    if layout.ranked_by is not None:
        _check_numbers("ranked_by", layout.ranked_by, (m,), 0, m)
    of_elements = layout.query_groups.num_elements, layout.key_groups.num_elements
    _check_positions("positions", layout.positions, of_elements)
    _check_positions("coarse_positions", layout.coarse_positions, (m, n_k))
    if layout.coarser is not None:
        _check_coarser(layout, layout.coarser)
    _check_devices(layout)
    if layout.fine_cells is not None:
        _check_fine_cells(layout)
    if layout.coarser is not None and layout.parents is not None:
        _check_parents(layout, layout.coarser, layout.parents)
    if (layout.query_parts is None) != (layout.key_parts is None):
        raise ValueError("query_parts and key_parts: expected both or neither, got one of them")
    if layout.query_parts is not None and layout.key_parts is not None:
        _check_parts("query_parts", layout.query_parts, layout.query_groups)
        _check_parts("key_parts", layout.key_parts, layout.key_groups)


def part_labels(parts: Partition, groups: Partition) -> Int[Tensor, " parts"]:
    """The group that each part lies in."""
    return groups.labels[parts.order[parts.offsets[:-1]]]


def _check_parts(name: str, parts: object, groups: Partition) -> None:
    if not isinstance(parts, Partition):
        raise TypeError(f"{name}: expected a Partition, got {type(parts).__name__}")
    if not parts.covers or parts.num_elements != groups.num_elements:
        raise ValueError(f"{name}: expected a partition of {groups.num_elements} elements, got {parts}")
    if not part_labels(parts, groups)[parts.labels].equal(groups.labels):
        raise ValueError(f"{name}: expected every part within one group, got one that reaches over several")


def _check_devices(layout: Layout) -> None:
    parts = [layout.query_groups, layout.query_cells, layout.key_groups, layout.members, layout.fine_cells]
    parts += [part for part in (layout.query_parts, layout.key_parts) if isinstance(part, Partition)]
    tensors = [part.order for part in parts if part is not None]
    tensors += [*(layout.positions or ()), *(layout.coarse_positions or ())]
    tensors += [x for x in (layout.key_ranges, layout.always, layout.ranked_by, layout.parents) if x is not None]
    devices = {str(x.device) for x in tensors} | ({str(layout.coarser.device)} if layout.coarser else set())
    if len(devices) > 1:
        raise ValueError(f"layout: expected all of its parts on one device, got {' and '.join(sorted(devices))}")


def _check_fine_cells(layout: Layout) -> None:
    got = len(layout.fine_cells), layout.fine_cells.num_elements
    if got != (expected := (len(layout.query_cells), layout.query_groups.num_elements)):
        raise ValueError(f"fine_cells: expected {expected[0]} cells of {expected[1]} queries, got {got[0]} of {got[1]}")
    if not layout.fine_cells.labels.equal(layout.query_cells.labels[layout.query_groups.labels]):
        raise ValueError("fine_cells: expected the cells of query_groups.then(query_cells), got others")


def _check_always(always: Tensor, m: int, n_k: int) -> None:
    _check_numbers("always", always, (m, None), -1, n_k)
    ordered = always.sort(dim=-1).values
    if bool(((ordered.diff(dim=-1) == 0) & (ordered[:, 1:] >= 0)).any()):
        raise ValueError("always: expected distinct coarse keys in every row, got one twice")


def _check_coarser(layout: Layout, coarser: object) -> None:
    if not isinstance(coarser, type(layout)):
        raise TypeError(f"coarser: expected a Layout, got {type(coarser).__name__}")
    got = coarser.query_groups.num_elements, coarser.key_groups.num_elements
    if got != (expected := (len(layout.query_groups), len(layout.key_groups))):
        raise ValueError(f"coarser: expected a layout of {expected[0]} queries and {expected[1]} keys, got {got}")


def _check_parents(layout: Layout, coarser: Layout, parents: Tensor) -> None:
    _check_numbers("parents", parents, (len(layout.query_cells),), 0, len(coarser.query_cells))
    labels = layout.query_cells.labels
    holds = (coarser.fine_cells.labels == parents[labels]).int()
    if not bool((torch.zeros_like(parents, dtype=torch.int32).index_add_(0, labels, holds) > 0).all()):
        raise ValueError("parents: expected, for every cell, a cell of coarser that holds one of its coarse queries")


def _check_members(members: Partition, groups: Partition) -> None:
    if len(members) != len(groups):
        raise ValueError(f"key_members: expected a list for each of the {len(groups)} coarse keys, got {len(members)}")
    n_k = groups.num_elements
    if members.num_elements and not members.covers and int(members.order.max()) >= n_k:
        raise ValueError(f"key_members: expected elements below {n_k}, got {int(members.order.max())}")
    if members.covers and members.num_elements != n_k:
        raise ValueError(f"key_members: expected a partition of {n_k} elements, got one of {members.num_elements}")


def _check_ranges(ranges: Tensor, m: int, n_k: int) -> None:
    check_integers("key_ranges", ranges)
    if ranges.shape != (m, 2):
        raise ValueError(f"key_ranges: expected shape ({m}, 2), got {tuple(ranges.shape)}")
    ordered = (ranges[:, 0] >= 0) & (ranges[:, 0] <= ranges[:, 1]) & (ranges[:, 1] <= n_k)
    if not bool(ordered.all()):
        bad = int((~ordered).nonzero()[0])
        raise ValueError(f"key_ranges: expected 0 ≤ start ≤ end ≤ {n_k}, got {ranges[bad].tolist()} for cell {bad}")


def _check_numbers(name: str, x: Tensor, shape: tuple[int | None, ...], least: int, below: int) -> None:
    check_integers(name, x)
    if x.ndim != len(shape) or any(want is not None and want != got for want, got in zip(shape, x.shape, strict=True)):
        wanted = ", ".join("any" if size is None else str(size) for size in shape)
        raise ValueError(f"{name}: expected shape ({wanted}), got {tuple(x.shape)}")
    if x.numel() and not (least <= int(x.min()) and int(x.max()) < below):
        raise ValueError(f"{name}: expected numbers {least} … {below - 1}, got {int(x.min())} … {int(x.max())}")


def _check_positions(name: str, pair: tuple[Tensor, Tensor] | None, counts: tuple[int, int]) -> None:
    if pair is None:
        return
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        raise TypeError(f"{name}: expected a pair, of the queries and of the keys, got {type(pair).__name__}")
    axes = []
    for whose, x, count in zip(("queries", "keys"), pair, counts, strict=True):
        if not isinstance(x, Tensor) or x.dtype != torch.int64:
            got = x.dtype if isinstance(x, Tensor) else type(x).__name__
            raise TypeError(f"{name}: expected an int64 tensor for the {whose}, got {got}")
        if x.ndim not in (1, 2) or len(x) != count or 0 in x.shape[1:]:
            raise ValueError(f"{name}: expected shape ({count}, axes) for the {whose}, got {tuple(x.shape)}")
        axes.append(1 if x.ndim == 1 else x.shape[1])
    if axes[0] != axes[1] or pair[0].ndim != pair[1].ndim:
        raise ValueError(f"{name}: expected as many axes for queries as for keys, got {axes[0]} and {axes[1]}")
