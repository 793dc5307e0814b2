"""What backend "triton" holds, as its launches make room: nothing is held of a block but the selected keys."""

from __future__ import annotations

from gpa_nd.diagnostics.blocked_work import INDEX, Sizes, selected
from gpa_nd.layout import Layout

FLOAT = 4
"""Bytes of a float32, in which the kernels add up."""

SUMS_AT_ONCE = 2**24
"""Sums of coarse keys that Phase 1 holds at a time, as in :mod:`gpa_nd.engine.fused.selection_tiles`."""

LISTS = 6
"""Lists of all selected coarse keys while they are packed, or turned round for the gradients."""


def fused_bytes(layout: Layout, kappas: tuple[int, ...], chosen: int, sizes: Sizes, *, backward: bool) -> int:
    """Bytes at the peak beside q, k and v; the result counts, and with ``backward`` the gradients."""
    n_q, n_k, c, c_v = (
        layout.query_groups.num_elements, layout.key_groups.num_elements, sizes.channels, sizes.value_channels
    )  # fmt: skip
    names = sizes.rows * len(layout.query_cells) * chosen * INDEX
    out = sizes.rows * n_q * (c_v * sizes.given * (2 if sizes.given < FLOAT else 1) + 2 * FLOAT)
    forward = names + out + LISTS * names
    peak = max(_selection(layout, kappas, sizes), forward)
    if not backward:
        return peak
    gradients = (sizes.rows * n_q * c + sizes.key_rows * n_k * (c + c_v)) * sizes.given
    of_queries = sizes.rows * n_q * FLOAT
    # The parts of long lists take no more room than the gradients of keys and values themselves.
    parts = min(sizes.key_rows * n_k, 2 * sizes.rows * len(layout.query_cells) * chosen) * (c + c_v) * FLOAT
    return max(peak, names + out + gradients + of_queries + max(parts, LISTS * names))


def _selection(layout: Layout, kappas: tuple[int, ...], sizes: Sizes) -> int:
    """Phase 1: means, a log-sum-exp for each coarse query, and sums; with levels, candidates for every cell."""
    queries, keys, cells = len(layout.query_groups), len(layout.key_groups), len(layout.query_cells)
    means = (sizes.rows * len(layout.rankers.order) + sizes.key_rows * keys) * sizes.channels * sizes.given
    above, per_cell, names = 0, keys, 0
    if layout.coarser is not None and layout.children is not None:
        low = (sizes.rows * queries + sizes.key_rows * keys) * sizes.channels * sizes.given
        above = low + _selection(layout.coarser, kappas[1:], sizes)
        per_cell = selected(layout.coarser, kappas[1]) * layout.children.shape[1]
        names = low + 4 * sizes.rows * cells * per_cell * INDEX
    sums = min(SUMS_AT_ONCE, sizes.rows * cells * per_cell) * FLOAT
    lse = 0 if layout.rankers.largest == 1 else 2 * sizes.rows * len(layout.rankers.order) * FLOAT
    return max(above, names + means + sums + lse + sizes.rows * cells * min(kappas[0], keys) * INDEX)
