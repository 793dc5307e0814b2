"""install: GPA into the self-attention of a model, and out of it again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from torch import nn

from gpa_nd.checks import check_int
from gpa_nd.diffusers.geometry import GEOMETRIES, Geometry, geometry_of
from gpa_nd.diffusers.processor import Latent, Layer, with_gpa
from gpa_nd.nn.gpa import GPA


def install(
    model: nn.Module,
    gpa: GPA,
    *,
    minimum_tokens: int,
    geometry: Geometry | None = None,
    layers: Callable[[str], bool] | None = None,
) -> Installed:
    """Put GPA into the self-attention of a diffusers model, layer by layer, until it is removed.

    Each layer gets an attention processor that runs the layer's own one (projections, norms, rotary embeddings and
    text of whatever kind) and attends with GPA where that calls ``scaled_dot_product_attention``. Weights, state dict
    and cross-attention stay as they are. Height and width are those of the latent at every call; with gradient
    checkpointing, go backward through a call before the next one of another shape.

    - UNets (``UNet2DConditionModel``, ``UNet2DModel``) and VAEs: the self-attention of every resolution.
    - ``DiTTransformer2DModel``, ``PixArtTransformer2DModel``: all self-attention.
    - ``SD3Transformer2DModel``, ``FluxTransformer2DModel``: joint attention, where text sees all and is seen by all.
    - ``WanTransformer3DModel``, ``CogVideoXTransformer3DModel``: attention over frames, height and width, for which
      the GPA has three axes.

    Args:
        model: a model of diffusers, not a pipeline: ``pipeline.unet`` or ``pipeline.transformer``.
        gpa: the geometry, κ and everything else, for all layers.
        minimum_tokens: calls with fewer tokens on the grid attend as ever; :attr:`Installed.layers` tells which did.
        geometry: that of a model which is not in this list.
        layers: whether a layer is meant, by its name; all self-attention by default. Those that have GPA keep theirs.

    Raises:
        TypeError: an argument of another type.
        ValueError: a negative number, a GPA that cannot stand in these layers (:class:`~gpa_nd.nn.TokenAttention` says
            which), no self-attention whose grid is known and that has no GPA yet, or ``layers`` that is true for none.
            The model is then as it was.

    Example:
        >>> import torch
        >>> from diffusers import DiTTransformer2DModel
        >>> import gpa_nd
        >>> from gpa_nd.diffusers import install
        >>> dit = DiTTransformer2DModel(2, 8, in_channels=4, num_layers=1, sample_size=16)
        >>> installed = install(dit, gpa_nd.image(downsample=2, cells=2, kappa=3), minimum_tokens=32)
        >>> latent, step, label = torch.randn(1, 4, 16, 16), torch.tensor([3]), torch.tensor([7])
        >>> dit(latent, step, label).sample.shape
        torch.Size([1, 4, 16, 16])
        >>> installed
        transformer_blocks.0.attn1: 8 × 8, GPA
        >>> installed.remove()
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model: expected a model of diffusers, such as pipeline.unet, got {type(model).__name__}")
    if not isinstance(gpa, GPA):
        raise TypeError(f"gpa: expected a GPA, got {type(gpa).__name__}")
    if geometry is not None and not isinstance(geometry, Geometry):
        raise TypeError(f"geometry: expected a Geometry, got {type(geometry).__name__}")
    check_int("minimum_tokens", minimum_tokens, at_least=0)
    free = dict(_self_attention(model, geometry))
    if not free:
        raise ValueError(
            f"model: expected self-attention that has no GPA yet, on latents or in one of {', '.join(GEOMETRIES)}, got "
            f"none in {type(model).__name__}; for another model give its geometry"
        )
    found = {name: owner for name, owner in free.items() if layers is None or layers(name)}
    if not found:
        raise ValueError(f"layers: expected some of the names {', '.join(free)}, got a function that is true for none")
    return Installed(model, gpa, minimum_tokens, geometry, found)


class Installed:
    """What :func:`install` did; as a context, ``with install(…):``, it is undone at the end.

    Attributes:
        layers: each layer by its name, with the grid of its last call and whether that attended with GPA.
    """

    def __init__(
        self, model: nn.Module, gpa: GPA, minimum_tokens: int, geometry: Geometry | None, found: dict[str, str | None]
    ) -> None:
        latents: dict[str, Latent] = {}
        for owner in dict.fromkeys(found.values()):
            if owner is not None:
                known = geometry or geometry_of(model.get_submodule(owner))
                assert known is not None
                latents[owner] = Latent(known)
        self._model = model
        self._own: dict[str, Any] = {name: model.get_submodule(name).processor for name in found}
        self.layers: dict[str, Layer] = {
            name: Layer(name, gpa, minimum_tokens, None if around is None else latents[around])
            for name, around in found.items()
        }
        with_them = {name: with_gpa(self._own[name], layer) for name, layer in self.layers.items()}
        # Whatever is refused was refused by now, with the model as it was.
        self._hooks: list[Any] = [
            model.get_submodule(owner).register_forward_pre_hook(latent, with_kwargs=True)
            for owner, latent in latents.items()
        ]
        for name, processor in with_them.items():
            attention: Any = model.get_submodule(name)
            attention.set_processor(processor)

    def __repr__(self) -> str:
        return "\n".join(map(str, self.layers.values()))

    def remove(self) -> None:
        """Give every layer its own processor back, unless it was given another one since."""
        for hook in self._hooks:
            hook.remove()
        for name, layer in self.layers.items():
            attention: Any = self._model.get_submodule(name)
            if getattr(attention.processor, "gpa_layer", None) is layer:
                attention.set_processor(self._own[name])

    def __enter__(self) -> Installed:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()


def _self_attention(model: nn.Module, geometry: Geometry | None) -> Iterator[tuple[str, str | None]]:
    """Names of layers without GPA, and of the innermost module around each that knows the grid.

    No such module is needed where the layer itself is called with a latent: those have a norm over the image's groups.
    """
    owners = [name for name, module in model.named_modules() if geometry_of(module) is not None]
    if geometry is not None:
        owners = [""]
    for name, module in model.named_modules():
        processor = getattr(module, "processor", None)
        if processor is None or not hasattr(module, "set_processor") or hasattr(processor, "gpa_layer"):
            continue
        if getattr(module, "is_cross_attention", False):
            continue
        around = [owner for owner in owners if not owner or name.startswith(f"{owner}.")]
        of_latents = (
            getattr(module, "group_norm", None) is not None or getattr(module, "spatial_norm", None) is not None
        )
        if around or of_latents:
            yield name, max(around, key=len) if around else None
