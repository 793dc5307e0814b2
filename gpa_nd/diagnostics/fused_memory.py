"""What backend "triton" holds, as its launches make room: nothing is held of a block but the selected keys.

What it computes and moves is not told here.
"""

from __future__ import annotations

from gpa_nd.diagnostics.blocked_work import INDEX, Phase, Sizes, looked_through, selected
from gpa_nd.diagnostics.work import Work
from gpa_nd.engine.rules import CANDIDATES, Rule
from gpa_nd.layout import Layout
from gpa_nd.partition import Partition

FLOAT = 4
"""Bytes of a float32, in which the kernels add up."""

SUMS_AT_ONCE = 2**24
"""Sums of coarse keys that Phase 1 holds at a time, as in :mod:`gpa_nd.engine.fused.selection_tiles`."""

LISTS = 6
"""Lists of all selected coarse keys while they are packed, or turned round for the gradients."""


def phase1(layout: Layout, rules: tuple[Rule, ...], sizes: Sizes) -> Phase:
    """Selection, with the levels above."""
    names = sizes.rows * len(layout.query_cells) * selected(layout, rules[0].kappa) * INDEX
    return Phase(Work(), _selection(layout, rules, sizes), names)


def phase2(layout: Layout, chosen: int, sizes: Sizes) -> Phase:
    """Attention to the elements under so many coarse keys of each cell."""
    names = sizes.rows * len(layout.query_cells) * chosen * INDEX
    copies = sizes.value_channels * sizes.given * (2 if sizes.given < FLOAT else 1)
    out = sizes.rows * layout.query_groups.num_elements * (copies + 2 * FLOAT) + looked_through(layout, sizes)
    return Phase(Work(), out + LISTS * names, out)


def backward(layout: Layout, chosen: int, sizes: Sizes) -> Phase:
    """The gradients of q, k and v."""
    n_q, n_k, c, c_v = (
        layout.query_groups.num_elements, layout.key_groups.num_elements, sizes.channels, sizes.value_channels
    )  # fmt: skip
    lists = sizes.rows * len(layout.query_cells) * chosen
    gradients = (sizes.rows * n_q * c + sizes.key_rows * n_k * (c + c_v)) * sizes.given
    # The parts of long lists take no more room than the gradients of keys and values themselves.
    parts = min(sizes.key_rows * n_k, 2 * lists) * (c + c_v) * FLOAT
    return Phase(Work(), gradients + sizes.rows * n_q * FLOAT + max(parts, LISTS * lists * INDEX), gradients)


def _selection(layout: Layout, rules: tuple[Rule, ...], sizes: Sizes) -> int:
    """Means, a log-sum-exp for each coarse query, and sums; with levels, candidates for every cell."""
    rule, keys = rules[0], len(layout.key_groups)
    columns, kept, above = None, 0, 0
    if layout.coarser is not None or rule.ranking != "mean":
        kept = _tokens(len(layout.query_groups), keys, sizes)
        squares = sizes.key_rows * layout.key_groups.num_elements * sizes.channels * FLOAT
        above = kept + (0 if rule.ranking == "mean" else squares)  # of all keys at once
    if layout.coarser is not None and layout.children is not None:
        above = max(above, kept + _selection(layout.coarser, rules[1:], sizes))
        columns = selected(layout.coarser, rules[1].kappa) * layout.children.shape[1]
        kept += 4 * sizes.rows * len(layout.query_cells) * columns * INDEX
    if not rule.looks_twice(layout.most_visible):
        return max(above, kept + _look(layout.rankers, keys, columns, rule.kappa, sizes))
    assert layout.first_look is not None
    assert layout.second_look is not None
    assert layout.query_parts is not None
    assert layout.key_parts is not None
    kappa = min(CANDIDATES * rule.kappa, keys)
    kept += _tokens(len(layout.query_parts), len(layout.key_parts), sizes)
    first = _look(layout.first_look.rankers, keys, columns, kappa, sizes)
    places = kappa * layout.second_look.key_groups.largest
    second = _look(layout.second_look.rankers, len(layout.key_parts), places, rule.kappa, sizes)
    return max(above, kept + max(first, second))


def _look(rankers: Partition, keys: int, columns: int | None, kappa: int, sizes: Sizes) -> int:
    """Means in the order of cells, and sums of those that are ranked: so many candidates, or all."""
    queries, per_cell = len(rankers.order), keys if columns is None else columns
    sums = min(SUMS_AT_ONCE, sizes.rows * len(rankers) * per_cell) * FLOAT
    lse = 0 if rankers.largest == 1 else 2 * sizes.rows * queries * FLOAT
    return _tokens(queries, keys, sizes) + sums + lse + sizes.rows * len(rankers) * min(kappa, keys) * INDEX


def _tokens(queries: int, keys: int, sizes: Sizes) -> int:
    """Bytes of so many rows of queries and of keys."""
    return (sizes.rows * queries + sizes.key_rows * keys) * sizes.channels * sizes.given
