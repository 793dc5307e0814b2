"""Layout: the three partitions that tell the engine who belongs to whom."""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass

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
        key_ranges: (m, 2) int64, the coarse keys ``start … end − 1`` that each cell may see; all of them by default.
        fine_cells: the cells of queries at full resolution, J^(l) = U_d(J'^(l)) (Definition 5, line 13); computed where
            they are not given.

    Raises:
        TypeError: an argument is not a :class:`Partition`, or ``key_ranges`` is not an integer tensor.
        ValueError: sizes that do not fit one another, ranges outside 0 … n_k', or tensors on different devices.

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
        parts = (self.query_groups, self.query_cells, self.key_groups, self.members)
        tensors = (*(part.order for part in parts), self.key_ranges)
        if len(devices := {str(t.device) for t in tensors if t is not None}) > 1:
            raise ValueError(f"layout: expected all of its parts on one device, got {' and '.join(sorted(devices))}")
        if self.fine_cells is None:
            self.fine_cells = self.query_groups.then(self.query_cells)
        got = len(self.fine_cells), self.fine_cells.num_elements
        if got != (expected := (len(self.query_cells), self.query_groups.num_elements)):
            raise ValueError(
                f"fine_cells: expected {expected[0]} cells of {expected[1]} queries, got {got[0]} of {got[1]}"
            )

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
            if part is not None:
                setattr(moved, name, part.to(device))
        return moved

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
