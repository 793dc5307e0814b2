import pytest
import torch

from gpa_nd.ops import Downsampler, GridDownsampler, GridIndexUpsampler


def test_mean_over_each_block_of_an_image():
    x = torch.arange(16.0).view(1, 4, 4, 1)
    assert GridDownsampler((2, 2))(x).squeeze().tolist() == [[2.5, 4.5], [10.5, 12.5]]


def test_border_blocks_average_their_real_members():
    x = torch.arange(15.0).view(3, 5, 1)
    assert GridDownsampler((2, 3))(x)[..., 0].tolist() == [[3.5, 6.0], [11.0, 13.5]]


@pytest.mark.parametrize("shape", [(12,), (6, 4), (4, 6, 2), (2, 4, 4, 2)])
def test_any_number_of_axes_agrees_with_repeated_averaging(shape):
    x = torch.randn(2, *shape, 3, dtype=torch.float64)
    expected = x
    for axis in range(1, len(shape) + 1):
        expected = (expected.unfold(axis, 2, 2)).mean(-1)
    assert (GridDownsampler((2,) * len(shape))(x) - expected).abs().max() < 1e-12


def test_groups_and_coarse_shape_of_the_paper():
    down = GridDownsampler((4, 4))
    assert down.coarse_shape((256, 256)) == (64, 64)
    assert (len(down.groups((256, 256))), down.groups((256, 256)).largest) == (4096, 16)


def test_an_int_factor_means_the_same_on_every_axis():
    assert GridDownsampler(3).groups((7, 8)).labels.equal(GridDownsampler((3, 3)).groups((7, 8)).labels)
    assert GridDownsampler(3).coarse_shape((7, 8, 9)) == (3, 3, 3)


def test_upsampled_indices_are_row_major_and_padded():
    up = GridIndexUpsampler((2, 2))
    assert up(torch.tensor([[1], [2]]), (4, 4)).tolist() == [[2, 3, 6, 7], [8, 9, 12, 13]]
    assert up(torch.tensor([1, 3, -1]), (3, 3)).tolist() == [2, 5, -1, -1, 8, -1, -1, -1, -1, -1, -1, -1]


def test_downsampled_elements_are_means_over_upsampled_indices():
    x = torch.randn(5, 7, 2, dtype=torch.float64)
    down = GridDownsampler((2, 3))
    index = down.upsampler()(torch.arange(9)[:, None], (5, 7))
    for coarse, members in zip(down(x).flatten(0, 1), index, strict=True):
        assert (x.flatten(0, 1)[members[members >= 0]].mean(0) - coarse).abs().max() < 1e-12
    assert isinstance(down.upsampler(), GridIndexUpsampler)
    assert isinstance(down, Downsampler)


def test_an_empty_grid_has_no_groups():
    assert GridDownsampler((2, 2))(torch.zeros(3, 0, 4, 5)).shape == (3, 0, 2, 5)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: GridDownsampler(0), ValueError, "factor: expected numbers of at least 1, got 0"),
        (lambda: GridDownsampler((4, 0)), ValueError, r"factor: expected numbers of at least 1, got \(4, 0\)"),
        (lambda: GridDownsampler(()), ValueError, r"factor: expected numbers of at least 1, got \(\)"),
        (lambda: GridDownsampler(2.0), TypeError, "factor: expected an int or a tuple of ints, got 2.0"),
        (lambda: GridDownsampler(True), TypeError, "factor: expected an int or a tuple of ints, got True"),
        (lambda: GridDownsampler(4)(torch.zeros(8, 8, 1)), ValueError, "factor: expected a tuple, one number per axis"),
        (lambda: GridDownsampler((2, 2))(torch.zeros(8, 1)), ValueError, "x: expected 2 axes of elements"),
        (
            lambda: GridDownsampler((2, 2)).groups((8,)),
            ValueError,
            r"factor: expected one number per axis of a grid of shape \(8,\)",
        ),
        (lambda: GridDownsampler((2, 2))([[1.0]]), TypeError, "x: expected a tensor, got list"),
        (lambda: GridDownsampler(2).groups((-8, 8)), ValueError, "shape: .*none negative, got"),
        (lambda: GridIndexUpsampler(2)([0], (4, 4)), TypeError, "index: expected an int64 or int32 tensor, got list"),
        (lambda: GridDownsampler(2).groups(()), ValueError, "shape: expected the sizes of at least one axis"),
        (
            lambda: GridIndexUpsampler(2)(torch.tensor([9]), (4, 4)),
            ValueError,
            "index: expected coarse elements −1 … 3",
        ),
        (
            lambda: GridIndexUpsampler(2)(torch.tensor([-2]), (4, 4)),
            ValueError,
            "index: expected coarse elements −1 … 3",
        ),
        (
            lambda: GridIndexUpsampler(2)(torch.tensor([0.5]), (4, 4)),
            TypeError,
            "index: expected an int64 or int32 tensor, got torch.float",
        ),
        (lambda: GridIndexUpsampler(2)(torch.tensor(0), (4, 4)), ValueError, r"index: expected shape \(..., r\)"),
    ],
)
def test_bad_input_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()
