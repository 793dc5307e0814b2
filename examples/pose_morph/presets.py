"""Presets: the levels of the models and how each is trained, as tables."""

from dataclasses import dataclass, replace
from typing import Literal

from examples.pose_morph.networks.settings import Full, Grid, Level, ModelSettings


@dataclass(frozen=True)
class TrainingSettings:
    """How a preset is trained. The paper gives Adam, the batch sizes and tau; the other numbers are ours.

    The defaults follow StyleGAN2 and its successors, as the pose transfer of Ren et al. (NTED, 2022) does.

    Attributes:
        steps: Generator updates of a full run; the learning rates fall to zero over the last third.
        batch_size: Pairs per update.
        learning_rate: Adam's, for the generator.
        discriminator_learning_rate: Adam's, for the discriminator, before StyleGAN2's factor for lazy R1 (16 / 17,
            so that 0.002 becomes 0.001882; the betas are raised to the same power).
        betas: Adam's, for both.
        perceptual_weight: Weight of the feature distance in L_per and L_self.
        pixel_weight: Weight of the pixels' L1 beside it.
        gan_weight: Weight of the generator's L_GAN.
        gan_start: Step from which the discriminator takes part.
        r1_gamma: Weight of R1; with r1_every the lazy regularisation of StyleGAN2. None is the rule of StyleGAN2-ADA,
            0.0002 times the picture's pixels over the batch size: 4.37 for three pictures of 256x256.
        r1_every: Discriminator updates from one R1 to the next.
        minibatch_group: Samples that the discriminator's minibatch standard deviation is taken over; None is the
            largest number up to 4 that divides what a process sees at once.
        self_every: 1 adds L_self to L_per and L_GAN in every step (Eq. 2). With a larger number they take turns: every
            so many steps the batch is (M, tau(M)) instead of a pair. 0 means never.
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
    r1_gamma: float | None = None
    r1_every: int = 16
    minibatch_group: int | None = None
    self_every: int = 1
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


# Channels of the decoders, channels of the encoders and the discriminator, attention; largest level first.

DEMO = Preset(
    ModelSettings(
        size=(128, 80),
        levels=(
            Level(16, 16, Grid(downsample=4, cells=(32, 20), kappa=4)),
            Level(32, 32, Grid(downsample=2, cells=(32, 20), kappa=4)),
            Level(64, 64, Full()),
            Level(96, 96, Full()),
            Level(128, 128, Full()),
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
        self_every=2,
        ema_decay=0.99,
        log_every=10,
        sample_every=100,
        checkpoint_every=200,
    ),
)
"""Pictures that a laptop learns in minutes; every number is ours."""

TINY = Preset(
    replace(
        DEMO.model,
        size=(64, 40),
        levels=(
            Level(12, 12, Grid(downsample=4, cells=(16, 10), kappa=4)),
            Level(24, 24, Grid(downsample=2, cells=(16, 10), kappa=4)),
            Level(48, 48, Full()),
            Level(64, 64, Full()),
        ),
        discriminator_channels=(12, 24, 32, 48),
    ),
    replace(DEMO.training, steps=400, gan_start=100, sample_every=100),
)
"""The demo at half its size: about a minute, for tests and quick tries."""

DEEPFASHION256 = Preset(
    ModelSettings(
        size=(256, 256),
        levels=(
            Level(160, 160, Grid(downsample=4, cells=(32, 32), kappa=12)),
            Level(320, 320, Grid(downsample=2, cells=(32, 32), kappa=12)),
            Level(640, 640, Full()),
            Level(640, 640, Full()),
            Level(640, 640, Full()),
            Level(640, 640, Full()),
        ),
    ),
    TrainingSettings(steps=800_000, batch_size=3),
)
"""Tables 2 and 3: GPA1024_12_64, the paper's pivot."""

HIGHRES512 = Preset(
    ModelSettings(
        size=(512, 256),
        levels=(
            Level(128, 128, Grid(downsample=8, cells=(64, 32), kappa=4)),
            Level(256, 256, Grid(downsample=4, cells=(64, 32), kappa=4)),
            Level(512, 512, Grid(downsample=2, cells=(64, 32), kappa=4)),
            Level(768, 768, Full()),
            Level(768, 768, Full()),
            Level(768, 768, Full()),
        ),
    ),
    TrainingSettings(steps=800_000, batch_size=2),
)
"""Table 4: GPA2048_4_64 on 512x256, cells of one coarse pixel; for ChaL and other large pictures."""

PRESETS = {"demo": DEMO, "tiny": TINY, "deepfashion256": DEEPFASHION256, "highres512": HIGHRES512}
PresetName = Literal["demo", "tiny", "deepfashion256", "highres512"]
