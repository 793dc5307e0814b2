"""Which terms of the loss a step has."""

from typing import NamedTuple

from examples.pose_morph.presets import TrainingSettings


class Terms(NamedTuple):
    """L_per on pairs, L_self on pictures and their tau, and L_GAN on the pictures of pairs."""

    per: bool
    self_: bool
    gan: bool


def terms_of(step: int, settings: TrainingSettings, *, paired: bool) -> Terms:
    """Return the terms of ``step``.

    With ``self_every`` 1 every step adds L_per, L_self and L_GAN (Eq. 2). With a larger number L_self takes turns with
    the other two. Unpaired data has L_self and L_GAN in every step (section 3.3), whatever ``self_every`` says.
    """
    every = settings.self_every if paired else 1
    on_self = every > 0 and step % every == every - 1
    on_pairs = every == 1 or not on_self
    return Terms(
        per=paired and on_pairs, self_=on_self, gan=on_pairs and settings.gan_weight > 0 and step >= settings.gan_start
    )
