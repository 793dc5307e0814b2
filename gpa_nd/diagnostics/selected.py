"""Which coarse keys a GPA selects, and what they hold of dense attention."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from gpa_nd.diagnostics.called import Called
from gpa_nd.diagnostics.mass import Mass, captured_mass
from gpa_nd.engine import select_keys
from gpa_nd.engine.arguments import check_kappa
from gpa_nd.engine.backends import is_empty
from gpa_nd.engine.bias import key_bias_of
from gpa_nd.engine.both_phases import weighed_keys
from gpa_nd.engine.rules import rules_of
from gpa_nd.layout import Layout
from gpa_nd.nn.gpa import GPA
from gpa_nd.nn.tokens import Grid, TokenAttention


@dataclass(frozen=True, repr=False)
class Selected:
    """What each cell attends to.

    Attributes:
        relevant: (B, H, m, r) int64 coarse keys of each cell, as :func:`~gpa_nd.select_keys` gives them; −1 names none.
        weights: (B, H, m, r) in [0, 1], by which a selection that learns weighs them; 1 for hard ones, 0 for none.
        layout: who belongs to whom: ``layout.fine_cells.labels`` has the cell of each query.
    """

    relevant: Int[Tensor, "b h m r"]
    weights: Float[Tensor, "b h m r"]
    layout: Layout

    def keys(self, cell: int, *, batch: int = 0, head: int = 0) -> Int[Tensor, " n"]:
        """Numbers of the keys that a cell attends to, best coarse key first; of a grid they count row-major.

        Of a :class:`~gpa_nd.nn.TokenAttention` they count tokens, leading ones first: those of the grid are ``keys -
        leading``, from 0 up to its size.

        Args:
            cell: its number. The cell of a query is ``layout.fine_cells.labels[query]``.
            batch: the batch entry.
            head: the head.

        Raises:
            TypeError: a number that is no int.
            ValueError: a cell, batch entry or head that is not there.

        Example:
            >>> import torch
            >>> import gpa_nd
            >>> from gpa_nd.diagnostics import selected
            >>> q, k = torch.randn(2, 1, 1, 64, 48, 8)
            >>> found = selected(gpa_nd.image(downsample=4, cells=8, kappa=3), q, k)
            >>> rows, columns = torch.unravel_index(found.keys(cell=9), (64, 48))
            >>> rows.shape
            torch.Size([48])
        """
        for name, number, count in zip(
            ("batch", "head", "cell"), (batch, head, cell), self.relevant.shape, strict=False
        ):
            if not isinstance(number, int) or isinstance(number, bool):
                raise TypeError(f"{name}: expected an int, got {number!r}")
            if not 0 <= number < count:
                raise ValueError(f"{name}: expected one of 0 … {count - 1}, got {number}")
        chosen = self.relevant[batch, head, cell]
        elements = self.layout.members.table[chosen[chosen >= 0]].flatten()
        return elements[elements >= 0]

    def __repr__(self) -> str:
        batch, heads, cells, most = self.relevant.shape
        return (
            f"Selected({cells} cells with up to {most} of {len(self.layout.members)} coarse keys each, batch {batch}, "
            f"heads {heads}; keys(cell) has the elements)"
        )


@torch.no_grad()
def selected(
    gpa: GPA | TokenAttention,
    q: Float[Tensor, "b h *query c"],
    k: Float[Tensor, "b h_k *key c"],
    *,
    layout: Layout | None = None,
    grid: Grid | None = None,
    key_mask: Bool[Tensor, " b *key"] | None = None,
    key_bias: Float[Tensor, "b h_k *key"] | None = None,
) -> Selected:
    """What a GPA selects on its way to an answer, with the weights of a selection that learns.

    Args:
        gpa: the attention; a :class:`~gpa_nd.nn.TokenAttention` tells it of the queries on its grid. A straight-through
            selection answers with the hard one, and that is told.
        q: ``(B, H, *query_shape, c)`` queries, as the attention takes them.
        k: ``(B, H, *key_shape, c)`` keys.
        layout: that of flat tokens (B, H, n, c), such as one from :func:`~gpa_nd.causal`; of the shapes by default.
        grid: that of this call of a :class:`~gpa_nd.nn.TokenAttention`, in place of its own.
        key_mask: as :class:`~gpa_nd.GPA` takes it.
        key_bias: the same.

    Raises:
        TypeError: neither a GPA nor a TokenAttention, or not tensors of one floating point dtype.
        ValueError: shapes that do not fit one another or the operators.

    Example:
        >>> import torch
        >>> import gpa_nd
        >>> from gpa_nd.diagnostics import selected
        >>> from gpa_nd.selection import SoftTopK
        >>> x = torch.eye(4).repeat_interleave(2, 0)[None, None] * 2     # four groups of two equal elements
        >>> soft = gpa_nd.audio(downsample=2, cells=4, kappa=1, selection=SoftTopK(temperature=2.5, candidates=2))
        >>> found = selected(soft, x, x)
        >>> found.relevant[0, 0].tolist()
        [[0, 1], [1, 0], [2, 0], [3, 0]]
        >>> [round(weight, 2) for weight in found.weights[0, 0, 0].tolist()]
        [0.9, 0.1]
    """
    return _selected(Called.of(gpa, q, k, layout, grid, key_mask, key_bias))


@torch.no_grad()
def captured_by(
    gpa: GPA | TokenAttention,
    q: Float[Tensor, "b h *query c"],
    k: Float[Tensor, "b h_k *key c"],
    *,
    layout: Layout | None = None,
    grid: Grid | None = None,
    cells: Int[Tensor, " some"] | None = None,
    key_mask: Bool[Tensor, " b *key"] | None = None,
    key_bias: Float[Tensor, "b h_k *key"] | None = None,
) -> Mass:
    """How much of dense attention's mass lies on the keys that a GPA attends to: :func:`captured_mass` in one call.

    Args:
        gpa: the attention. Pooled keys of ``unselected="pooled"`` and the weights of a selection do not count: a coarse
            key that has a weight is attended to. A :class:`~gpa_nd.nn.TokenAttention` is asked about the queries on its
            grid; global ones see everything.
        q: ``(B, H, *query_shape, c)`` queries, as the attention takes them.
        k: ``(B, H, *key_shape, c)`` keys.
        layout: that of flat tokens (B, H, n, c), such as one from :func:`~gpa_nd.causal`; of the shapes by default.
        grid: that of this call of a :class:`~gpa_nd.nn.TokenAttention`, in place of its own.
        cells: numbers of the cells whose queries are asked for; all by default.
        key_mask: as :class:`~gpa_nd.GPA` takes it.
        key_bias: the same.

    Raises:
        TypeError: neither a GPA nor a TokenAttention, or not tensors of one floating point dtype.
        ValueError: shapes that do not fit one another or the operators, or a cell that is not there.

    Example:
        >>> import torch
        >>> import gpa_nd
        >>> from gpa_nd.diagnostics import captured_by
        >>> x = torch.eye(4).repeat_interleave(2, 0)[None, None] * 3     # four groups of two equal elements
        >>> print(captured_by(gpa_nd.audio(downsample=2, cells=2, kappa=2), x, x))
        97.8% captured in 50.00% of the keys, 97.8% at best: 100.0% of it
    """
    called = Called.of(gpa, q, k, layout, grid, key_mask, key_bias)
    return captured_mass(
        called.q,
        called.k,
        called.layout,
        _selected(called).relevant,
        cells=cells,
        key_mask=called.key_mask,
        key_bias=called.key_bias,
        scale=called.gpa.scale,
        affinity=called.gpa.affinity,
        enable_gqa=called.shared,
    )


def _selected(called: Called) -> Selected:
    """:func:`selected`, of flat tokens."""
    gpa, q, k, layout = called.gpa, called.q, called.k, called.layout
    if gpa.selection is None or gpa.selection.hard or is_empty(q, k):
        relevant = select_keys(
            q,
            k,
            layout,
            kappa=gpa.kappa,
            key_mask=called.key_mask,
            key_bias=called.key_bias,
            scale=gpa.scale,
            affinity=gpa.affinity,
            ranking=gpa.ranking,
            mass=gpa.mass,
            enable_gqa=called.shared,
            backend=gpa.backend,
        )
        return Selected(relevant, (relevant >= 0).to(torch.float32), layout)
    rules = rules_of(check_kappa(gpa.kappa, layout), gpa.ranking, gpa.mass, gpa.affinity)
    bias = key_bias_of(called.key_mask, called.key_bias, k)
    relevant, logits = weighed_keys(
        q, k, layout, rules, bias=bias, selection=gpa.selection, scale=gpa.scale, backend=gpa.backend
    )
    return Selected(relevant, logits.exp().masked_fill(relevant < 0, 0), layout)
