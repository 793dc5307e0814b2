"""Other functions in the places of the fused backend's own, to time its launches and to try configurations."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def in_place_of(replacements: dict[Any, Any]) -> Iterator[None]:
    """Put other functions where modules of the fused backend name these."""
    places = [
        (module, attribute, value)
        for name, module in list(sys.modules.items())
        if name.startswith("gpa_nd.engine.fused")
        for attribute, value in list(vars(module).items())
        if callable(value) and getattr(value, "__hash__", None) and value in replacements
    ]
    for module, attribute, value in places:
        setattr(module, attribute, replacements[value])
    try:
        yield
    finally:
        for module, attribute, value in places:
            setattr(module, attribute, value)
