"""Adam for both networks, and its learning rates: constant, then a straight line to zero."""

from torch import nn
from torch.optim import Adam

from examples.pose_morph.presets import TrainingSettings


def make_optimizers(generator: nn.Module, discriminator: nn.Module, settings: TrainingSettings) -> tuple[Adam, Adam]:
    """Return the optimisers of the generator and of the discriminator."""
    lazy = _lazy_factor(settings)
    betas = (settings.betas[0] ** lazy, settings.betas[1] ** lazy)
    return (
        Adam(generator.parameters(), lr=settings.learning_rate, betas=settings.betas),
        Adam(discriminator.parameters(), lr=settings.discriminator_learning_rate * lazy, betas=betas),
    )


def set_learning_rates(optimizers: tuple[Adam, Adam], step: int, settings: TrainingSettings) -> dict[str, float]:
    """Set the rates of a step, and return them by the networks' names."""
    factor = decay(step, settings.steps)
    rates = (
        settings.learning_rate * factor,
        settings.discriminator_learning_rate * _lazy_factor(settings) * factor,
    )
    for optimizer, rate in zip(optimizers, rates, strict=True):
        for group in optimizer.param_groups:
            group["lr"] = rate
    return dict(zip(("generator", "discriminator"), rates, strict=True))


def decay(step: int, steps: int) -> float:
    """Return the factor of the learning rates: one, and a straight line to zero over the last third."""
    return min(1.0, 3 * (1 - step / steps))


def _lazy_factor(settings: TrainingSettings) -> float:
    """StyleGAN2's scaling of Adam for lazy R1 (its appendix B); here R1 is added to the loss of its step."""
    return settings.r1_every / (settings.r1_every + 1)
