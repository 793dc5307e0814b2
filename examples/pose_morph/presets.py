"""Presets: a model's levels and its training settings, as tables."""

from dataclasses import dataclass
from typing import Literal

AttentionName = Literal["gpa", "full", "no"]


@dataclass(frozen=True)
class Level:
    """One level of both UNets.

    Attributes:
        channels: Channels of the decoder blocks (Tables 2 and 4).
        encoder_channels: Channels of the encoder and discriminator blocks (Table 3).
        downsample: GPA's factor d; None is full attention.
        cells: GPA's cells per axis, m in the product.
        kappa: GPA's key sets per cell.
    """

    channels: int
    encoder_channels: int
    downsample: int | None = None
    cells: tuple[int, int] | None = None
    kappa: int | None = None


@dataclass(frozen=True)
class ModelSettings:
    """What the generator and the discriminator are built from.

    Attributes:
        size: Height and width of the pictures.
        levels: Largest first; each is half as high and wide as the one before.
        attention: "gpa" as the levels say; "full" everywhere; "no" leaves out the levels that would use GPA, as the
            paper's NO does.
        discriminator_channels: Largest level first; None means the encoder's.
        key_channels: Learned channels of queries and keys; None means the level's channels.
        limb_coordinates: Join limb coordinates to queries and keys (ours).
        copy_pixels: Join the source's pixels to the values and let the picture take them (ours).
        sharpness: First 1/temperature of cosine attention (ours); 0 means plain dot products over sqrt(c).
    """

    size: tuple[int, int]
    levels: tuple[Level, ...]
    attention: AttentionName = "gpa"
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


@dataclass(frozen=True)
class TrainingSettings:
    """How a preset is trained. The paper gives Adam, the batch sizes and tau; the other numbers are ours.

    Attributes:
        steps: Generator updates of a full run; the learning rates fall to zero over the last third.
        batch_size: Pairs per update.
        learning_rate: Adam's, for the generator.
        discriminator_learning_rate: Adam's, for the discriminator, before StyleGAN2's factor for lazy R1 (16 / 17).
        betas: Adam's, for both.
        perceptual_weight: Weight of the feature distance in L_per and L_self.
        pixel_weight: Weight of the pixels' L1 beside it.
        gan_weight: Weight of the generator's L_GAN.
        gan_start: Step from which the discriminator takes part.
        r1_gamma: Weight of R1; with r1_every the lazy regularisation of StyleGAN2.
        r1_every: Discriminator updates from one R1 to the next.
        self_every: Every so many steps the batch is (M, tau(M)) for L_self instead of a pair; 0 means never.
        tau: Strength of the affine maps.
        mirrored: Whether pairs are mirrored half of the time.
        ema_decay: What the averaged generator keeps of itself in each step.
        log_every: Steps from one line of the log to the next.
        sample_every: Steps from one sample grid to the next.
        checkpoint_every: Steps from one checkpoint to the next.
    """

    steps: int
    batch_size: int
    learning_rate: float = 0.002
    discriminator_learning_rate: float = 0.002
    betas: tuple[float, float] = (0.0, 0.99)
    perceptual_weight: float = 1.0
    pixel_weight: float = 0.0
    gan_weight: float = 1.0
    gan_start: int = 0
    r1_gamma: float = 4.37
    r1_every: int = 16
    self_every: int = 2
    tau: float = 0.15
    mirrored: bool = True
    ema_decay: float = 0.999
    log_every: int = 50
    sample_every: int = 2000
    checkpoint_every: int = 2000


@dataclass(frozen=True)
class Preset:
    """A model and how to train it."""

    model: ModelSettings
    training: TrainingSettings


DEMO = Preset(
    ModelSettings(
        size=(128, 80),
        levels=(
            Level(16, 16, downsample=4, cells=(32, 20), kappa=4),
            Level(32, 32, downsample=2, cells=(32, 20), kappa=4),
            Level(64, 64),
            Level(96, 96),
            Level(128, 128),
        ),
        discriminator_channels=(16, 32, 48, 64, 96),
        key_channels=9,
        limb_coordinates=True,
        copy_pixels=True,
        sharpness=80.0,
    ),
    TrainingSettings(
        steps=1300,
        batch_size=4,
        learning_rate=0.005,
        discriminator_learning_rate=0.003,
        betas=(0.5, 0.99),
        pixel_weight=2.0,
        gan_weight=0.02,
        gan_start=300,
        r1_gamma=0.1,
        ema_decay=0.99,
        log_every=10,
        sample_every=100,
        checkpoint_every=200,
    ),
)
"""Pictures that a laptop learns in minutes; every number is ours."""

_full = (Level(640, 640), Level(640, 640), Level(640, 640), Level(640, 640))

DEEPFASHION256 = Preset(
    ModelSettings(
        size=(256, 256),
        levels=(
            Level(160, 160, downsample=4, cells=(32, 32), kappa=12),
            Level(320, 320, downsample=2, cells=(32, 32), kappa=12),
            *_full,
        ),
    ),
    TrainingSettings(steps=800_000, batch_size=3),
)
"""Tables 2 and 3: GPA1024_12_64, the paper's pivot."""

CHALEARN512 = Preset(
    ModelSettings(
        size=(512, 256),
        levels=(
            Level(128, 128, downsample=8, cells=(64, 32), kappa=4),
            Level(256, 256, downsample=4, cells=(64, 32), kappa=4),
            Level(512, 512, downsample=2, cells=(64, 32), kappa=4),
            Level(768, 768),
            Level(768, 768),
            Level(768, 768),
        ),
    ),
    TrainingSettings(steps=800_000, batch_size=2, r1_gamma=13.1),
)
"""Table 4: 512x256, m = 2048 cells of one coarse pixel."""

PRESETS = {"demo": DEMO, "deepfashion256": DEEPFASHION256, "chalearn512": CHALEARN512}
PresetName = Literal["demo", "deepfashion256", "chalearn512"]
