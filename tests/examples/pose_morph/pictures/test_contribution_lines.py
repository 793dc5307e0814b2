"""Lines lead from the point to the keys that weigh most, in its own colour."""

import torch
from PIL import ImageColor

from examples.pose_morph.pictures.contribution_lines import COLOURS, GAP, Contribution, draw_contributions
from examples.pose_morph.pictures.sheet import HEADER

SCALE = 10


def pixels_of(contributions: list[Contribution]) -> torch.Tensor:
    """The sheet over white pictures, (height, width, 3)."""
    white = torch.ones(3, 16, 8)
    sheet = draw_contributions(white, white, white, contributions, "", SCALE)
    return torch.frombuffer(bytearray(sheet.tobytes()), dtype=torch.uint8).view(sheet.height, sheet.width, 3)


def key_at(pixels: torch.Tensor, x: float, y: float) -> list[int]:
    """The colour in the source picture at (x, y) of its pixels."""
    return pixels[round(2 * HEADER + (y + 0.5) * SCALE), round(GAP + (x + 0.5) * SCALE)].tolist()


def test_a_line_ends_at_the_key_and_fades_with_its_weight():
    weights = torch.zeros(8, 4)  # of a level half as large: key (column 1, row 6) covers pixels 2 … 3 and 12 … 13
    weights[6, 1], weights[1, 3], weights[3, 0] = 0.8, 0.2, 0.001
    pixels = pixels_of([Contribution("A", (5.0, 4.0), weights)])
    strong, weak = key_at(pixels, 2.5, 12.5), key_at(pixels, 6.5, 2.5)
    assert (torch.tensor(strong) - torch.tensor(ImageColor.getrgb(COLOURS[0]))).abs().max() < 12
    assert all(a < b or b == 255 for a, b in zip(strong, weak, strict=True))
    assert weak != [255, 255, 255]
    assert key_at(pixels, 0.5, 6.5) == [255, 255, 255]  # too faint
    assert key_at(pixels, 6.5, 12.5) == [255, 255, 255]  # no key


def test_every_point_has_its_letter_and_colour_in_result_and_truth():
    weights = torch.zeros(16, 8)
    weights[0, 0] = 1
    pixels = pixels_of([Contribution("A", (2.0, 3.0), weights), Contribution("B", (6.0, 12.0), weights)])
    for number, (x, y) in enumerate(((2.0, 3.0), (6.0, 12.0))):
        for column in (1, 2):
            left = GAP + column * (8 * SCALE + GAP)
            spot = pixels[round(2 * HEADER + (y + 0.5) * SCALE), round(left + (x + 0.5) * SCALE) - 6]
            assert (spot.int() - torch.tensor(ImageColor.getrgb(COLOURS[number]))).abs().max() < 12
