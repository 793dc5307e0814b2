"""Layout: the three partitions that tell the engine who belongs to whom."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, field

import torch
from jaxtyping import Int
from torch import Tensor

from gpa_nd.checks import check_integers
from gpa_nd.partition import Partition


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
            stands behind it on no axis. :func:`~gpa_nd.causal` makes the other fields fit.
        coarse_positions: those of cells (m, axes) and of coarse keys (n_k', axes): a cell selects a coarse key only if
            that stands behind it on no axis. Needed where ranges cannot say it.
        ranked_by: (m,) int64, the cell whose coarse queries rank the coarse keys for each cell; itself by default.
        coarser: the layout by which Phase 1 itself is done (more than two levels). Its queries and keys are the coarse
            queries and coarse keys of this one; what it selects is what the cells of this one choose from.
        parents: (m,) int64, the cell of ``coarser`` that chooses for each cell; by default the one that holds its first
            coarse query.
        rankers: the coarse queries that rank for each cell: those of ``query_cells``, in the order of ``ranked_by``.
        host_ranges: ``key_ranges`` on the CPU, so that no call has to wait for a GPU.
        most_visible: the most coarse keys that any cell may select from, as ranges tell it.
        contested: how many of these are always on, at most.
        children: the coarse keys under each one of ``coarser``; short rows end in −1.

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
    positions: tuple[Int[Tensor, "n_q axes"], Int[Tensor, "n_k axes"]] | None = None
    coarse_positions: tuple[Int[Tensor, "m axes"], Int[Tensor, "n_k_low axes"]] | None = None
    ranked_by: Int[Tensor, " m"] | None = None
    coarser: Layout | None = None
    parents: Int[Tensor, " m"] | None = None
    rankers: Partition = field(init=False)
    host_ranges: Int[Tensor, "m 2"] | None = field(init=False)
    most_visible: int = field(init=False)
    contested: int = field(init=False)
    children: Int[Tensor, "n_k_above most"] | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        for name in ("query_groups", "query_cells", "key_groups", "key_members"):
            part = getattr(self, name)
            if name == "key_members" and part is None:
                continue
            if not isinstance(part, Partition):
                raise TypeError(f"{name}: expected a Partition, got {type(part).__name__}")
            if name != "key_members" and not part.covers:
                raise ValueError(f"{name}: expected a partition of all elements, got one that leaves elements out")
        if self.query_cells.num_elements != len(self.query_groups):
            raise ValueError(
                f"query_cells: expected a partition of the {len(self.query_groups)} coarse queries, got one of "
                f"{self.query_cells.num_elements} elements"
            )
        if self.key_members is not None:
            self._check_members(self.key_members)
        if self.key_ranges is not None:
            self._check_ranges(self.key_ranges)
        m, n_k = len(self.query_cells), len(self.key_groups)
        if self.always is not None:
            _check_numbers("always", self.always, (m, None), -1, n_k)
            ordered = self.always.sort(dim=-1).values
            if bool(((ordered.diff(dim=-1) == 0) & (ordered[:, 1:] >= 0)).any()):
                raise ValueError("always: expected distinct coarse keys in every row, got one twice")
            self.always = self.always if self.always.shape[1] else None
        if self.ranked_by is not None:
            _check_numbers("ranked_by", self.ranked_by, (m,), 0, m)
        of_elements = self.query_groups.num_elements, self.key_groups.num_elements
        self.positions = _check_positions("positions", self.positions, of_elements)
        self.coarse_positions = _check_positions("coarse_positions", self.coarse_positions, (m, n_k))
        if self.coarser is not None:
            self._check_coarser(self.coarser)
        parts = (self.query_groups, self.query_cells, self.key_groups, self.members)
        pairs = (*(self.positions or ()), *(self.coarse_positions or ()))
        tensors = (*(part.order for part in parts), self.key_ranges, self.always, self.ranked_by, *pairs)
        devices = {str(t.device) for t in tensors if t is not None}
        if len(devices | ({str(self.coarser.device)} if self.coarser else set())) > 1:
            raise ValueError(f"layout: expected all of its parts on one device, got {' and '.join(sorted(devices))}")
        given = self.fine_cells is not None
        if not given:
            self.fine_cells = self.query_groups.then(self.query_cells)
        got = len(self.fine_cells), self.fine_cells.num_elements
        if got != (expected := (len(self.query_cells), self.query_groups.num_elements)):
            raise ValueError(
                f"fine_cells: expected {expected[0]} cells of {expected[1]} queries, got {got[0]} of {got[1]}"
            )
        if given and not self.fine_cells.labels.equal(self.query_cells.labels[self.query_groups.labels]):
            raise ValueError("fine_cells: expected the cells of query_groups.then(query_cells), got others")
        self.rankers = self.query_cells if self.ranked_by is None else self.query_cells.lists(self.ranked_by)
        self.host_ranges = None if self.key_ranges is None else self.key_ranges.cpu()
        self.contested = 0 if self.always is None else self._contested(self.always)
        self.most_visible = n_k if self.host_ranges is None else int(self.host_ranges.diff().amax()) if m else 0
        if self.coarser is not None:
            if self.parents is None:
                self.parents = self.coarser.fine_cells.labels[self.query_cells.order[self.query_cells.offsets[:-1]]]
            self._check_parents(self.coarser, self.parents)
            self.children = self.coarser.members.table

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
            ranked_by = _one_behind_another(of_each, cells)
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
            _one_behind_another(parents, [len(x.query_cells) for x in coarser]) if coarser else None,
        )

    def _all_keys(self) -> Tensor:
        return torch.tensor([[0, len(self.key_groups)]], device=self.device).expand(len(self.query_cells), 2)

    def _always_of_width(self, width: int) -> Tensor:
        padded = torch.full((len(self.query_cells), width), -1, device=self.device)
        if self.always is not None:
            padded[:, : self.always.shape[1]] = self.always
        return padded

    def _coarse_positions(self, axes: int) -> tuple[Tensor, Tensor]:
        """Those that there are, or such that nothing is behind anything."""
        if self.coarse_positions is not None:
            return self.coarse_positions
        zeros = torch.zeros(len(self.query_cells) + len(self.key_groups), axes, dtype=torch.int64, device=self.device)
        return zeros[: len(self.query_cells)], zeros[len(self.query_cells) :]

    def _contested(self, always: Tensor) -> int:
        ranges = self._all_keys() if self.key_ranges is None else self.key_ranges
        inside = (always >= ranges[:, :1]) & (always < ranges[:, 1:])
        return int(inside.sum(1).max()) if len(inside) else 0

    def _check_coarser(self, coarser: Layout) -> None:
        if not isinstance(coarser, Layout):
            raise TypeError(f"coarser: expected a Layout, got {type(coarser).__name__}")
        got = coarser.query_groups.num_elements, coarser.key_groups.num_elements
        if got != (expected := (len(self.query_groups), len(self.key_groups))):
            raise ValueError(f"coarser: expected a layout of {expected[0]} queries and {expected[1]} keys, got {got}")

    def _check_parents(self, coarser: Layout, parents: Tensor) -> None:
        _check_numbers("parents", parents, (len(self.query_cells),), 0, len(coarser.query_cells))
        labels = self.query_cells.labels
        holds = (coarser.fine_cells.labels == parents[labels]).int()
        if not bool((torch.zeros_like(parents, dtype=torch.int32).index_add_(0, labels, holds) > 0).all()):
            raise ValueError(
                "parents: expected, for every cell, a cell of coarser that holds one of its coarse queries"
            )

    def _check_members(self, members: Partition) -> None:
        if len(members) != len(self.key_groups):
            raise ValueError(
                f"key_members: expected a list for each of the {len(self.key_groups)} coarse keys, got {len(members)}"
            )
        n_k = self.key_groups.num_elements
        if members.num_elements and not members.covers and int(members.order.max()) >= n_k:
            raise ValueError(f"key_members: expected elements below {n_k}, got {int(members.order.max())}")
        if members.covers and members.num_elements != n_k:
            raise ValueError(f"key_members: expected a partition of {n_k} elements, got one of {members.num_elements}")

    def _check_ranges(self, ranges: Tensor) -> None:
        check_integers("key_ranges", ranges)
        if ranges.shape != (len(self.query_cells), 2):
            raise ValueError(f"key_ranges: expected shape ({len(self.query_cells)}, 2), got {tuple(ranges.shape)}")
        ordered = (ranges[:, 0] >= 0) & (ranges[:, 0] <= ranges[:, 1]) & (ranges[:, 1] <= len(self.key_groups))
        if not bool(ordered.all()):
            bad = int((~ordered).nonzero()[0])
            raise ValueError(
                f"key_ranges: expected 0 ≤ start ≤ end ≤ {len(self.key_groups)}, got {ranges[bad].tolist()} for cell "
                f"{bad}"
            )


def _check_numbers(name: str, x: Tensor, shape: tuple[int | None, ...], least: int, below: int) -> None:
    check_integers(name, x)
    if x.ndim != len(shape) or any(want is not None and want != got for want, got in zip(shape, x.shape, strict=True)):
        wanted = ", ".join("any" if size is None else str(size) for size in shape)
        raise ValueError(f"{name}: expected shape ({wanted}), got {tuple(x.shape)}")
    if x.numel() and not (least <= int(x.min()) and int(x.max()) < below):
        raise ValueError(f"{name}: expected numbers {least} … {below - 1}, got {int(x.min())} … {int(x.max())}")


def _check_positions(
    name: str, pair: tuple[Tensor, Tensor] | None, counts: tuple[int, int]
) -> tuple[Tensor, Tensor] | None:
    """Both as (n, axes)."""
    if pair is None:
        return None
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        raise TypeError(f"{name}: expected a pair, of the queries and of the keys, got {type(pair).__name__}")
    of_each = []
    for whose, x, count in zip(("queries", "keys"), pair, counts, strict=True):
        if not isinstance(x, Tensor) or x.dtype != torch.int64:
            got = x.dtype if isinstance(x, Tensor) else type(x).__name__
            raise TypeError(f"{name}: expected an int64 tensor for the {whose}, got {got}")
        x = x[:, None] if x.ndim == 1 else x
        if x.ndim != 2 or len(x) != count:
            raise ValueError(f"{name}: expected shape ({count}, axes) for the {whose}, got {tuple(x.shape)}")
        of_each.append(x)
    if of_each[0].shape[1] != of_each[1].shape[1]:
        raise ValueError(
            f"{name}: expected as many axes for queries as for keys, got {of_each[0].shape[1]} and "
            f"{of_each[1].shape[1]}"
        )
    return of_each[0], of_each[1]


def _one_behind_another(numbers: Sequence[Tensor], counts: Sequence[int]) -> Tensor:
    """Numbers within each structure as numbers within all of them, given how many there are in each."""
    before = torch.tensor([0, *counts]).cumsum(0).tolist()
    return torch.cat([x + start for x, start in zip(numbers, before[:-1], strict=True)])


def _joined(pairs: Sequence[tuple[Tensor, Tensor] | None]) -> tuple[Tensor, Tensor] | None:
    there = [pair for pair in pairs if pair is not None]
    return (torch.cat([q for q, _ in there]), torch.cat([k for _, k in there])) if there else None
