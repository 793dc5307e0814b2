"""token_attention: where the tokens of a model lie, as its configuration tells it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gpa_nd.checks import check_int
from gpa_nd.nn.gpa import GPA
from gpa_nd.nn.tokens import Grid, TokenAttention

Size = int | tuple[int, ...]


def token_attention(config: Any, gpa: GPA, *, image_size: tuple[int, int] | None = None) -> TokenAttention:
    """GPA for the tokens of a model: its grid, and as many class, distillation and register tokens as it has.

    - Images: ViT, DeiT, DINOv2 (with registers), DINOv3, CLIP and SigLIP.
    - Video, with a GPA of three axes: VideoMAE, ViViT.
    - Sound: spectrogram transformers (AST) on a grid of frequency and time; wav2vec 2, HuBERT and Whisper's encoder
      on sequences of any length.

    For another model make a :class:`~gpa_nd.nn.TokenAttention` yourself.

    Args:
        config: of the model; of one with several, that of its images.
        gpa: the geometry, κ and everything else.
        image_size: height and width in pixels where they are not those of the configuration, as with
            ``interpolate_pos_encoding=True``.

    Raises:
        TypeError: ``gpa`` is no GPA, or a size that is no tuple of ints.
        ValueError: a model that is not in this list, a size for one without images, or one that is not a height and a
            width of at least 1.

    Example:
        >>> from transformers import Dinov2WithRegistersConfig
        >>> import gpa_nd
        >>> config = Dinov2WithRegistersConfig(image_size=224, patch_size=14, num_register_tokens=4)
        >>> attention = token_attention(config, gpa_nd.image(downsample=2, cells=4, kappa=8))
        >>> attention.grid, attention.leading
        ((16, 16), 5)
        >>> token_attention(config, attention.gpa, image_size=(448, 280)).grid
        (32, 20)
    """
    config = getattr(config, "vision_config", config)
    kind = getattr(config, "model_type", type(config).__name__)
    if kind not in LEADING and kind not in SEQUENCES:
        raise ValueError(
            f"config: expected that of {', '.join([*LEADING, *SEQUENCES])}, got {kind}; for another model make a "
            f"gpa_nd.nn.TokenAttention with its grid, which for text is lambda n: (n,)"
        )
    if image_size is not None:
        _check_image_size(image_size, kind)
    if kind in SEQUENCES:
        return TokenAttention(gpa, sequence_grid)
    grid = spectrogram_grid(config) if kind == SPECTROGRAM else patch_grid(config, image_size)
    return TokenAttention(gpa, grid, leading=LEADING[kind](config))


def patch_grid(config: Any, image_size: tuple[int, int] | None) -> Grid:
    """Patches of an image, or tubes of a video."""
    image = _axes(config.image_size if image_size is None else image_size)
    tube = getattr(config, "tubelet_size", None)
    patch = _axes(config.patch_size) if not isinstance(tube, list | tuple) else tuple(tube[1:])
    grid = tuple(size // step for size, step in zip(image, patch, strict=True))
    if tube is None:
        return grid
    return (config.num_frames // (tube if isinstance(tube, int) else tube[0]), *grid)


def spectrogram_grid(config: Any) -> Grid:
    """Overlapping patches along frequency and time."""
    bands = (config.num_mel_bins - config.patch_size) // config.frequency_stride + 1
    return bands, (config.max_length - config.patch_size) // config.time_stride + 1


def sequence_grid(n: int) -> Grid:
    """A grid of one axis."""
    return (n,)


SEQUENCES = ("hubert", "wav2vec2", "whisper")

SPECTROGRAM = "audio-spectrogram-transformer"

LEADING: dict[str, Callable[[Any], int]] = {
    SPECTROGRAM: lambda config: 2,
    "clip_vision_model": lambda config: 1,
    "deit": lambda config: 2,
    "dinov2": lambda config: 1,
    "dinov2_with_registers": lambda config: 1 + config.num_register_tokens,
    "dinov3_vit": lambda config: 1 + config.num_register_tokens,
    "siglip_vision_model": lambda config: 0,
    "videomae": lambda config: 0,
    "vit": lambda config: 1,
    "vivit": lambda config: 1,
}
"""How many tokens stand before those of the grid, by the type of the model."""


def _check_image_size(image_size: object, kind: str) -> None:
    """Height and width, of a model of images."""
    if kind in SEQUENCES or kind == SPECTROGRAM:
        raise ValueError(f"image_size: expected None for {kind}, which has no images, got {image_size}")
    if not isinstance(image_size, tuple | list):
        raise TypeError(f"image_size: expected a tuple of height and width, got {image_size!r}")
    if len(image_size) != 2:
        raise ValueError(f"image_size: expected height and width, got {image_size}")
    for size in image_size:
        check_int("image_size", size, at_least=1)


def _axes(size: Size | list[int]) -> tuple[int, ...]:
    return (size, size) if isinstance(size, int) else tuple(size)
