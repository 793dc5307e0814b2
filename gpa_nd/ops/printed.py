"""How an operator prints: its class, and what it was made with."""

from __future__ import annotations

from functools import cached_property
from reprlib import recursive_repr

MOST = 80
"""Characters of one attribute."""


@recursive_repr()
def printed(operator: object) -> str:
    """The public attributes of an operator: of tensors and arrays the shape alone, and nothing that is kept for later.

    Example:
        >>> import torch
        >>> from gpa_nd.ops import Downsampler
        >>> class Hexagons(Downsampler):
        ...     def __init__(self):
        ...         self.radius, self.places, self._made = 2, torch.zeros(500, 2), {}
        ...     def groups(self, shape):
        ...         ...
        >>> Hexagons()
        Hexagons(radius=2, places=Tensor of shape (500, 2))
    """
    kind = type(operator)
    given = {
        name: _short(value)
        for name, value in vars(operator).items()
        if not name.startswith("_") and not isinstance(getattr(kind, name, None), cached_property)
    }
    return f"{kind.__name__}({', '.join(f'{name}={value}' for name, value in given.items())})"


def _short(value: object) -> str:
    if isinstance(shape := getattr(value, "shape", None), tuple):
        return f"{type(value).__name__} of shape {tuple(shape)}"
    text = " ".join(repr(value).split())
    return text if len(text) <= MOST else f"{text[: MOST - 1]}…"
