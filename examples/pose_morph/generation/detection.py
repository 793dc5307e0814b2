"""Joints of pictures that no table knows, by the extractor of the prepare command, if it is installed."""

from functools import cache

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from examples.pose_morph.data.pose import JOINTS
from examples.pose_morph.errors import UserError
from examples.pose_morph.prepare.landmarks import to_joints
from examples.pose_morph.prepare.pose_detector import PoseDetector

LEAST_VISIBILITY = 0.5
"""A joint that the extractor is less sure to see is not known; the default of the prepare command."""


def detect_joints(picture: Image.Image, called: str) -> Float[Tensor, "18 2"]:
    """Return the joints of the person in ``picture``, all NaN if none is found.

    Raises:
        UserError: the extractor is not installed; the message says both ways to give joints to ``called``.
    """
    try:
        landmarks = _detector().detect(picture)
    except UserError as error:
        raise UserError(
            f"keypoints: {called} has no row in a table beside it or in the folder above. Give a table "
            f"(--source-keypoints FILE.csv for sources, --pose FILE.csv for poses), or have joints extracted: {error}"
        ) from error
    if landmarks is None:
        return torch.full((len(JOINTS), 2), torch.nan)
    return to_joints(landmarks, (picture.height, picture.width), LEAST_VISIBILITY)


@cache
def _detector() -> PoseDetector:
    """Open the extractor once, to the end of the process: it takes longer to open than to look at a picture."""
    return PoseDetector().__enter__()
