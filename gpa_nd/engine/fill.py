"""Coarse fill: what a cell does not select stands in the same softmax, each group as one pooled key."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from gpa_nd.engine.groups import PooledKeys, over_groups, selectable
from gpa_nd.engine.steps import Pool
from gpa_nd.layout import Layout


@dataclass(frozen=True)
class Rest:
    """The groups that cells may select, and did not.

    Attributes:
        keys: all groups; to the affinity of each comes the logarithm of how many of its elements are visible, and the
            mean of their biases. So a group whose keys are alike holds as much of the softmax as they do.
        layout: who belongs to whom.
        relevant: (b, h, m, r) what each cell selected.
    """

    keys: PooledKeys
    layout: Layout
    relevant: Int[Tensor, "b h m r"]

    @classmethod
    def of(cls, k: Tensor, v: Tensor, layout: Layout, relevant: Tensor, bias: Tensor | None, pool: Pool) -> Rest:
        """The rest of what these cells selected."""
        keys = PooledKeys.of(k, v, layout, bias, relevant.shape[1], pool)
        sizes = layout.members.offsets.diff().to(keys.k.dtype).log()
        if keys.added is None or keys.share is None:
            added = sizes.expand(keys.k.shape[:3])
        else:
            added = keys.added + (keys.share.log() + sizes)
        return cls(replace(keys, added=added), layout, relevant)

    @property
    def added(self) -> Float[Tensor, "b h n_low"]:
        """What comes to the affinities of each group, 0 where nothing of it is visible."""
        assert self.keys.added is not None
        return self.keys.added.masked_fill(self.keys.added.isneginf(), 0)

    def unselected(self, cell: Int[Tensor, " rows"]) -> Bool[Tensor, "b h rows n_low"]:
        """The groups with something visible that each of these cells may select and did not, nor has always on."""
        named, count = self.relevant[:, :, cell], len(self.layout.key_groups)
        place = torch.where(named >= 0, named, count)  # what names none goes to a column of its own
        taken = torch.zeros(*named.shape[:3], count + 1, dtype=torch.bool, device=named.device)
        left = selectable(self.layout, cell) & ~taken.scatter_(-1, place, True)[..., :count]
        return left if self.keys.added is None else left & ~self.keys.added.isneginf()[:, :, None]

    def beside(self, out: Tensor, lse: Tensor, q: Tensor, scale: float, affinity: str) -> Float[Tensor, "b h n_q c_v"]:
        """What Phase 2 answers if these groups stand in its softmax, too.

        Args:
            out: (b, h, n_q, c_v) what it answers without them.
            lse: (b, h, n_q) the log-sum-exp of its scores.
            q: (b, h, n_q, c) queries.
            scale: factor of the affinity.
            affinity: its kind.
        """
        cells = self.layout.fine_cells

        def seen(cell: Tensor) -> Tensor:
            return self.unselected(cell)

        coarse, coarse_lse = over_groups(q, self.keys, cells, seen, scale, affinity)
        spoilt = (self.relevant == -2).any(-1)[:, :, cells.traced_labels()]
        # A cell that is NaN sends no gradient anywhere.
        out, coarse = (x.to(coarse.dtype).masked_fill(spoilt[..., None], 0) for x in (out, coarse))
        lse, coarse_lse = (x.masked_fill(spoilt, 0) for x in (lse, coarse_lse))
        most = torch.maximum(lse, coarse_lse).detach()
        most = most.masked_fill(most.isneginf(), 0)
        fine_share, coarse_share = ((x - most).exp()[..., None] for x in (lse, coarse_lse))
        total = fine_share + coarse_share
        both = (fine_share * out + coarse_share * coarse) / total.masked_fill(total == 0, 1)
        return both.masked_fill(spoilt[..., None], torch.nan).to(q.dtype)
