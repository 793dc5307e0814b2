"""What the networks are built from: sizes, channels, and the attention of every level, as plain data."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Full:
    """Dense attention: every query attends to every key."""


@dataclass(frozen=True)
class Grid:
    """GPA on a grid.

    Attributes:
        downsample: The factor d from the level to Phase 1.
        cells: Cells per axis; m is their product.
        kappa: Relevant coarse keys of each cell.
    """

    downsample: int
    cells: tuple[int, int]
    kappa: int


@dataclass(frozen=True)
class Nystromformer:
    """Nyströmformer's attention (Xiong et al., 2021).

    Attributes:
        rank: Landmarks, as many as fit evenly into the level's pixels from this number down.
    """

    rank: int


@dataclass(frozen=True)
class Performer:
    """Performer's attention, FAVOR+ (Choromanski et al., 2020).

    Attributes:
        rank: Random features.
    """

    rank: int


Attention = Full | Grid | Nystromformer | Performer | None
"""How a level's target decoder reads from the source decoder; None is not at all."""


@dataclass(frozen=True)
class Level:
    """One level of both UNets.

    Attributes:
        channels: Channels of the decoder blocks (Tables 2 and 4).
        encoder_channels: Channels of the encoder and discriminator blocks (Table 3).
        attention: What copies from the source decoder to the target decoder.
    """

    channels: int
    encoder_channels: int
    attention: Attention


@dataclass(frozen=True)
class ModelSettings:
    """What the generator and the discriminator are built from.

    Attributes:
        size: Height and width of the pictures.
        levels: Largest first; each is half as high and wide as the one before.
        discriminator_channels: Largest level first; None means the encoder's.
        key_channels: Learned channels of queries and keys; None means the level's channels.
        limb_coordinates: Join limb coordinates to queries and keys (ours).
        copy_pixels: Join the source's pixels to the values and let the picture take them (ours).
        sharpness: First 1/temperature of cosine attention (ours); 0 means plain dot products over sqrt(c).
    """

    size: tuple[int, int]
    levels: tuple[Level, ...]
    discriminator_channels: tuple[int, ...] | None = None
    key_channels: int | None = None
    limb_coordinates: bool = False
    copy_pixels: bool = False
    sharpness: float = 0.0

    def __post_init__(self) -> None:
        """Check that the picture halves evenly from level to level."""
        block = 2 ** (len(self.levels) - 1)
        if any(side < block or side % block for side in self.size):
            raise ValueError(f"size: expected multiples of {block} for {len(self.levels)} levels, got {self.size}")

    @property
    def sizes(self) -> tuple[tuple[int, int], ...]:
        """Height and width of every level, largest first."""
        height, width = self.size
        return tuple((height >> depth, width >> depth) for depth in range(len(self.levels)))
