"""Nyströmformer and Performer approximate the same attention as the dense one: affinity exp(q·k · scale)."""

import sys

import pytest
import torch
import torch.nn.functional as F

from examples.pose_morph.errors import UserError
from examples.pose_morph.networks.attention import CosineAttention, FullAttention, make_attention
from examples.pose_morph.networks.low_rank import NystromAttention, PerformerAttention, landmarks_of
from examples.pose_morph.networks.settings import Nystromformer, Performer

SIZE = (16, 10)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def smooth(channels: int, *, batch: int = 2, heads: int = 1, size: tuple[int, int] = SIZE) -> torch.Tensor:
    """A random field whose neighbours resemble each other, as pixels do: (b, heads, h, w, c)."""
    coarse = torch.randn(batch * heads, channels, size[0] // 2, size[1] // 2)
    return F.interpolate(coarse, size=size, mode="bilinear").movedim(1, -1).unflatten(0, (batch, heads))


def tokens(channels: int = 12, values: int = 5, *, heads: int = 1):
    return smooth(channels, heads=heads), smooth(channels, heads=heads), smooth(values, heads=heads)


def error(found: torch.Tensor, right: torch.Tensor) -> float:
    """Relative error."""
    assert found.shape == right.shape
    return ((found - right).norm() / right.norm()).item()


@pytest.mark.parametrize("scale", [None, 0.1, 1.0])
@pytest.mark.parametrize("values", [5, 20])
def test_nystromformer_with_every_pixel_a_landmark_is_dense(scale, values):
    q, k, v = tokens(values=values)
    right = FullAttention(scale=scale)(q, k, v)
    assert error(NystromAttention(160, scale=scale)(q, k, v), right) < 0.1
    twice = NystromAttention(160, scale=2 * (12**-0.5 if scale is None else scale))
    assert error(twice(q, k, v), right) > 3 * error(NystromAttention(160, scale=scale)(q, k, v), right)


def test_fewer_landmarks_are_worse():
    q, k, v = tokens()
    right = FullAttention()(q, k, v)
    errors = [error(NystromAttention(landmarks)(q, k, v), right) for landmarks in (160, 40, 4)]
    assert errors == sorted(errors)
    assert errors[2] > 2 * errors[0]


def test_a_landmark_that_is_not_full_is_attended_to_no_more_than_the_pixels_in_it():
    q = k = torch.zeros(2, 1, *SIZE, 4)
    v = smooth(5)
    mean = v.mean(dim=(2, 3), keepdim=True).expand_as(v)
    torch.testing.assert_close(NystromAttention(54)(q, k, v), mean)  # 54 landmarks of 3 pixels are 162
    q, k, v = tokens()
    right = FullAttention()(q, k, v)
    assert error(NystromAttention(54)(q, k, v), right) < 1.5 * error(NystromAttention(40)(q, k, v), right)


def test_landmarks_fill_up_evenly():
    assert [landmarks_of(rank, 16384) for rank in (512, 708, 768)] == [512, 683, 745]
    assert landmarks_of(160, 160) == 160
    assert landmarks_of(100, 160) == 80


def test_performer_with_very_many_features_comes_close_to_dense():
    for scale in (None, 0.1):
        q, k, v = tokens()
        right = FullAttention(scale=scale)(q, k, v)
        few, many = (PerformerAttention(n, key_channels=12, scale=scale)(q, k, v) for n in (16, 20_000))
        assert error(many, right) < 0.25
        assert error(many, right) < 0.7 * error(few, right)
        assert error(many, FullAttention(scale=2 * (scale or 12**-0.5))(q, k, v)) > 1.2 * error(many, right)


def test_performer_shares_lengths_between_queries_and_keys():
    """The affinity knows only the product; so should the estimate."""
    q, k, v = tokens()
    performer = PerformerAttention(64, key_channels=12)
    torch.testing.assert_close(performer(10 * q, k / 10, v), performer(q, k, v), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("kind", [Nystromformer(40), Performer(64)])
@pytest.mark.parametrize("heads", [1, 3])
def test_samples_and_heads_stay_apart_and_gradients_reach_everything(kind, heads):
    attention = make_attention(kind, size=SIZE, key_channels=12)
    q, k, v = (x.requires_grad_() for x in tokens(heads=heads))
    out = attention(q, k, v)
    assert out.shape == (2, heads, *SIZE, 5)
    out[0, -1].square().sum().backward()
    for x in (q, k, v):
        assert x.grad[0, -1].abs().sum() > 0
        assert x.grad[1].abs().sum() == 0


@pytest.mark.parametrize("kind", [Nystromformer(160), Performer(20_000)])
def test_under_cosine_attention_the_affinity_is_that_of_the_dense_one(kind):
    q, k, v = tokens()
    attention = make_attention(kind, size=SIZE, key_channels=12, sharpness=2.0)
    assert isinstance(attention, CosineAttention)
    right = CosineAttention(FullAttention(scale=1.0), sharpness=2.0)(q, k, v)
    assert error(attention(q, k, v), right) < 0.25


def test_performer_starts_no_sharper_than_its_features_can_tell():
    q, k, v = (x.requires_grad_() for x in tokens())
    attention = make_attention(Performer(64), size=SIZE, key_channels=12, sharpness=80.0)
    attention(q, k, v).square().sum().backward()
    assert attention.log_sharpness.exp().item() == pytest.approx(3.0)
    assert q.grad.norm() > 1e-3 * v.grad.norm()


def test_the_projection_follows_the_seed_and_is_kept_with_the_weights():
    def built(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        ((name, projection),) = make_attention(Performer(8), size=SIZE, key_channels=4).state_dict().items()
        assert name == "attention.projection_matrix"
        return projection

    assert torch.equal(built(0), built(0))
    assert not torch.equal(built(0), built(1))


def test_nystromformer_takes_no_random_numbers_and_has_no_weights():
    before = torch.get_rng_state()
    assert not NystromAttention(8).state_dict()
    assert torch.equal(before, torch.get_rng_state())


def test_a_missing_package_is_named_with_its_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "nystrom_attention", None)
    monkeypatch.setitem(sys.modules, "performer_pytorch", None)
    with pytest.raises(UserError, match=r"nystrom-attention: pip install 'gpa-nd\[train\]'"):
        NystromAttention(8)
    with pytest.raises(UserError, match=r"performer-pytorch: pip install 'gpa-nd\[train\]'"):
        PerformerAttention(8, key_channels=4)


def test_nystromformer_refuses_keys_of_another_grid():
    with pytest.raises(ValueError, match="k: Nyströmformer wants as many keys as queries"):
        NystromAttention(8)(torch.zeros(1, 1, 4, 4, 2), torch.zeros(1, 1, 4, 8, 2), torch.zeros(1, 1, 4, 8, 2))
