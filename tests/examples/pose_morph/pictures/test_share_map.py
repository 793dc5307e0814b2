"""Colours of shares."""

import torch

from examples.pose_morph.pictures.share_map import draw_shares


def test_shares_are_coloured_hidden_pixels_grey_and_the_rest_white():
    picture = draw_shares(torch.tensor([0.0, 1.0]), torch.tensor([0, 5]), torch.tensor([3]), (2, 3), scale=2)
    assert picture.size == (6, 4)
    assert picture.getpixel((0, 0)) == picture.getpixel((1, 1)) == (68, 1, 84)
    assert picture.getpixel((5, 3)) == (253, 231, 36)
    assert picture.getpixel((0, 2)) == (190, 190, 190)
    assert picture.getpixel((2, 0)) == (255, 255, 255)
