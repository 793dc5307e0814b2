"""Landmarks of the person in a photograph, by MediaPipe's pose model, which comes inside its package."""

from types import TracebackType
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from examples.pose_morph.errors import UserError

INSTALL = (
    "python -m pip install --no-deps mediapipe==0.10.21 opencv-python-headless absl-py attrs flatbuffers "
    "'protobuf>=4.25.3,<5'"
)
VERSION = "0.10.21"


class PoseDetector:
    """A context in which pictures can be given to the model, each on its own.

    Raises:
        UserError: MediaPipe is not there, or is a version without a pose model; the message is the command to install.
    """

    def __enter__(self) -> "PoseDetector":
        try:
            import mediapipe
            from mediapipe.python.solutions import pose
        except ImportError as error:
            raise UserError(f"extracting keypoints needs MediaPipe {VERSION} ({error}): {INSTALL}") from error
        try:
            # model_complexity 1 is the one whose weights are in the package; others would be downloaded.
            self._pose: Any = pose.Pose(static_image_mode=True, model_complexity=1)
        except (OSError, RuntimeError, ValueError) as error:
            raise UserError(
                f"MediaPipe {mediapipe.__version__} cannot open its pose model ({error}); expected {VERSION}: {INSTALL}"
            ) from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._pose.close()

    def detect(self, picture: Image.Image) -> Float[Tensor, "33 3"] | None:
        """Return x, y (0 to 1 between the outer edges) and visibility of the one person found, or None."""
        found = self._pose.process(np.ascontiguousarray(picture.convert("RGB")))
        if found.pose_landmarks is None:
            return None
        return torch.tensor([[point.x, point.y, point.visibility] for point in found.pose_landmarks.landmark])
