"""The losses of one step, over the parts of its batch and over the processes."""

import torch
from jaxtyping import Float
from torch import Tensor

from examples.pose_morph.training.process_group import ProcessGroup


class StepLosses:
    """Adds up the losses of a batch that is worked off in equal parts."""

    def __init__(self, parts: int) -> None:
        """Begin a step of so many parts."""
        self.parts = parts
        self._sums: dict[str, Tensor] = {}

    def share(self, name: str, loss: Float[Tensor, ""]) -> Float[Tensor, ""]:
        """Take in the loss of a part, and return what it contributes to the loss of the whole batch."""
        loss = loss / self.parts
        self._sums[name] = self._sums[name] + loss.detach() if name in self._sums else loss.detach()
        return loss

    def means(self, processes: ProcessGroup) -> dict[str, float]:
        """Return the losses of the whole batch, the same on every process."""
        values = processes.mean(torch.stack(list(self._sums.values())))
        return dict(zip(self._sums, values.tolist(), strict=True))
