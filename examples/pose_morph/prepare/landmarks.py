"""From the 33 landmarks of MediaPipe's pose model to the 18 joints in OpenPose order."""

import torch
from jaxtyping import Float
from torch import Tensor

SINGLE = {
    0: 0,  # nose
    2: 12, 3: 14, 4: 16,  # right arm
    5: 11, 6: 13, 7: 15,  # left arm
    8: 24, 9: 26, 10: 28,  # right leg
    11: 23, 12: 25, 13: 27,  # left leg
    14: 5, 15: 2,  # eyes, right and left
    16: 8, 17: 7,  # ears, right and left
}  # fmt: skip
"""Joint: landmark. "Right" is the person's own right in both."""

NECK, SHOULDERS = 1, (11, 12)


def to_joints(
    landmarks: Float[Tensor, "33 3"], size: tuple[int, int], least_visibility: float
) -> Float[Tensor, "18 2"]:
    """Return the joints as (x, y) in pixels, NaN where not known.

    Args:
        landmarks: x and y from 0 to 1 between the picture's outer edges, and the visibility from 0 to 1.
        size: height and width of the picture.
        least_visibility: a joint under it is not known; the neck, the middle of the shoulders, needs both of them.

    A joint outside the picture is not known either.
    """
    height, width = size
    points = landmarks[:, :2] * landmarks.new_tensor([width, height]) - 0.5
    seen = landmarks[:, 2] >= least_visibility
    joints = torch.full((18, 2), torch.nan)
    for joint, landmark in SINGLE.items():
        if seen[landmark]:
            joints[joint] = points[landmark]
    if seen[list(SHOULDERS)].all():
        joints[NECK] = points[list(SHOULDERS)].mean(dim=0)
    # Rows are stored as whole pixels, so what counts is where a joint is rounded to.
    pixel = joints.round()
    inside = (pixel >= 0).all(dim=1) & (pixel[:, 0] < width) & (pixel[:, 1] < height)
    return torch.where(inside[:, None], joints, torch.nan)
