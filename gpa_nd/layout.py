"""Layout: the three partitions that tell the engine who belongs to whom."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, field

import torch
from jaxtyping import Int
from torch import Tensor

from gpa_nd.layout_checks import check_layout, part_labels
from gpa_nd.partition import Partition

FEW_MEMBERS = 4  # means over fewer queries are hardly better than one over the group, and as many more


@dataclass(eq=False, repr=False)
class Layout:
    """Everything that the engine knows about the geometry of queries and keys.

    ```
    query elements ──query_groups──▶ coarse queries ──query_cells──▶ cells     (Definitions 1, 3)
    key elements   ──key_groups────▶ coarse keys                               (Definitions 1, 2)
    ```

    Attributes:
        query_groups: partition of the n_q queries; its groups are the n_q' coarse queries.
        query_cells: partition of the n_q' coarse queries into the m cells of Phase 1.
        key_groups: partition of the n_k keys; its groups are the n_k' coarse keys.
        key_members: the elements that Phase 2 gathers for each coarse key (line 15): n_k' disjoint lists, which may
            leave elements out. ``key_groups`` by default.
        key_ranges: (m, 2) int64, the coarse keys ``start … end − 1`` that each cell may select; all of them by default.
        fine_cells: the cells of queries at full resolution, J^(l) = U_d(J'^(l)) (Definition 5, line 13); computed where
            they are not given.
        always: (m, a) int64, the coarse keys that each cell attends to beside the selected ones, distinct, −1 after the
            last; they need not lie in its range. None by default.
        positions: where queries (n_q, axes) and keys (n_k, axes) stand, int64: a query sees a key only if the key
            is later on no axis. :func:`~gpa_nd.causal` makes the other fields fit.
        coarse_positions: those of cells (m, axes) and of coarse keys (n_k', axes): a cell selects a coarse key only if
            that is later on no axis. Needed where ranges cannot say it.
        ranked_by: (m,) int64, the cell whose coarse queries rank the coarse keys for each cell; itself by default.
        coarser: the layout by which Phase 1 itself is done (more than two levels). Its queries and keys are the coarse
            queries and coarse keys of this one; what it selects is what the cells of this one choose from.
        parents: (m,) int64, the cell of ``coarser`` that chooses for each cell; by default the one that holds its first
            coarse query.
        query_parts: the groups of queries cut into smaller parts, which ``ranking="rerank"`` compares.
        key_parts: those of keys.
        rankers: the coarse queries that rank for each cell: those of ``query_cells``, in the order of ``ranked_by``.
        host_ranges: ``key_ranges`` on the CPU, so that no call has to wait for a GPU.
        most_visible: the most coarse keys that any cell may select from, as ranges tell it.
        contested: how many of these are always on, at most.
        children: the coarse keys under each one of ``coarser``; short rows end in −1.
        pooled: the same cells, ranges and positions over elements that are the coarse queries and coarse keys of this
            layout; None where elements are not grouped.
        by_parts: whether parts of queries, and not their groups, rank coarse keys at the first of the two looks of
            ``ranking="rerank"``: where the largest of them has at least four members.
        first_look: the same cells, ranges and positions over these queries and the coarse keys; None without parts.
        second_look: the same over parts of queries, and coarse keys that are groups of parts.

    Raises:
        TypeError: an argument is not a :class:`Partition`, or what should be an integer tensor is none.
        ValueError: sizes that do not fit one another, numbers that name no coarse key or cell, or tensors on different
            devices.

    Example:
        >>> import torch
        >>> pairs = Partition.from_labels(torch.arange(8) // 2)      # 8 elements, 4 groups of 2
        >>> halves = Partition.from_labels(torch.arange(4) // 2)     # 4 groups, 2 cells of 2
        >>> layout = Layout(query_groups=pairs, query_cells=halves, key_groups=pairs)
        >>> layout.fine_cells.labels.tolist()
        [0, 0, 0, 0, 1, 1, 1, 1]
    """

    query_groups: Partition
    query_cells: Partition
    key_groups: Partition
    key_members: Partition | None = None
    key_ranges: Int[Tensor, "m 2"] | None = None
    fine_cells: Partition = None  # type: ignore[assignment]  # never None after __post_init__
    always: Int[Tensor, "m a"] | None = None
    positions: tuple[Tensor, Tensor] | None = None
    coarse_positions: tuple[Tensor, Tensor] | None = None
    ranked_by: Int[Tensor, " m"] | None = None
    coarser: Layout | None = None
    parents: Int[Tensor, " m"] | None = None
    query_parts: Partition | None = None
    key_parts: Partition | None = None
    rankers: Partition = field(init=False)
    host_ranges: Int[Tensor, "m 2"] | None = field(init=False)
    most_visible: int = field(init=False)
    contested: int = field(init=False)
    children: Int[Tensor, "n_k_above most"] | None = field(init=False, default=None)
    pooled: Layout | None = field(init=False, default=None)
    by_parts: bool = field(init=False, default=False)
    first_look: Layout | None = field(init=False, default=None)
    second_look: Layout | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        check_layout(self)
        m, n_k = len(self.query_cells), len(self.key_groups)
        self.always = None if self.always is None or not self.always.shape[1] else self.always
        self.positions, self.coarse_positions = _with_axes(self.positions), _with_axes(self.coarse_positions)
        if self.fine_cells is None:
            self.fine_cells = self.query_groups.then(self.query_cells)
        self.rankers = self.query_cells if self.ranked_by is None else self.query_cells.lists(self.ranked_by)
        self.host_ranges = None if self.key_ranges is None else self.key_ranges.cpu()
        self.contested = 0 if self.always is None else self._contested(self.always)
        self.most_visible = n_k if self.host_ranges is None else int(self.host_ranges.diff().amax()) if m else 0
        if self.coarser is not None:
            if self.parents is None:
                self.parents = self.coarser.fine_cells.labels[self.query_cells.order[self.query_cells.offsets[:-1]]]
            self.children = self.coarser.members.table
        if len(self.query_groups) < self.query_groups.num_elements or n_k < self.key_groups.num_elements:
            self.pooled = self._over(self.query_cells, singles(n_k, self.device))
        if self.query_parts is not None and self.key_parts is not None:
            self._look(self.query_parts, self.key_parts)

    def __repr__(self) -> str:
        q, cells, k = self.query_groups, self.query_cells, self.key_groups
        return (
            f"Layout({q.num_elements} queries in {len(q)} groups in {len(cells)} cells, "
            f"{k.num_elements} keys in {len(k)} groups)"
        )

    @property
    def device(self) -> torch.device:
        """Where the partitions are."""
        return self.query_groups.order.device

    @property
    def members(self) -> Partition:
        """The elements under each coarse key that Phase 2 gathers, ``key_members`` or else ``key_groups``."""
        return self.key_groups if self.key_members is None else self.key_members

    def to(self, device: torch.device | str) -> Layout:
        """The same layout with its tensors on ``device``."""
        moved = copy(self)
        for name, part in vars(self).items():
            if name == "host_ranges":
                continue
            if isinstance(part, tuple):
                setattr(moved, name, tuple(x.to(device) for x in part))
            elif isinstance(part, Tensor | Partition | Layout):
                setattr(moved, name, part.to(device))
        return moved

    @property
    def levels(self) -> int:
        """How many times keys are selected, 1 and one more for each coarser layout."""
        return 1 if self.coarser is None else 1 + self.coarser.levels

    @classmethod
    def concat(cls, layouts: Sequence[Layout]) -> Layout:
        """Several structures side by side in one call, of which none sees another.

        Elements, coarse elements and cells of each follow those of the one before it, so that q, k and v are those of
        the structures one after another along the axis of elements.

        Args:
            layouts: at least one, all with as many levels, on one device.

        Raises:
            TypeError: something that is no layout.
            ValueError: no layout, or layouts that differ in levels, causal axes or devices.

        Example:
            >>> import torch
            >>> import gpa_nd
            >>> gpa = gpa_nd.audio(downsample=2, cells=2, kappa=2)
            >>> layout = gpa_nd.Layout.concat([gpa.layout((n,), (n,)) for n in (5, 30, 12)])
            >>> layout
            Layout(47 queries in 24 groups in 6 cells, 47 keys in 24 groups)
            >>> layout.key_ranges.tolist()
            [[0, 3], [0, 3], [3, 18], [3, 18], [18, 24], [18, 24]]
        """
        if not layouts:
            raise ValueError("layouts: expected at least one, got none")
        for layout in layouts:
            if not isinstance(layout, Layout):
                raise TypeError(f"layouts: expected Layouts, got {type(layout).__name__}")
        for name, seen in (
            ("levels", {layout.levels for layout in layouts}),
            ("causal axes", {layout.positions[0].shape[1] if layout.positions else 0 for layout in layouts}),
            ("coarse axes", coarse_axes := {x.coarse_positions[0].shape[1] for x in layouts if x.coarse_positions}),
            ("devices", {str(layout.device) for layout in layouts}),
        ):
            if len(seen) > 1:
                raise ValueError(
                    f"layouts: expected the same {name} in all, got {' and '.join(map(str, sorted(seen)))}"
                )
        if len(layouts) == 1:
            return layouts[0]
        cells, keys = [len(x.query_cells) for x in layouts], [len(x.key_groups) for x in layouts]
        device = layouts[0].device
        first_key = torch.tensor([0, *keys]).cumsum(0)[:-1].to(device)
        first_key = first_key.repeat_interleave(torch.tensor(cells, device=device))
        coarser = [x.coarser for x in layouts if x.coarser is not None]
        parents = [x.parents for x in layouts if x.parents is not None]
        ranges = torch.cat([x.key_ranges if x.key_ranges is not None else x._all_keys() for x in layouts])
        always = None
        if any(x.always is not None for x in layouts):
            width = max(x.always.shape[1] for x in layouts if x.always is not None)
            always = torch.cat([x._always_of_width(width) for x in layouts])
            always = torch.where(always >= 0, always + first_key[:, None], -1)
        ranked_by = None
        if any(x.ranked_by is not None for x in layouts):
            own = (torch.arange(m, device=device) for m in cells)
            of_each = [x.ranked_by if x.ranked_by is not None else o for x, o in zip(layouts, own, strict=True)]
            ranked_by = _one_after_another(of_each, cells)
        return cls(
            Partition.concat([x.query_groups for x in layouts]),
            Partition.concat([x.query_cells for x in layouts]),
            Partition.concat([x.key_groups for x in layouts]),
            Partition.concat([x.members for x in layouts], [x.key_groups.num_elements for x in layouts]),
            ranges + first_key[:, None],
            Partition.concat([x.fine_cells for x in layouts]),
            always,
            _joined([x.positions for x in layouts]),
            _joined([x._coarse_positions(axes) for x in layouts for axes in coarse_axes]),
            ranked_by,
            cls.concat(coarser) if coarser else None,
            _one_after_another(parents, [len(x.query_cells) for x in coarser]) if coarser else None,
            _side_by_side([x.query_parts for x in layouts]),
            _side_by_side([x.key_parts for x in layouts]),
        )

    def _over(self, cells: Partition, keys: Partition) -> Layout:
        """The same over what is pooled already: the elements of these cells and of these groups of keys."""
        of_cells = self.key_ranges, self.coarse_positions, self.ranked_by
        return Layout(
            singles(cells.num_elements, self.device),
            cells,
            keys,
            key_ranges=of_cells[0],
            coarse_positions=of_cells[1],
            ranked_by=of_cells[2],
        )

    def _look(self, queries: Partition, keys: Partition) -> None:
        n_k = len(self.key_groups)
        cells_of_parts = Partition.from_labels(part_labels(queries, self.fine_cells))
        self.by_parts = queries.largest >= FEW_MEMBERS
        cells = cells_of_parts if self.by_parts else self.query_cells
        self.first_look = self._over(cells, singles(n_k, self.device))
        self.second_look = self._over(cells_of_parts, Partition.from_labels(part_labels(keys, self.key_groups)))

    def _all_keys(self) -> Tensor:
        return torch.tensor([[0, len(self.key_groups)]], device=self.device).expand(len(self.query_cells), 2)

    def _always_of_width(self, width: int) -> Tensor:
        padded = torch.full((len(self.query_cells), width), -1, device=self.device)
        if self.always is not None:
            padded[:, : self.always.shape[1]] = self.always
        return padded

    def _coarse_positions(self, axes: int) -> tuple[Tensor, Tensor]:
        """Those that there are, or such that nothing is later than anything."""
        if self.coarse_positions is not None:
            return self.coarse_positions
        zeros = torch.zeros(len(self.query_cells) + len(self.key_groups), axes, dtype=torch.int64, device=self.device)
        return zeros[: len(self.query_cells)], zeros[len(self.query_cells) :]

    def _contested(self, always: Tensor) -> int:
        ranges = self._all_keys() if self.key_ranges is None else self.key_ranges
        inside = (always >= ranges[:, :1]) & (always < ranges[:, 1:])
        return int(inside.sum(1).max()) if len(inside) else 0


def singles(n: int, device: torch.device) -> Partition:
    """Every element as a cell of its own."""
    return Partition.from_labels(torch.arange(n, device=device))


def _with_axes(pair: tuple[Tensor, Tensor] | None) -> tuple[Tensor, Tensor] | None:
    """Positions on one axis (n,) as (n, 1)."""
    if pair is None or pair[0].ndim == 2:
        return pair
    return pair[0][:, None], pair[1][:, None]


def _one_after_another(numbers: Sequence[Tensor], counts: Sequence[int]) -> Tensor:
    """Numbers within each structure as numbers within all of them, given how many there are in each."""
    before = torch.tensor([0, *counts]).cumsum(0).tolist()
    return torch.cat([x + start for x, start in zip(numbers, before[:-1], strict=True)])


def _side_by_side(parts: Sequence[Partition | None]) -> Partition | None:
    there = [part for part in parts if part is not None]
    return Partition.concat(there) if len(there) == len(parts) else None


def _joined(pairs: Sequence[tuple[Tensor, Tensor] | None]) -> tuple[Tensor, Tensor] | None:
    there = [pair for pair in pairs if pair is not None]
    return (torch.cat([q for q, _ in there]), torch.cat([k for _, k in there])) if there else None
