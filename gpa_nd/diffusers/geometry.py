"""On which grid the tokens of a model lie, as its inputs tell it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from gpa_nd.nn.tokens import Grid, Tokens


@dataclass(frozen=True)
class Geometry:
    """The grid of the tokens in a module, and where text stands beside them.

    Attributes:
        grid: from the module and what it is called with, ``(module, args, kwargs)``, to the shape of the grid.
        leading: tokens before those of the grid in every sequence; ``"rest"`` for all that it does not hold.
        trailing: tokens after them, likewise.
    """

    grid: Callable[[nn.Module, tuple[Any, ...], dict[str, Any]], Grid]
    leading: Tokens = 0
    trailing: Tokens = 0


def image_grid(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Grid:
    """Of a latent (B, C, height, width), in patches where the module makes some."""
    latent, patch = _latent(args, kwargs), module.config.patch_size or 1
    if latent.ndim != 4:
        raise ValueError(
            f"hidden_states: expected a latent (batch, channels, height, width), got {tuple(latent.shape)}"
        )
    return latent.shape[2] // patch, latent.shape[3] // patch


def wan_grid(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Grid:
    """Of a latent (B, C, frames, height, width)."""
    sizes = _latent(args, kwargs).shape[2:]
    return tuple(size // patch for size, patch in zip(sizes, module.config.patch_size, strict=True))


def cogvideox_grid(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Grid:
    """Of a latent (B, frames, C, height, width)."""
    _, frames, _, height, width = _latent(args, kwargs).shape
    patch, patch_of_frames = module.config.patch_size, module.config.patch_size_t or 1
    return frames // patch_of_frames, height // patch, width // patch


def flux_grid(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Grid:
    """Of tokens (B, n, C), whose rows and columns stand in ``img_ids`` (n, 3); a GPU is waited for."""
    ids = kwargs["img_ids"] if "img_ids" in kwargs else args[4]
    places = ids.reshape(-1, ids.shape[-1])[: ids.shape[-2], 1:]
    rows, columns = (places.amax(0) - places.amin(0)).long().add(1).tolist()
    if rows * columns != len(places):
        raise ValueError(
            f"img_ids: expected those of one image, got {len(places)} in {rows} rows and {columns} columns; a "
            f"sequence of several images needs a geometry of your own"
        )
    return rows, columns


GEOMETRIES = {
    "CogVideoXTransformer3DModel": Geometry(cogvideox_grid, leading="rest"),
    "DiTTransformer2DModel": Geometry(image_grid),
    "FluxTransformer2DModel": Geometry(flux_grid, leading="rest"),
    "PixArtTransformer2DModel": Geometry(image_grid),
    "SD3Transformer2DModel": Geometry(image_grid, trailing="rest"),
    "Transformer2DModel": Geometry(image_grid),  # of which UNets have one or more at each resolution
    "WanTransformer3DModel": Geometry(wan_grid),
}
"""By the names of classes, so that nothing has to be imported."""


def geometry_of(module: nn.Module) -> Geometry | None:
    """What is known of a class, or of one that it inherits from."""
    return next((GEOMETRIES[cls.__name__] for cls in type(module).__mro__ if cls.__name__ in GEOMETRIES), None)


def _latent(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    latent: Tensor = args[0] if args else kwargs["hidden_states"]
    return latent
