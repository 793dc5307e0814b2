"""An attention processor that does what the layer's own does, with GPA where that attends."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from functools import cache, partial, wraps
from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from gpa_nd.diffusers.geometry import Geometry
from gpa_nd.nn.gpa import GPA
from gpa_nd.nn.tokens import Grid, TokenAttention


class Latent:
    """The grid of the latent that a module was called with last; a forward pre-hook.

    Args:
        geometry: how the module tells it.
    """

    def __init__(self, geometry: Geometry) -> None:
        self.geometry = geometry
        self.grid: Grid | None = None

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Read the grid."""
        self.grid = self.geometry.grid(module, args, kwargs)


class Layer:
    """One attention layer that GPA was put into.

    Attributes:
        name: of the layer in its model.
        minimum_tokens: with fewer on the grid, a call attends as ever.
        attention: the :class:`~gpa_nd.nn.TokenAttention` that it attends with, where hooks see queries and keys. It has
            no grid of its own: each call brings one.
        grid: of its tokens in the last call; None before the first one.
        partitioned: whether that call attended with GPA; False where the grid had too few tokens.
    """

    def __init__(self, name: str, gpa: GPA, minimum_tokens: int, latent: Latent | None) -> None:
        geometry = None if latent is None else latent.geometry
        leading, trailing = (0, 0) if geometry is None else (geometry.leading, geometry.trailing)
        self.name, self.minimum_tokens, self._latent = name, minimum_tokens, latent
        self.attention = TokenAttention(gpa, None, leading=leading, trailing=trailing)
        self.grid: Grid | None = None
        self.partitioned = False

    def __repr__(self) -> str:
        if self.grid is None:
            return f"{self.name}: not called yet"
        by = "GPA" if self.partitioned else f"its own attention, below {self.minimum_tokens} tokens"
        return f"{self.name}: {' × '.join(map(str, self.grid))}, {by}"

    def through(self, own: Callable[[], Any], hidden_states: Tensor) -> Any:
        """What the layer's own processor makes of its input, with GPA if there are enough tokens.

        Args:
            own: calls that processor.
            hidden_states: (B, C, height, width), or (B, n, C) tokens, whose grid the module around the layer tells.

        Raises:
            RuntimeError: tokens without such a module, or a processor that does not call
                ``scaled_dot_product_attention`` once.
            ValueError: as :class:`~gpa_nd.nn.TokenAttention`, with the name of the layer.
        """
        self.grid = grid = tuple(hidden_states.shape[2:]) if hidden_states.ndim == 4 else self._latent_grid()
        self.partitioned = prod(grid) >= self.minimum_tokens
        if not self.partitioned:
            return own()
        with _InPlaceOfSDPA(partial(self._attend, grid)) as replaced:
            out = own()
        if replaced.calls != 1:
            raise RuntimeError(
                f"{self.name}: expected its processor to call scaled_dot_product_attention once, got {replaced.calls} "
                f"calls; GPA needs one that does, such as AttnProcessor2_0, and diffusers' native attention backend"
            )
        return out

    def _latent_grid(self) -> Grid:
        if self._latent is None or self._latent.grid is None:
            raise RuntimeError(
                f"{self.name}: expected a latent (batch, channels, height, width), or a call through the module that "
                f"GPA was installed in, which knows the grid; got tokens alone"
            )
        return self._latent.grid

    def _attend(self, grid: Grid, *args: Any, **kwargs: Any) -> Tensor:
        try:
            out: Tensor = self.attention(*args, **kwargs, grid=grid)
        except ValueError as error:
            raise ValueError(f"{self.name}, on a grid of {grid}: {error}") from error
        return out


class _InPlaceOfSDPA(TorchFunctionMode):
    """Within this context ``scaled_dot_product_attention`` is another function, whose calls are counted."""

    def __init__(self, attend: Callable[..., Tensor]) -> None:
        super().__init__()
        self.attend, self.calls = attend, 0

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is F.scaled_dot_product_attention:
            self.calls += 1
            return self.attend(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def with_gpa(processor: Any, layer: Layer) -> Any:
    """A processor like this one, of a class that inherits from its class, whose calls go through the layer."""
    made, own = copy(processor), processor.__class__
    made.__class__ = _with_gpa(own)
    made.gpa_layer = layer
    return made


@cache
def _with_gpa(own: Any) -> Any:
    # diffusers looks at the class of a processor, and at the arguments that it can take.
    @wraps(own.__call__)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        hidden_states = args[1] if len(args) > 1 else kwargs["hidden_states"]
        return self.gpa_layer.through(lambda: own.__call__(self, *args, **kwargs), hidden_states)

    # Not compiled, since a compiler that loses its thread within a function mode goes on with wrong tensors.
    members = {"__call__": torch.compiler.disable(call), "__module__": __name__}
    return type(f"GPA{own.__name__}", (own,), members)
