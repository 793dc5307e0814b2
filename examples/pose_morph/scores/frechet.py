"""The Fréchet distance of two sets of features, each taken for a normal distribution (Heusel et al. 2017)."""

import torch
from jaxtyping import Float
from torch import Tensor

from examples.pose_morph.scores.undefined import UndefinedScore

ENOUGH = 2048
"""With fewer pictures than this the estimate is far too large, whatever the features."""


class FeatureStatistics:
    """Mean and covariance in float64 of features that come batch by batch (Chan et al. 1983); nothing else is kept."""

    def __init__(self) -> None:
        self.count = 0
        self._mean = torch.zeros(0, dtype=torch.float64)
        self._scatter = torch.zeros(0, 0, dtype=torch.float64)

    def add(self, features: Float[Tensor, "b c"]) -> None:
        """Take in a batch."""
        batch = features.detach().to("cpu", torch.float64)
        count, mean = len(batch), batch.mean(dim=0)
        centred = batch - mean
        scatter = centred.t() @ centred
        if self.count == 0:
            self.count, self._mean, self._scatter = count, mean, scatter
            return
        shift, total = mean - self._mean, self.count + count
        self._scatter += scatter + torch.outer(shift, shift) * (self.count * count / total)
        self._mean += shift * (count / total)
        self.count = total

    @property
    def mean(self) -> Float[Tensor, "c"]:
        """The mean of all features so far."""
        return self._mean

    @property
    def covariance(self) -> Float[Tensor, "c c"]:
        """The sample covariance, over n - 1."""
        return self._scatter / (self.count - 1)


def frechet_distance(one: FeatureStatistics, other: FeatureStatistics) -> float:
    """Return |m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)).

    The trace of the root is the sum of the roots of the eigenvalues of S1^(1/2) S2 S1^(1/2), which is symmetric and has
    those of S1 S2; what rounding makes negative counts as zero.

    Raises:
        UndefinedScore: a side has fewer than two pictures.
    """
    if min(one.count, other.count) < 2:
        raise UndefinedScore(
            f"a Fréchet distance needs at least 2 pictures on each side, got {one.count} and {other.count}"
        )
    values, vectors = torch.linalg.eigh(one.covariance)
    root = (vectors * values.clamp(min=0).sqrt()) @ vectors.t()
    cross = torch.linalg.eigvalsh(root @ other.covariance @ root).clamp(min=0).sqrt().sum()
    traces = one.covariance.trace() + other.covariance.trace()
    return float((one.mean - other.mean).square().sum() + traces - 2 * cross)
