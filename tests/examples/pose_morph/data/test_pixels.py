"""Bytes and the networks' range."""

import torch

from examples.pose_morph.data.pixels import to_bytes, to_image


def test_bytes_become_minus_one_to_one():
    assert to_image(torch.tensor([0, 255], dtype=torch.uint8)).tolist() == [-1.0, 1.0]


def test_bytes_are_rounded_and_cut():
    assert to_bytes(torch.tensor([-2.0, -1.0, 0.0, 1.0, 2.0])).tolist() == [0, 0, 128, 255, 255]


def test_every_byte_comes_back():
    pixels = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(to_bytes(to_image(pixels)), pixels)
