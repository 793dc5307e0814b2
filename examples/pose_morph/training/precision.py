"""The number format that the networks compute in; weights, losses, R1 and optimisers stay in float32."""

from contextlib import AbstractContextManager
from typing import Literal

import torch

from examples.pose_morph.errors import UserError

Precision = Literal["float32", "bfloat16", "float16"]


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager[None]:
    """Return a context in which convolutions and products run in ``precision``."""
    dtype = {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}[precision]
    return torch.autocast(device.type, dtype, enabled=dtype is not None)


def loss_scaler(device: torch.device, precision: Precision) -> torch.amp.GradScaler:
    """Return what keeps float16's small gradients from vanishing; it does nothing for the other formats.

    Raises:
        UserError: float16 on a device that does not have it.
    """
    if precision == "float16" and device.type != "cuda":
        raise UserError(f"--precision: float16 needs a CUDA device, and this is {device}; take bfloat16 or float32")
    return torch.amp.GradScaler(device.type, enabled=precision == "float16")
