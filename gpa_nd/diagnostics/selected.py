"""Which coarse keys a GPA selects, and what they hold of dense attention."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from gpa_nd.diagnostics.mass import Mass, captured_mass
from gpa_nd.engine import select_keys
from gpa_nd.engine.arguments import check_kappa, check_key_bias, check_structured
from gpa_nd.engine.backends import is_empty
from gpa_nd.engine.bias import key_bias_of
from gpa_nd.engine.both_phases import weighed_keys
from gpa_nd.engine.rules import rules_of
from gpa_nd.layout import Layout
from gpa_nd.nn.gpa import GPA


@dataclass(frozen=True)
class Selected:
    """What each cell attends to.

    Attributes:
        relevant: (B, H, m, r) int64 coarse keys of each cell, as :func:`~gpa_nd.select_keys` gives them; −1 names none.
        weights: (B, H, m, r) in [0, 1], by which a selection that learns weighs them; 1 for hard ones, 0 for none.
        layout: who belongs to whom: ``layout.members.split(…)`` has the elements under each coarse key.
    """

    relevant: Int[Tensor, "b h m r"]
    weights: Float[Tensor, "b h m r"]
    layout: Layout


@torch.no_grad()
def selected(
    gpa: GPA,
    q: Float[Tensor, "b h *query c"],
    k: Float[Tensor, "b h_k *key c"],
    *,
    key_mask: Bool[Tensor, " b *key"] | None = None,
    key_bias: Float[Tensor, "b h_k *key"] | None = None,
) -> Selected:
    """What a GPA selects on its way to an answer, with the weights of a selection that learns.

    Args:
        gpa: the attention. A straight-through selection answers with the hard one, and that is told.
        q: ``(B, H, *query_shape, c)`` queries, as the attention takes them.
        k: ``(B, H, *key_shape, c)`` keys.
        key_mask: as :class:`~gpa_nd.GPA` takes it.
        key_bias: the same.

    Raises:
        TypeError: not a GPA, or not tensors of one floating point dtype.
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
    return _selected(gpa, *_flat(gpa, q, k, key_mask, key_bias))


@torch.no_grad()
def captured_by(
    gpa: GPA,
    q: Float[Tensor, "b h *query c"],
    k: Float[Tensor, "b h_k *key c"],
    *,
    cells: Int[Tensor, " some"] | None = None,
    key_mask: Bool[Tensor, " b *key"] | None = None,
    key_bias: Float[Tensor, "b h_k *key"] | None = None,
) -> Mass:
    """How much of dense attention's mass lies on the keys that a GPA attends to: :func:`captured_mass` in one call.

    Args:
        gpa: the attention. Pooled keys of ``unselected="pooled"`` and the weights of a selection do not count: a coarse
            key that has a weight is attended to.
        q: ``(B, H, *query_shape, c)`` queries, as the attention takes them.
        k: ``(B, H, *key_shape, c)`` keys.
        cells: numbers of the cells whose queries are asked for; all by default.
        key_mask: as :class:`~gpa_nd.GPA` takes it.
        key_bias: the same.

    Raises:
        TypeError: not a GPA, or not tensors of one floating point dtype.
        ValueError: shapes that do not fit one another or the operators, or a cell that is not there.

    Example:
        >>> import torch
        >>> import gpa_nd
        >>> from gpa_nd.diagnostics import captured_by
        >>> x = torch.eye(4).repeat_interleave(2, 0)[None, None] * 3     # four groups of two equal elements
        >>> print(captured_by(gpa_nd.audio(downsample=2, cells=2, kappa=2), x, x))
        97.8% captured, 97.8% at best: 100.0% of it
    """
    q, k, layout, key_mask, key_bias = _flat(gpa, q, k, key_mask, key_bias)
    return captured_mass(
        q,
        k,
        layout,
        _selected(gpa, q, k, layout, key_mask, key_bias).relevant,
        cells=cells,
        key_mask=key_mask,
        key_bias=key_bias,
        scale=gpa.scale,
        affinity=gpa.affinity,
        enable_gqa=gpa.enable_gqa,
    )


def _flat(
    gpa: GPA, q: Tensor, k: Tensor, key_mask: Tensor | None, key_bias: Tensor | None
) -> tuple[Tensor, Tensor, Layout, Tensor | None, Tensor | None]:
    """Tokens of the structure one after another, and who belongs to whom."""
    if not isinstance(gpa, GPA):
        raise TypeError(f"gpa: expected a GPA, got {type(gpa).__name__}")
    check_structured({"q": q, "k": k}, gpa.enable_gqa)
    check_key_bias(key_mask, key_bias, k)
    layout = gpa.layout(q.shape[2:-1], k.shape[2:-1], q.device)
    key_mask = None if key_mask is None else key_mask.flatten(1)
    key_bias = None if key_bias is None else key_bias.flatten(2)
    return q.flatten(2, -2), k.flatten(2, -2), layout, key_mask, key_bias


def _selected(
    gpa: GPA, q: Tensor, k: Tensor, layout: Layout, key_mask: Tensor | None, key_bias: Tensor | None
) -> Selected:
    """:func:`selected`, of flat tokens."""
    if gpa.selection is None or gpa.selection.hard or is_empty(q, k):
        relevant = select_keys(
            q,
            k,
            layout,
            kappa=gpa.kappa,
            key_mask=key_mask,
            key_bias=key_bias,
            scale=gpa.scale,
            affinity=gpa.affinity,
            ranking=gpa.ranking,
            mass=gpa.mass,
            enable_gqa=gpa.enable_gqa,
            backend=gpa.backend,
        )
        return Selected(relevant, (relevant >= 0).to(torch.float32), layout)
    rules = rules_of(check_kappa(gpa.kappa, layout), gpa.ranking, gpa.mass, gpa.affinity)
    bias = key_bias_of(key_mask, key_bias, k)
    relevant, logits = weighed_keys(
        q, k, layout, rules, bias=bias, selection=gpa.selection, scale=gpa.scale, backend=gpa.backend
    )
    return Selected(relevant, logits.exp().masked_fill(relevant < 0, 0), layout)
