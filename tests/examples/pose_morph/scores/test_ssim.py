"""Three SSIMs: their windows, ranges and bars, against hand-worked values."""

import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity

from examples.pose_morph.scores.ssim import DEFINITIONS, ssim_bars, ssim_gaussian, ssim_uniform51
from examples.pose_morph.scores.undefined import UndefinedScore

C1 = 0.01**2


def grey(value: int, height: int = 64, width: int = 52) -> torch.Tensor:
    return torch.full((3, height, width), value, dtype=torch.uint8)


def noise(seed: int, height: int = 64, width: int = 52) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (3, height, width), generator=generator, dtype=torch.uint8)


@pytest.mark.parametrize("ssim", [ssim_gaussian, ssim_uniform51])
def test_ssim_of_flat_pictures_is_the_luminance_term(ssim):
    """Without variance SSIM is (2ab + C1) / (a² + b² + C1), C1 = 0.01² in [0, 1]."""
    a, b = 51, 204
    expected = (2 * 0.2 * 0.8 + C1) / (0.2**2 + 0.8**2 + C1)
    assert ssim(grey(a), grey(b)) == pytest.approx(expected, abs=1e-4)
    assert ssim(grey(a), grey(a)) == 1.0


@pytest.mark.parametrize(("ssim", "reach"), [(ssim_gaussian, 5), (ssim_uniform51, 25)])
def test_a_pixel_is_felt_as_far_as_the_window_reaches(ssim, reach, monkeypatch):
    """5 pixels at sigma 1.5, 25 in a window of 51."""
    maps = []

    def full(*arguments, **settings):
        score, per_pixel = structural_similarity(*arguments, **settings, full=True)
        maps.append(per_pixel[..., 0])
        return score

    monkeypatch.setattr("examples.pose_morph.scores.ssim.structural_similarity", full)
    truth = noise(0, 96, 96)
    result = truth.clone()
    result[:, 48, 48] = 255 - result[:, 48, 48]
    assert ssim(result, truth) < 1
    felt = np.argwhere(np.abs(maps[0] - 1) > 1e-9)
    assert felt.min(axis=0).tolist() == [48 - reach] * 2
    assert felt.max(axis=0).tolist() == [48 + reach] * 2


def test_bars_make_a_square_of_deepfashions_pictures_and_lift_the_score(monkeypatch):
    seen = []

    def note(a, b, **settings):
        seen.append((a, b, settings))
        return structural_similarity(a, b, **settings)

    monkeypatch.setattr("examples.pose_morph.scores.ssim.structural_similarity", note)
    result, truth = noise(1, 256, 176).clamp(min=30), noise(2, 256, 176)
    assert ssim_bars(result, truth) > ssim_gaussian(result, truth) + 0.2
    a, b, settings = seen[0]
    assert a.shape == b.shape == (256, 256, 3)
    for padded, picture in ((a, result), (b, truth)):
        assert (padded[:, :40] == 255).all()
        assert (padded[:, -40:] == 255).all()
        assert (padded[:, 40:-40] == picture.permute(1, 2, 0).numpy()).all()
    assert settings["data_range"] == 255 - 30  # of the generated picture with its bars, as PATN's script has it
    ssim_bars(noise(1, 128, 80), noise(2, 128, 80))
    assert seen[2][0].shape == (128, 80 + 2 * 20, 3)


def test_a_white_picture_has_a_score_with_bars_too():
    assert ssim_bars(grey(255), grey(255)) == 1.0
    assert ssim_bars(grey(255), grey(0)) < 0.5


@pytest.mark.parametrize(
    ("ssim", "size", "window"), [(ssim_gaussian, (10, 20), 11), (ssim_uniform51, (64, 50), 51), (ssim_bars, (9, 9), 11)]
)
def test_pictures_smaller_than_the_window_are_refused(ssim, size, window):
    with pytest.raises(UndefinedScore, match=f"{ssim.__name__}: expected pictures of at least {window} pixels"):
        ssim(grey(0, *size), grey(0, *size))


def test_every_ssim_is_defined_by_name():
    assert list(DEFINITIONS) == ["ssim_gaussian", "ssim_uniform51", "ssim_bars"]
