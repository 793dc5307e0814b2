"""Which d, m and κ? Settings that keep within a budget, or that keep as much of dense attention as is asked for."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod

import torch
from jaxtyping import Float
from torch import Tensor

from gpa_nd.checks import check_int
from gpa_nd.diagnostics.blocked_work import Sizes
from gpa_nd.diagnostics.budget import Budget
from gpa_nd.diagnostics.candidates import Make, candidates, group_size, settings_text
from gpa_nd.diagnostics.cost import Cost, cost_of_layout, mebibytes, short
from gpa_nd.diagnostics.mass import Mass, captured_mass
from gpa_nd.diagnostics.pairs import pairs
from gpa_nd.engine import select_keys
from gpa_nd.engine.arguments import check_structured
from gpa_nd.layout import Layout
from gpa_nd.nn.gpa import GPA
from gpa_nd.ops.base import Shape
from gpa_nd.ops.grid import PerAxis


@dataclass(frozen=True, repr=False)
class Proposal:
    """One setting and its figures.

    Attributes:
        downsample: d: a number where it is the same along every axis, else one for each.
        cells: m, along every axis.
        kappa: κ.
        gpa: the module that these make.
        cost: what a call of it costs.
        always_on: how many of the keys per query, in the mean, its cell did not select: those of ``always`` and, where
            the attention is causal, those that the cell overlaps. Much of it, beside few that were selected, is a local
            window.
        mass: how much of dense attention it keeps on the tensors that were given; None without tensors.
    """

    downsample: PerAxis
    cells: PerAxis
    kappa: int
    gpa: GPA
    cost: Cost
    always_on: float
    mass: Mass | None = None

    @property
    def settings(self) -> dict[str, PerAxis]:
        """Arguments for :func:`gpa_nd.image` and its like: ``gpa_nd.image(**proposal.settings)``."""
        return {"downsample": self.downsample, "cells": self.cells, "kappa": self.kappa}

    def __str__(self) -> str:
        chosen = settings_text(self.downsample, self.cells, self.kappa)
        mass = "" if self.mass is None else f"{self.mass.mean:.1%} captured, "
        always = f" ({self.always_on:,.0f} always on)" if self.always_on else ""
        return (
            f"{chosen}: {mass}{self.cost.keys_per_query:,.0f} keys per query{always}, "
            f"{short(self.cost.total.multiply_adds)} multiply-adds, {mebibytes(self.cost.torch_bytes)}{self._dearer}"
        )

    def __repr__(self) -> str:
        return f"<{self}>"

    @property
    def _dearer(self) -> str:
        dearer = self.cost.total.multiply_adds > self.cost.dense.multiply_adds
        return ", more than dense attention takes" if dearer else ""


def propose_within(
    make: Make,
    query_shape: Shape,
    key_shape: Shape | None = None,
    *,
    channels: int,
    memory: int | float | None = None,
    multiply_adds: int | float | None = None,
    value_channels: int | None = None,
    batch: int = 1,
    heads: int = 1,
    dtype: torch.dtype = torch.float32,
    backward: bool = False,
    device: str = "cpu",
) -> list[Proposal]:
    """Settings that keep within a budget, those whose queries attend to most keys first.

    A simple search, from shapes alone: of every downsampling factor d and size of cells below, the largest κ that
    :func:`cost` says will fit.

    - d along every axis: 2, 4, 8; on a single axis 4, 8, 16, 32, 64. Of three axes or more, as videos have, also 1 or
      2 along the first and more along the others: (1, 4, 4).
    - coarse queries along each side of a cell: 1, 2, 4; on a single axis 1, 4, 16, 64; along an axis with d = 1 one.
    - κ: 1, 2, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, below the number of coarse keys.

    Among settings of as many keys per query the one with the smaller groups comes first. Keys that are always on count
    as well, so that the first of a causal attention may select few. Which of them attends to the right keys, shapes
    cannot tell: :func:`propose_capturing` asks the data.

    Args:
        make: :func:`gpa_nd.audio`, :func:`gpa_nd.image` or :func:`gpa_nd.video`; for more arguments, all of which
            count, ``partial(gpa_nd.image, causal=True, ranking="rerank")``; for a graph ``partial(gpa_nd.graph,
            edge_index, num_nodes)``, which is coarsened anew for every d and size of cells. Any function of
            ``downsample``, ``cells`` and ``kappa`` will do, such as one for two structures. Positions that
            :func:`~gpa_nd.causal` puts into a layout are not counted; :func:`cost` counts such a layout.
        query_shape: sizes of the axes of q between heads and channels.
        key_shape: those of k and v; as of the queries by default.
        channels: c.
        memory: how many bytes there may be at the peak beside q, k and v, :attr:`.Cost.torch_bytes`; None for any
            number. Backend "torch" works in blocks, so that κ has little to say in it: give ``multiply_adds`` as well.
        multiply_adds: of the whole call, :attr:`.Cost.total`; None for any number.
        value_channels: c_v; c by default.
        batch: B.
        heads: H.
        dtype: of q, k and v.
        backward: whether the gradients count, too.
        device: type of the device, as in :func:`cost`.

    Raises:
        TypeError: a budget that is no number, or what :func:`cost` raises.
        ValueError: no budget, or one that no setting keeps within; the message says which one takes least, and how
            much.

    Example:
        >>> import gpa_nd
        >>> from gpa_nd.diagnostics import propose_within
        >>> for proposal in propose_within(gpa_nd.image, (128, 128), channels=64, multiply_adds=500e6)[:3]:
        ...     print(proposal)
        downsample=4, cells=(32, 32), kappa=12: 192 keys per query, 470 M multiply-adds, 7.87 MiB
        downsample=4, cells=(16, 16), kappa=12: 192 keys per query, 470 M multiply-adds, 7.21 MiB
        downsample=4, cells=(8, 8), kappa=12: 192 keys per query, 470 M multiply-adds, 6.49 MiB
        >>> gpa = gpa_nd.image(**proposal.settings)           # or proposal.gpa
    """
    budget = Budget(memory, multiply_adds)
    check_int("channels", channels, at_least=1)
    sizes = Sizes(
        batch, heads, heads, channels, channels if value_channels is None else value_channels, dtype,
        device.partition(":")[0], "dot",
    )  # fmt: skip
    found = []
    for candidate in candidates(make, query_shape):
        gpa, downsample, cells = candidate.gpa, candidate.downsample, candidate.cells
        layout = gpa.layout(query_shape, query_shape if key_shape is None else key_shape)
        best, always_on = None, _always_on(layout)
        for kappa in candidate.kappas(layout):
            proposed = candidate.with_kappa(kappa)
            costs = cost_of_layout(layout, proposed, replace(sizes, affinity=gpa.affinity), backward=backward)
            if budget.allows(costs, settings_text(downsample, cells, kappa)):
                best = Proposal(downsample, cells, kappa, proposed, costs, always_on)
        if best is not None:
            found.append(best)
    if not budget.tried:
        raise ValueError(_too_small(query_shape))
    if not found:
        raise ValueError(budget.why_none())
    axes = len(query_shape)
    return sorted(found, key=lambda x: (-x.cost.keys_per_query, group_size(x.downsample, axes), -prod(_tuple(x.cells))))


def propose_capturing(
    make: Make,
    q: Float[Tensor, "b h *query c"],
    k: Float[Tensor, "b h_k *key c"],
    mass: int | float,
    *,
    queries: int = 1024,
    value_channels: int | None = None,
    backward: bool = False,
) -> list[Proposal]:
    """Settings that capture so much of dense attention's mass on these tensors, those of fewest multiply-adds first.

    The same search as :func:`propose_within`: of every downsampling factor and size of cells, the smallest κ whose
    captured mass (:func:`captured_mass`) is large enough in the mean. It is measured on a sample of cells that lie
    evenly over the structure. q and k should be what the attention will see, such as those of a trained layer. Measured
    is what is selected by the ranking of ``make``, without pooled keys and, of a selection that learns, the hard one.

    Args:
        make: as of :func:`propose_within`.
        q: (B, H, query_shape …, c) queries.
        k: (B, H, key_shape …, c) keys.
        mass: how much is to be captured in the mean, above 0 and at most 1.
        queries: about how many queries are compared with all keys for each setting.
        value_channels: c_v, for the cost; c by default.
        backward: whether the cost includes the gradients.

    Raises:
        TypeError: not tensors of one floating point dtype.
        ValueError: a mass that is not in (0, 1], or one that no setting captures; the message says which one captures
            most, and how much.

    Example:
        >>> import torch
        >>> import gpa_nd
        >>> from gpa_nd.diagnostics import propose_capturing
        >>> place = torch.arange(512) / 8
        >>> q = k = torch.stack([place.sin(), place.cos()], dim=-1)[None, None] * 6     # looks for the same phase
        >>> print(propose_capturing(gpa_nd.audio, q, k, mass=0.9)[0])
        downsample=4, cells=128, kappa=24: 96.5% captured, 96 keys per query, 229 k multiply-adds, 716 KiB
    """
    check_structured({"q": q, "k": k}, enable_gqa=True)
    if not isinstance(mass, int | float) or isinstance(mass, bool):
        raise TypeError(f"mass: expected a number, got {mass!r}")
    if not 0 < mass <= 1:
        raise ValueError(f"mass: expected a number above 0 and at most 1, got {mass}")
    check_int("queries", queries, at_least=1)
    query_shape, key_shape = tuple(q.shape[2:-1]), tuple(k.shape[2:-1])
    sizes = Sizes(
        q.shape[0], q.shape[1], k.shape[1], q.shape[-1], q.shape[-1] if value_channels is None else value_channels,
        q.dtype, q.device.type, "dot",
    )  # fmt: skip
    q, k = q.flatten(2, -2), k.flatten(2, -2)
    most, by, found = -1.0, "", []
    for candidate in candidates(make, query_shape):
        gpa, downsample, number = candidate.gpa, candidate.downsample, candidate.cells
        layout = gpa.layout(query_shape, key_shape, q.device)
        count = min(len(layout.query_cells), max(1, queries * len(layout.query_cells) // max(1, q.shape[2])))
        sample = torch.linspace(0, len(layout.query_cells) - 1, count, device=q.device).round().long()
        tried: dict[int, Mass] = {}

        def captured(kappa: int, gpa: GPA = gpa, layout: Layout = layout, cells: Tensor = sample) -> Mass:
            scale, affinity, shared, ranking = gpa.scale, gpa.affinity, gpa.enable_gqa, gpa.ranking
            relevant = select_keys(
                q,
                k,
                layout,
                kappa=kappa,
                scale=scale,
                affinity=affinity,
                ranking=ranking,
                mass=gpa.mass,
                enable_gqa=shared,
                backend=gpa.backend,
            )
            return captured_mass(q, k, layout, relevant, cells=cells, scale=scale, affinity=affinity, enable_gqa=shared)

        kappas = candidate.kappas(layout)
        low, high = 0, len(kappas)  # the first that is enough is in low … high
        while low < high:
            middle = (low + high) // 2
            tried[middle] = captured(kappas[middle])
            if tried[middle].mean > most:
                most, by = tried[middle].mean, settings_text(downsample, number, kappas[middle])
            low, high = (low, middle) if tried[middle].mean >= mass else (middle + 1, high)
        if low < len(kappas):
            proposed = candidate.with_kappa(kappas[low])
            of_call = cost_of_layout(layout, proposed, replace(sizes, affinity=gpa.affinity), backward=backward)
            found.append(Proposal(downsample, number, kappas[low], proposed, of_call, _always_on(layout), tried[low]))
    if most < 0:
        raise ValueError(_too_small(query_shape))
    if not found:
        raise ValueError(f"mass: expected at most {most:.3g}, the most that a setting captures ({by}), got {mass}")
    return sorted(found, key=lambda x: x.cost.total.multiply_adds)


def _always_on(layout: Layout) -> float:
    """To how many keys a query attends that its cell did not select, in the mean."""
    return pairs(layout, kappa=0)[1] / max(1, layout.query_groups.num_elements)


def _too_small(query_shape: Shape) -> str:
    return (
        f"query_shape: expected one large enough for groups to choose from, got {tuple(query_shape)}; dense attention "
        f"serves it"
    )


def _tuple(cells: PerAxis) -> tuple[int, ...]:
    return (cells,) if isinstance(cells, int) else cells
