"""The run's curves and sample grids for TensorBoard: ``tensorboard --logdir runs/pose_morph``."""

from pathlib import Path

import numpy as np
from PIL import Image
from torch.utils.tensorboard import SummaryWriter


class Board:
    """Writes scalars and pictures to ``tensorboard/`` in the run's folder."""

    def __init__(self, out: Path, step: int) -> None:
        """Go on after ``step``; TensorBoard hides what an interrupted run wrote beyond it."""
        self._writer = SummaryWriter(str(out / "tensorboard"), purge_step=step + 1 if step else None)
        self._before: tuple[int, float] | None = None

    def scalars(self, step: int, seconds: float, losses: dict[str, float], rates: dict[str, float]) -> None:
        """Add the mean losses, the learning rates, and the speed since the last call."""
        for group, values in (("loss", losses), ("learning rate", rates)):
            for name, value in values.items():
                self._writer.add_scalar(f"{group}/{name}", value, step)
        if self._before is not None and seconds > self._before[1]:
            self._writer.add_scalar("steps per second", (step - self._before[0]) / (seconds - self._before[1]), step)
        self._before = (step, seconds)

    def samples(self, step: int, picture: Path) -> None:
        """Add a sample grid that was written to ``picture``."""
        with Image.open(picture) as file:
            self._writer.add_image("samples", np.asarray(file.convert("RGB")), step, dataformats="HWC")

    def close(self) -> None:
        """Write what is left."""
        self._writer.close()
