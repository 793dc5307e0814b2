"""What an attention would be called with: flat tokens and the layout that says who belongs to whom."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from gpa_nd.engine.arguments import check_key_bias, check_structured, check_tokens
from gpa_nd.layout import Layout
from gpa_nd.nn.gpa import GPA
from gpa_nd.nn.tokens import Grid, TokenAttention


class Called(NamedTuple):
    """A GPA, its arguments as flat tokens, and whether heads of q may share those of k."""

    gpa: GPA
    q: Tensor
    k: Tensor
    layout: Layout
    key_mask: Tensor | None
    key_bias: Tensor | None
    shared: bool

    @classmethod
    def of(
        cls,
        attention: GPA | TokenAttention,
        q: Tensor,
        k: Tensor,
        layout: Layout | None,
        grid: Grid | None,
        key_mask: Tensor | None,
        key_bias: Tensor | None,
    ) -> Called:
        """The arguments of an attention, on whatever structure.

        Args:
            attention: a GPA, or one of tokens on a grid.
            q: as the attention takes them; flat where there is a layout.
            k: the same.
            layout: of flat tokens; by default what the attention makes of the shapes.
            grid: of this call, of tokens.
            key_mask: shaped as k without heads and channels.
            key_bias: shaped as k without channels.

        Raises:
            TypeError: another attention, or not tensors of one floating point dtype.
            ValueError: shapes that do not fit one another or the operators.
        """
        if isinstance(attention, TokenAttention):
            if layout is not None:
                raise ValueError("layout: expected None with a TokenAttention, which has its own, got one")
            check_structured({"q": q, "k": k}, enable_gqa=True)
            layout = attention.layout(q, k, grid=grid)
            q, attention, shared = attention.on_grid(q, grid=grid), attention.gpa, True
        elif isinstance(attention, GPA):
            if grid is not None:
                raise ValueError(f"grid: expected None with a GPA, which sees the axes of q and k, got {grid}")
            shared = attention.enable_gqa
        else:
            more = "; give it as layout=" if isinstance(attention, Layout) else ""
            raise TypeError(f"gpa: expected a GPA or a TokenAttention, got {type(attention).__name__}{more}")
        if layout is not None:
            check_tokens({"q": q, "k": k}, layout, shared)
        else:
            check_structured({"q": q, "k": k}, shared)
            layout = _of_shapes(attention, q, k)
        check_key_bias(key_mask, key_bias, k)
        key_mask = None if key_mask is None else key_mask.flatten(1)
        key_bias = None if key_bias is None else key_bias.flatten(2)
        return cls(attention, q.flatten(2, -2), k.flatten(2, -2), layout, key_mask, key_bias, shared)


def _of_shapes(gpa: GPA, q: Tensor, k: Tensor) -> Layout:
    """What the operators make of the axes between heads and channels.

    Raises:
        ValueError: axes that do not fit them, such as the only one of flat tokens.
    """
    try:
        return gpa.layout(q.shape[2:-1], k.shape[2:-1], q.device)
    except ValueError as error:
        if q.ndim > 4 and k.ndim > 4:
            raise
        raise ValueError(
            f"q, k: expected the axes of their structures between heads and channels, as the GPA takes them, got "
            f"{tuple(q.shape)} and {tuple(k.shape)}; flat tokens need their layout=, or x.unflatten(2, grid). {error}"
        ) from error
