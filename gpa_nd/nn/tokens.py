"""TokenAttention: GPA where scaled_dot_product_attention is called, on sequences of tokens that lie on a grid."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from operator import index
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from gpa_nd.checks import check_int, check_tensor
from gpa_nd.engine.arguments import check_choices, check_structured
from gpa_nd.engine.precision import own_precision
from gpa_nd.layout import Layout
from gpa_nd.nn.attention_mask import mask_and_bias_of, row_of_mask
from gpa_nd.nn.gpa import GPA
from gpa_nd.nn.structure import axes_of

Grid = tuple[int, ...]
Tokens = int | Literal["rest"]


class Divided(NamedTuple):
    """A sequence of tokens: those of a grid, and how many global ones stand before and after them."""

    grid: Grid
    leading: int
    trailing: int

    def on_grid(self, x: Float[Tensor, "b h n c"]) -> Float[Tensor, "b h n_grid c"]:
        """The tokens of the grid."""
        return x[:, :, self.leading : x.shape[2] - self.trailing]

    def beside_grid(self, x: Float[Tensor, "b h n c"]) -> Float[Tensor, "b h n_global c"]:
        """The global ones, all together."""
        return torch.cat([x[:, :, : self.leading], x[:, :, x.shape[2] - self.trailing :]], dim=2)


class TokenAttention(nn.Module):
    """Stands where a model calls :func:`torch.nn.functional.scaled_dot_product_attention`, and is called like it.

    Tokens come as a sequence (B, H, n, c): some global ones (class token, registers, text), and those of a grid,
    row-major. Global tokens see everything and are seen by all, exactly; a token of the grid attends to them and to
    what its cell selects, in one softmax. Where κ takes in all groups, the result is that of the function it replaces.

    Args:
        gpa: the geometry, κ and everything else. A ``scale`` or ``enable_gqa`` of the call goes before its own.
        grid: shape of the grid that tokens lie on; or a function that tells it for the number of tokens on it, such as
            :class:`AspectGrid`; None where every call brings its own.
        key_grid: that of the keys, where it is another one.
        leading: how many global tokens come first, among queries and among keys; ``"rest"`` for all that the grid does
            not hold.
        trailing: how many come last, likewise.

    Raises:
        TypeError: an argument of another type.
        ValueError: a grid without axes, a negative number, ``"rest"`` on both sides or beside a function, an affinity
            other than ``"dot"``, or global tokens with a causal GPA, in which they would need positions.

    Example:
        >>> import torch
        >>> import gpa_nd
        >>> from gpa_nd.nn import TokenAttention
        >>> attention = TokenAttention(gpa_nd.image(downsample=2, cells=4, kappa=4), grid=(16, 12), leading=1)
        >>> query, key, value = torch.randn(3, 2, 4, 1 + 16 * 12, 32)     # a class token, and an image
        >>> attention(query, key, value).shape
        torch.Size([2, 4, 193, 32])
    """

    def __init__(
        self,
        gpa: GPA,
        grid: Grid | Callable[[int], Grid] | None,
        *,
        key_grid: Grid | Callable[[int], Grid] | None = None,
        leading: Tokens = 0,
        trailing: Tokens = 0,
    ) -> None:
        super().__init__()
        if not isinstance(gpa, GPA):
            raise TypeError(f"gpa: expected a GPA, got {type(gpa).__name__}")
        if gpa.affinity != "dot":
            raise ValueError(f"gpa: expected affinity='dot', as the replaced function has it, got {gpa.affinity!r}")
        for name, each in (("grid", grid), ("key_grid", key_grid)):
            if each is not None and not callable(each):
                _check_grid(name, each, "a tuple of ints or a function of the number of tokens")
                _check_axes(name, each, gpa)
        for name, tokens in (("leading", leading), ("trailing", trailing)):
            if tokens != "rest":
                check_int(name, tokens, at_least=0)
        if "rest" in (leading, trailing) and (leading == trailing or callable(grid) or callable(key_grid)):
            raise ValueError(
                f"leading, trailing: expected 'rest' for one of them, and grids that are tuples, got {leading!r} and "
                f"{trailing!r} with grid={grid!r} and key_grid={key_grid!r}"
            )
        if _is_causal(gpa) and (leading or trailing):
            raise ValueError(
                f"leading, trailing: expected 0 with a causal GPA, in which global tokens have no position, got "
                f"{leading!r} and {trailing!r}"
            )
        self.gpa, self.grid, self.key_grid = gpa, grid, key_grid
        self.leading, self.trailing = leading, trailing

    def forward(
        self,
        query: Float[Tensor, "b h n_q c"],
        key: Float[Tensor, "b h_k n_k c"],
        value: Float[Tensor, "b h_k n_k c_v"],
        attn_mask: Shaped[Tensor, "*mask"] | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
        *,
        grid: Grid | None = None,
    ) -> Float[Tensor, "b h n_q c_v"]:
        """Attend as the function does, with its arguments in its order; ``grid`` is one more.

        Under autocast tensors are cast to its dtype, as it casts them.

        Args:
            query: (B, H, n_q, c).
            key: (B, H_k, n_k, c).
            value: (B, H_k, n_k, c_v).
            attn_mask: what is masked or added for keys, the same for all queries: a boolean or floating point tensor
                that is broadcast to (B, H, n_q, n_k), with 1 in place of n_q or expanded along it.
            dropout_p: 0; GPA drops out no weights.
            is_causal: whether a query sees nothing after it, for a grid of one axis; it has to be what the GPA was made
                with. On more axes the GPA alone says what is causal.
            scale: factor of the affinity; the GPA's own by default, which is 1/√c if not given.
            enable_gqa: key and value may have fewer heads.
            grid: that of this call, in place of the module's.

        Raises:
            TypeError: not tensors of one floating point dtype, or a mask or a grid of another type.
            ValueError: something that GPA cannot do, or tokens that are not those of the grid.
        """
        for name, x in (("query", query), ("key", key), ("value", value)):
            _check_sequence(name, x)
        if dropout_p:
            raise ValueError(
                f"dropout_p: expected 0, since GPA drops out no weights, got {dropout_p}; set the attention dropout of "
                f"the model to 0"
            )
        query, key, value = _as_in_autocast(query, key, value)
        enable_gqa = self.gpa.enable_gqa or enable_gqa
        check_structured({"q": query, "k": key, "v": value}, enable_gqa)
        check_choices(scale, self.gpa.affinity, self.gpa.backend)
        scale = self.gpa.scale if scale is None else scale
        row = None if attn_mask is None else row_of_mask(attn_mask, query, key)
        key_mask, key_bias = (None, None) if row is None else mask_and_bias_of(row, key)
        queries, keys = self._divided(query, key, grid)
        self._check_causal(is_causal, queries.grid)
        out = self.gpa.by_layout(
            queries.on_grid(query),
            key,
            value,
            self._layout(queries, keys, query.device),
            key_mask=key_mask,
            key_bias=key_bias,
            scale=scale,
            enable_gqa=enable_gqa,
        )
        if out.shape[2] == query.shape[2]:
            return out
        with own_precision(query):
            everywhere = queries.beside_grid(query)
            seen = F.scaled_dot_product_attention(everywhere, key, value, row, scale=scale, enable_gqa=enable_gqa)
        return torch.cat([seen[:, :, : queries.leading], out, seen[:, :, queries.leading :]], dim=2)

    def layout(
        self, query: Float[Tensor, "b h n_q c"], key: Float[Tensor, "b h_k n_k c"], *, grid: Grid | None = None
    ) -> Layout:
        """The layout by which these tokens attend: its queries are those :meth:`on_grid`, its keys are all.

        Args:
            query: (B, H, n_q, c).
            key: (B, H_k, n_k, c).
            grid: that of this call, in place of the module's.

        Raises:
            ValueError: tokens that are not those of the grid.
        """
        return self._layout(*self._divided(query, key, grid), query.device)

    def on_grid(self, query: Float[Tensor, "b h n_q c"], *, grid: Grid | None = None) -> Float[Tensor, "b h n c"]:
        """The queries without the global ones.

        Args:
            query: (B, H, n_q, c).
            grid: that of this call, in place of the module's.

        Raises:
            ValueError: tokens that are not those of the grid.
        """
        return self._divide("query", query, self.grid if grid is None else grid).on_grid(query)

    def _layout(self, queries: Divided, keys: Divided, device: torch.device) -> Layout:
        return self.gpa.layout(queries.grid, keys.grid, device, global_keys=(keys.leading, keys.trailing))

    def _divided(self, query: Tensor, key: Tensor, grid: Grid | None) -> tuple[Divided, Divided]:
        """Where the queries and the keys stand."""
        queries = self._divide("query", query, self.grid if grid is None else grid)
        _check_sequence("key", key)
        if self.key_grid is None and key.shape[2] != query.shape[2]:
            raise ValueError(
                f"key: expected {query.shape[2]} tokens as query has, got {key.shape[2]} in {tuple(key.shape)}; tokens "
                f"of another grid, as in cross-attention, need key_grid or the model's own attention, and a cache of "
                f"keys use_cache=False"
            )
        return queries, queries if self.key_grid is None else self._divide("key", key, self.key_grid)

    def _divide(self, name: str, x: Tensor, grid: Grid | Callable[[int], Grid] | None) -> Divided:
        _check_sequence(name, x)
        n, numbers = index(x.shape[2]), [tokens for tokens in (self.leading, self.trailing) if tokens != "rest"]
        beside = sum(numbers)
        if grid is None:
            raise ValueError("grid: expected that of this call, since the module was made without one, got None")
        expected = "a tuple of ints"
        if callable(grid):
            grid, expected = grid(max(0, n - beside)), "a function that returns a tuple of ints"
        _check_grid("grid", grid, expected)
        _check_axes("key_grid" if name == "key" else "grid", grid, self.gpa)
        rest = n - prod(grid) - beside
        if rest < 0 or (rest and len(numbers) == 2):
            more = " or more" if len(numbers) < 2 else ""
            of = f" and {beside} global ones" if beside else ""
            swapped = (
                "; its heads stand after its tokens: x.transpose(1, 2)" if x.shape[1] == prod(grid) + beside else ""
            )
            raise ValueError(
                f"{name}: expected {prod(grid) + beside}{more} tokens, those of the grid {grid}{of}, got {n} in "
                f"{tuple(x.shape)}{swapped}"
            )
        leading, trailing = (rest if tokens == "rest" else tokens for tokens in (self.leading, self.trailing))
        return Divided(grid, leading, trailing)

    def _check_causal(self, is_causal: bool, grid: Grid) -> None:
        """The call and the GPA agree, as far as a call can tell."""
        if is_causal and len(grid) > 1:
            raise ValueError(
                f"is_causal: expected False on the grid {grid}, whose GPA says along which axes it is causal, got True"
            )
        if len(grid) == 1 and is_causal != _is_causal(self.gpa):
            raise ValueError(f"is_causal: expected {not is_causal} as the GPA was made, got {is_causal}")

    def extra_repr(self) -> str:
        """What the module was made with."""
        more = "" if self.key_grid is None else f", key_grid={self.key_grid}"
        return f"grid={self.grid}{more}, leading={self.leading!r}, trailing={self.trailing!r}"


def _check_grid(name: str, grid: object, expected: str) -> None:
    """A shape of at least one axis; without tokens it may have an axis of none."""
    if not isinstance(grid, tuple) or not all(isinstance(n, int) and not isinstance(n, bool) for n in grid):
        raise TypeError(f"{name}: expected {expected}, got {grid!r}")
    if not grid or min(grid) < 0:
        raise ValueError(f"{name}: expected {expected}, one at least and none of them negative, got {grid}")


def _check_axes(name: str, grid: Grid, gpa: GPA) -> None:
    """As many axes as the operators of the GPA are for."""
    given = (gpa.key_downsampler,) if name == "key_grid" else (gpa.partitioner, gpa.downsampler)
    for operator in given:
        axes = axes_of(operator[0] if isinstance(operator, tuple) else operator)
        if axes not in (None, len(grid)):
            raise ValueError(f"{name}: expected {axes} axes, as {operator} of the GPA has, got {grid}")


def _check_sequence(name: str, x: Tensor) -> None:
    """Tokens one after another along one axis."""
    check_tensor(name, x)
    if x.ndim != 4:
        more = "; tokens that lie on axes of their own go to the GPA itself, or x.flatten(2, -2)" if x.ndim > 4 else ""
        raise ValueError(f"{name}: expected shape (batch, heads, tokens, channels), got {tuple(x.shape)}{more}")


def _is_causal(gpa: GPA) -> bool:
    return any(gpa.causal) if isinstance(gpa.causal, tuple) else gpa.causal


def _as_in_autocast(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Under autocast in its dtype, but for float64, as PyTorch casts what it attends with."""
    kind = tensors[0].device.type
    if not torch.amp.is_autocast_available(kind) or not torch.is_autocast_enabled(kind):
        return tensors
    dtype = torch.get_autocast_dtype(kind)
    return tuple(x.to(dtype) if x.is_floating_point() and x.dtype != torch.float64 else x for x in tensors)
