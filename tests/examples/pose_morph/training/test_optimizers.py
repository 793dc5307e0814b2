"""Adam's numbers and the course of the learning rates."""

import pytest
from torch import nn

from examples.pose_morph.presets import TrainingSettings
from examples.pose_morph.training.optimizers import decay, make_optimizers, set_learning_rates


def test_learning_rates_fall_to_zero_over_the_last_third():
    assert [decay(step, 300) for step in (0, 200, 250, 300)] == pytest.approx([1, 1, 0.5, 0])


def test_the_discriminators_adam_is_scaled_for_lazy_r1():
    """The anchors of the documentation: 0.002 and 0.001882, betas (0, 0.99)."""
    settings = TrainingSettings(steps=300, batch_size=3)
    optimizers = make_optimizers(nn.Linear(1, 1), nn.Linear(1, 1), settings)
    rates = set_learning_rates(optimizers, 0, settings)
    assert rates == pytest.approx({"generator": 0.002, "discriminator": 0.001882}, rel=1e-3)
    assert [optimizer.param_groups[0]["lr"] for optimizer in optimizers] == list(rates.values())
    assert optimizers[0].param_groups[0]["betas"] == (0.0, 0.99)
    assert optimizers[1].param_groups[0]["betas"] == pytest.approx((0.0, 0.99 ** (16 / 17)))
    halfway = set_learning_rates(optimizers, 250, settings)
    assert halfway["discriminator"] == pytest.approx(rates["discriminator"] / 2)
