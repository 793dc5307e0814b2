"""The Fréchet distance against closed forms."""

import pytest
import torch

from examples.pose_morph.errors import UserError
from examples.pose_morph.scores.frechet import FeatureStatistics, frechet_distance


def statistics_of(features: torch.Tensor, batch: int = 7) -> FeatureStatistics:
    statistics = FeatureStatistics()
    for part in features.split(batch):
        statistics.add(part)
    return statistics


def normal(count: int, *, mean: float = 0.0, scale: float = 1.0, seed: int = 0, channels: int = 5) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return mean + scale * torch.randn(count, channels, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("batch", [1, 7, 50])
def test_streamed_statistics_are_the_sample_mean_and_covariance(batch):
    features = normal(50, mean=1000.0)
    streamed = statistics_of(features, batch)
    assert streamed.count == 50
    torch.testing.assert_close(streamed.mean, features.mean(dim=0))
    torch.testing.assert_close(streamed.covariance, features.t().cov())


def test_a_set_has_no_distance_to_itself_and_a_shift_counts_by_its_square():
    features = normal(40)
    one = statistics_of(features)
    assert frechet_distance(one, one) == pytest.approx(0.0, abs=1e-9)
    assert frechet_distance(one, statistics_of(features + 2)) == pytest.approx(5 * 2**2)


def test_a_scale_counts_by_the_difference_of_deviations():
    """S2 = 9 S1: tr(S1 + 9 S1 - 2 · 3 S1) = 4 tr(S1)."""
    features = normal(40)
    one, other = statistics_of(features), statistics_of((features - features.mean(dim=0)) * 3 + features.mean(dim=0))
    assert frechet_distance(one, other) == pytest.approx(4 * float(one.covariance.trace()))


def test_covariances_that_do_not_commute_match_the_matrix_root():
    scipy = pytest.importorskip("scipy.linalg")
    one = statistics_of(normal(60) @ torch.randn(5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1)))
    other = statistics_of(normal(60, seed=3) * torch.tensor([1.0, 2, 3, 4, 5], dtype=torch.float64))
    root = scipy.sqrtm((one.covariance @ other.covariance).numpy()).real
    traces = float(one.covariance.trace() + other.covariance.trace())
    expected = float((one.mean - other.mean).square().sum()) + traces - 2 * root.trace()
    assert frechet_distance(one, other) == pytest.approx(expected)
    assert frechet_distance(other, one) == pytest.approx(expected)


def test_fewer_pictures_than_channels_give_a_finite_distance():
    distance = frechet_distance(statistics_of(normal(3, channels=30)), statistics_of(normal(4, seed=1, channels=30)))
    assert 0 < distance < 1000


def test_one_picture_is_too_few():
    with pytest.raises(UserError, match="at least 2 pictures on each side, got 1 and 3"):
        frechet_distance(statistics_of(normal(1)), statistics_of(normal(3)))
