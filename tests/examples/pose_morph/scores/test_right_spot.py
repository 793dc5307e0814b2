"""The share on the right spot, where the attention and the right spots are known by hand."""

import pytest
import torch

from examples.pose_morph.networks.attention import FullAttention
from examples.pose_morph.networks.copy_weights import CopyLevel
from examples.pose_morph.scores.right_spot import covering, right_spots, spot_shares
from gpa_nd import GPA
from gpa_nd.ops import GridDownsampler
from gpa_nd.partitioners import GridPartitioner

SIZE = (4, 6)
CM = 0.01


def person() -> torch.Tensor:
    """Rest points of a flat person: the inner 4x4 pixels, 10 cm apart."""
    y, x = torch.meshgrid(torch.arange(4.0), torch.arange(6.0), indexing="ij")
    points = 10 * CM * torch.stack([x, torch.zeros_like(x), y], dim=-1)
    points[:, [0, 5]] = torch.nan
    return points


def one_to_one(shift: int = 0, size: tuple[int, int] = SIZE) -> CopyLevel:
    """Every query attends to the pixel ``shift`` numbers after its own, and to no other."""
    n = size[0] * size[1]
    keys = torch.eye(n).view(1, 1, *size, n)
    queries = torch.eye(n).roll(-shift, 0).view(1, 1, *size, n)
    return CopyLevel(FullAttention(scale=1000.0), queries, keys)


def uniform(size: tuple[int, int]) -> CopyLevel:
    zeros = torch.zeros(1, 1, *size, 3)
    return CopyLevel(FullAttention(), zeros, zeros)


def shares_of(level: CopyLevel, radii=(5 * CM, 11 * CM), points=None):
    points = person() if points is None else points
    return spot_shares(right_spots(points, person(), radii[0]), level, radii)


def test_copying_a_picture_onto_itself_is_right_everywhere():
    shares = shares_of(one_to_one())
    assert shares.attention.shape == (2, 16)
    assert shares.attention.eq(1).all()
    assert shares.strongest.eq(0).all()


def test_one_pixel_beside_is_wrong_within_five_centimetres_and_right_within_eleven():
    spots = right_spots(person(), person(), 5 * CM)
    shares = shares_of(one_to_one(1))
    inside = spots.pixels % 6 < 4
    assert shares.attention[0].eq(0).all()
    assert shares.attention[1].equal(inside.float())
    assert (shares.strongest[inside] - 10 * CM).abs().max() < 1e-6
    assert shares.strongest[~inside].isinf().all()  # the background
    assert shares.best.eq(1).all()


def test_uniform_attention_has_the_part_of_the_picture_and_of_the_person():
    shares = shares_of(uniform(SIZE))
    assert (shares.attention[0] - 1 / 24).abs().max() < 1e-6
    assert (shares.uniform[0] - 1 / 16).abs().max() < 1e-6
    corner, middle = shares.uniform[1][[0, 5]].tolist()
    assert (corner, middle) == pytest.approx((3 / 16, 5 / 16))


def test_a_key_of_a_smaller_level_counts_with_what_it_shows_of_the_spot():
    level = one_to_one(size=(2, 3))  # each key covers 2x2 pixels
    shares = shares_of(level)
    assert shares.attention[0].eq(1 / 4).all()
    assert shares.best[0].eq(1 / 4).all()
    assert shares.attention[1].unique().tolist() == [0.5, 0.75]  # beside the background; in the middle
    assert shares.strongest.max() < 10 * CM


def test_what_the_source_does_not_show_is_not_asked():
    source = person()
    source[0] = torch.nan
    spots = right_spots(source, person(), 5 * CM)
    assert (spots.hidden < 6).all()
    assert len(spots.hidden) == 4
    assert spots.pixels.tolist() == [y * 6 + x for y in (1, 2, 3) for x in (1, 2, 3, 4)]


def test_left_and_right_are_different_spots():
    mirrored = person().flip(1)
    shares = shares_of(one_to_one(), radii=(5 * CM,), points=mirrored)
    assert shares.attention.eq(0).all()
    assert shares.best.eq(1).all()


def test_phase_1_limits_what_can_be_reached():
    gpa = GPA(GridPartitioner((2, 3)), GridDownsampler(2), kappa=1)
    wide = torch.eye(24).view(1, 1, *SIZE, 24)
    right = CopyLevel(gpa, wide, wide)
    assert shares_of(right).selected[0].eq(1).all()
    keys = wide.roll(2, 3)  # every cell finds its keys two columns further right
    wrong = shares_of(CopyLevel(gpa, wide, keys))
    assert wrong.selected[0].eq(0).all()
    assert wrong.attention[0].eq(0).all()
    assert wrong.best[0].eq(1).all()


def test_nothing_shown_gives_nothing_to_ask():
    nobody = torch.full((*SIZE, 3), torch.nan)
    shares = shares_of(one_to_one(), points=nobody)
    assert shares.attention.shape == shares.uniform.shape == (2, 0)
    assert shares.strongest.shape == (0,)


def test_a_level_that_does_not_divide_the_picture_is_named():
    assert covering((4, 6), (2, 3)).tolist()[:8] == [0, 0, 1, 1, 2, 2, 0, 0]
    with pytest.raises(ValueError, match=r"divides the picture's \(4, 6\), got \(3, 3\)"):
        covering((4, 6), (3, 3))
