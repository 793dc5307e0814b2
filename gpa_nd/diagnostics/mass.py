"""How much of dense attention a selection keeps, and how much the best selection would."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from gpa_nd.checks import check_integers
from gpa_nd.engine import Affinity
from gpa_nd.engine.arguments import check_choices, check_key_bias, check_relevant, check_tokens
from gpa_nd.engine.bias import hide, key_bias_of
from gpa_nd.engine.distances import squared_distances
from gpa_nd.engine.precision import own_precision, wide
from gpa_nd.engine.reference import softmax
from gpa_nd.layout import Layout

SCORES_AT_ONCE = 2**22
"""Pairs of a query and a key whose scores are held at the same time."""


@dataclass(frozen=True, repr=False)
class Mass:
    """The mass of dense attention on what each query attends to; NaN for queries that see no key. ``print`` it.

    Attributes:
        captured: (B, H, asked) on the keys under the coarse keys that the query's cell selected.
        best: (B, H, asked) on those under the coarse keys that hold most of the mass of all queries of the cell, as
            many as the cell selected: what no selection for the same cells exceeds in the mean.
        queries: (asked,) numbers of these queries, ascending.
        share: (B, H, asked) the part that these keys are of all that the query sees: what would be captured of
            attention that is spread evenly.
        best_share: (B, H, asked) the same of the best choice. It is the larger one where that takes larger groups, or
            groups of which the query sees more; then judge each mass by its own share, and do not judge by ``ratio``.
    """

    captured: Float[Tensor, "b h asked"]
    best: Float[Tensor, "b h asked"]
    queries: Int[Tensor, " asked"]
    share: Float[Tensor, "b h asked"]
    best_share: Float[Tensor, "b h asked"]

    @property
    def mean(self) -> float:
        """Mean of ``captured`` over the queries that see a key."""
        return float(self.captured.nanmean())

    @property
    def mean_best(self) -> float:
        """Mean of ``best`` over the same."""
        return float(self.best.nanmean())

    @property
    def mean_share(self) -> float:
        """Mean of ``share`` over the same."""
        return float(self.share.nanmean())

    @property
    def mean_best_share(self) -> float:
        """Mean of ``best_share`` over the same."""
        return float(self.best_share.nanmean())

    @property
    def ratio(self) -> float:
        """``mean / mean_best``, by which a ranking is judged: 1 if no choice of as many coarse keys were better."""
        return self.mean / self.mean_best

    def __str__(self) -> str:
        share, best_share = f"{self.mean_share:.2%}", f"{self.mean_best_share:.2%}"
        other = "" if best_share == share else f" in {best_share}"
        return (
            f"{self.mean:.1%} captured in {share} of the keys, {self.mean_best:.1%} at best{other}: "
            f"{self.ratio:.1%} of it"
        )

    def __repr__(self) -> str:
        return f"<{self}, of {len(self.queries):,} queries>"


@torch.no_grad()
def captured_mass(
    q: Float[Tensor, "b h n_q c"],
    k: Float[Tensor, "b h_k n_k c"],
    layout: Layout,
    relevant: Int[Tensor, "b h m chosen"],
    *,
    cells: Int[Tensor, " some"] | None = None,
    key_mask: Bool[Tensor, "b n_k"] | None = None,
    key_bias: Float[Tensor, "b h_k n_k"] | None = None,
    scale: float | None = None,
    affinity: Affinity = "dot",
    enable_gqa: bool = False,
) -> Mass:
    """How much of dense attention's mass lies on the keys that each query attends to.

    Dense attention is the softmax over all keys that a query sees at full resolution: those that Phase 2 would attend
    to if every coarse key were selected, and those that an upsampler leaves out. Its mass sums to one; what is captured
    of it is between 0 and 1. A mass of 0.9 means: a tenth of what dense attention would have looked at is missed.

    Every query is compared with every key, a block at a time: the time is that of dense attention, the memory is
    linear. On large inputs ask for a sample of cells.

    Args:
        q: (B, H, n_q, c) queries.
        k: (B, H, n_k, c) keys.
        layout: who belongs to whom.
        relevant: (B, H, m, r) int64 coarse keys of each cell, as from :func:`~gpa_nd.select_keys`; −1 names none, −2
            makes the cell NaN. One that is named twice counts once.
        cells: numbers of the cells whose queries are asked for; all by default.
        key_mask: (B, n_k) bool, False for keys that nobody sees.
        key_bias: (B, H_k, n_k), added to the affinities of each key.
        scale: factor of the affinity; 1/√c by default.
        affinity: ``"dot"`` (q·k · scale) or ``"euclidean"`` (−|q − k|² · scale).
        enable_gqa: k may have fewer heads than q: as many neighbouring heads of q share one as there are more.

    Returns:
        The captured mass and the best possible one, of every query of these cells, in float32, or float64 for float64.

    Raises:
        TypeError: an argument of the wrong type, or mixed dtypes.
        ValueError: shapes, devices or sizes that do not fit, a cell that is not there, or an unknown affinity.

    Example:
        >>> import torch
        >>> import gpa_nd
        >>> from gpa_nd.diagnostics import captured_mass
        >>> layout = gpa_nd.audio(downsample=2, cells=2, kappa=1).layout((8,), (8,))
        >>> x = torch.eye(4).repeat_interleave(2, 0)[None, None] * 3     # four groups of two equal elements
        >>> relevant = torch.tensor([[[[0], [0]]]])                      # the second cell looks at what is not its own
        >>> mass = captured_mass(x, x, layout, relevant)
        >>> [round(x, 2) for x in mass.captured.flatten().tolist()]
        [0.97, 0.97, 0.01, 0.01, 0.01, 0.01, 0.01, 0.01]
        >>> print(mass)
        25.0% captured in 25.00% of the keys, 48.9% at best: 51.1% of it
    """
    check_tokens({"q": q, "k": k}, layout, enable_gqa)
    check_choices(scale, affinity, "reference")
    check_relevant(relevant, None, q, layout)
    check_key_bias(key_mask, key_bias, k)
    if cells is not None:
        _check_cells(cells, layout)
    bias = key_bias_of(key_mask, key_bias, k)
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    dense = _Dense(q, hide(k, bias), layout, bias, scale, affinity)
    kept = torch.full((4, *q.shape[:3]), torch.nan, dtype=wide(q.dtype), device=q.device)
    wanted = torch.ones(len(layout.query_cells), dtype=torch.bool, device=q.device)
    if cells is not None:
        wanted = torch.zeros_like(wanted).index_fill_(0, cells.long(), True)
    with own_precision(q):
        for some in _blocks(wanted.nonzero()[:, 0], layout, SCORES_AT_ONCE // max(1, k.shape[2])):
            for batch in range(q.shape[0]):
                for head in range(q.shape[1]):
                    _measure(dense, some, relevant[batch, head, some.cells], batch, head, kept)
    queries = wanted[layout.fine_cells.labels].nonzero()[:, 0]
    captured, best, share, best_share = kept[..., queries]
    return Mass(captured, best, queries, share, best_share)


@dataclass(frozen=True)
class _Cells:
    """Some cells and their queries.

    Attributes:
        cells: (p,) their numbers.
        pieces: as many queries as may be held together: (rows,) their numbers, and (rows,) which of the p has each.
    """

    cells: Int[Tensor, " p"]
    pieces: list[tuple[Int[Tensor, " _rows"], Int[Tensor, " _rows"]]]


def _blocks(cells: Int[Tensor, " some"], layout: Layout, rows: int) -> Iterator[_Cells]:
    """Neighbouring cells of so many queries together; a cell of more comes alone, in pieces."""
    fine, rows = layout.fine_cells, max(1, rows)
    sizes = fine.host_offsets.diff()[cells.cpu()].tolist()
    start = 0
    while start < len(sizes):
        stop, held = start + 1, sizes[start]
        while stop < len(sizes) and held + sizes[stop] <= rows:
            held, stop = held + sizes[stop], stop + 1
        some = cells[start:stop]
        of_cells = fine.lists(some)
        local = torch.arange(len(some), device=some.device).repeat_interleave(of_cells.sizes)
        yield _Cells(some, list(zip(of_cells.order.split(rows), local.split(rows), strict=True)))
        start = stop


class _Dense:
    """Dense attention's mass on every coarse key."""

    def __init__(
        self, q: Tensor, k: Tensor, layout: Layout, bias: Tensor | None, scale: float, affinity: Affinity
    ) -> None:
        self.q, self.k, self.layout, self.bias = q, k, layout, bias
        self.scale, self.affinity, self.sharing = scale, affinity, q.shape[1] // k.shape[1]
        members = layout.members
        groups = torch.arange(len(members), device=q.device)
        self.group_of_member = groups.repeat_interleave(members.sizes, output_size=members.num_elements)
        hides = (layout.key_ranges, layout.coarse_positions, layout.positions, bias)
        alike = all(each is None for each in hides)
        self.even = members.sizes.to(wide(q.dtype)) / k.shape[2] if alike else None  # the same for all queries

    def on_groups(
        self, batch: int, head: int, some: _Cells, queries: Tensor, local: Tensor
    ) -> tuple[Float[Tensor, "rows n_k_low"], Float[Tensor, "rows n_k_low"], Bool[Tensor, " rows"]]:
        """The mass of some queries on the members of each coarse key, what it were if even, and who sees any key."""
        key_head = head // self.sharing
        scores = self._affinities(self.q[batch, head, queries], self.k[batch, key_head])
        seen = torch.ones_like(scores, dtype=torch.bool)
        if (reach := self._reach(some.cells)) is not None:
            seen &= reach[:, self.layout.key_groups.labels][local]
        if self.layout.positions is not None:
            of_queries, of_keys = self.layout.positions
            seen &= (of_keys <= of_queries[queries, None]).all(-1)
        if self.bias is not None:
            added = self.bias[batch, key_head]
            seen &= ~added.isneginf()
            scores += added.masked_fill(added.isneginf(), 0)
        weights = softmax(scores[None, None], seen[None, None])[0, 0]
        sees, even = seen.any(-1), self.even
        if even is None:
            even = self._under(seen / seen.sum(-1, keepdim=True).clamp_min(1).to(weights.dtype))
        return self._under(weights), even.expand(len(queries), -1), sees

    def _under(self, weights: Float[Tensor, "rows n_k"]) -> Float[Tensor, "rows n_k_low"]:
        """What lies on the members of each coarse key."""
        total = weights.new_zeros(len(weights), len(self.layout.members))
        return total.index_add_(1, self.group_of_member, weights[:, self.layout.members.order])

    def _affinities(self, q: Float[Tensor, "rows c"], k: Float[Tensor, "n_k c"]) -> Float[Tensor, "rows n_k"]:
        q, k = q.to(wide(q.dtype)), k.to(wide(k.dtype))
        if self.affinity == "dot":
            return q @ k.mT * self.scale
        return squared_distances(q, k) * -self.scale

    def _reach(self, cells: Int[Tensor, " p"]) -> Bool[Tensor, "p n_k_low"] | None:
        """The coarse keys of which queries of these cells may see elements: those in range, and those always on."""
        layout = self.layout
        if layout.key_ranges is None and layout.coarse_positions is None:
            return None
        keys = torch.arange(len(layout.key_groups), device=cells.device)
        reach = torch.ones(len(cells), len(keys), dtype=torch.bool, device=cells.device)
        if layout.key_ranges is not None:
            start, stop = layout.key_ranges[cells, :, None].unbind(1)
            reach &= (start <= keys) & (keys < stop)
        if layout.coarse_positions is not None:
            of_cells, of_keys = layout.coarse_positions
            reach &= (of_keys <= of_cells[cells, None]).all(-1)
        return reach if layout.always is None else reach | _named(layout.always[cells], len(keys))


def _measure(dense: _Dense, some: _Cells, relevant: Tensor, batch: int, head: int, kept: Tensor) -> None:
    """Fill in (4, B, H, n_q) for the queries of some cells: what they capture, the best, and the share of each."""
    chosen = _named(relevant, len(dense.layout.members))
    count = chosen.sum(-1, keepdim=True)
    of_cells = torch.zeros(chosen.shape, dtype=kept.dtype, device=chosen.device)
    for queries, local in some.pieces:
        mass, even, sees = dense.on_groups(batch, head, some, queries, local)
        of_cells.index_add_(0, local, mass)
    ranked = of_cells.topk(int(count.max())).indices
    places = torch.arange(ranked.shape[1], device=ranked.device)
    wisest = _named(torch.where(places < count, ranked, -1), chosen.shape[1])
    spoilt = (relevant == -2).any(-1)
    for queries, local in some.pieces:
        if len(some.pieces) > 1:  # too many to be held: again
            mass, even, sees = dense.on_groups(batch, head, some, queries, local)
        nothing = ~sees | spoilt[local]
        for row, (of, taken) in enumerate(((mass, chosen), (mass, wisest), (even, chosen), (even, wisest))):
            kept[row, batch, head, queries] = (of * taken[local]).sum(-1).masked_fill(nothing, torch.nan)


def _named(numbers: Int[Tensor, "p r"], count: int) -> Bool[Tensor, "p count"]:
    """Which of so many are named in each row; what is negative names none."""
    named = torch.zeros(len(numbers), count + 1, dtype=torch.bool, device=numbers.device)
    return named.scatter_(1, torch.where(numbers >= 0, numbers, count), True)[:, :count]


def _check_cells(cells: Tensor, layout: Layout) -> None:
    check_integers("cells", cells)
    if cells.ndim != 1:
        raise ValueError(f"cells: expected shape (n,), got {tuple(cells.shape)}")
    if cells.device != layout.device:
        raise ValueError(f"cells: expected them on {layout.device}, where the layout is, got {cells.device}")
    if cells.numel():
        least, most = torch.stack(cells.aminmax()).tolist()
        if least < 0 or most >= len(layout.query_cells):
            raise ValueError(f"cells: expected cells 0 … {len(layout.query_cells) - 1}, got {least} … {most}")
