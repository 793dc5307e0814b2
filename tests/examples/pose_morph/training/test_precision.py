import pytest
import torch

from examples.pose_morph.errors import UserError
from examples.pose_morph.training.precision import autocast, loss_scaler

CPU = torch.device("cpu")


def test_products_run_in_the_named_format():
    a = torch.ones(2, 2)
    for name, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        with autocast(CPU, name):
            assert (a @ a).dtype == dtype


def test_float16_needs_a_gpu():
    assert not loss_scaler(CPU, "bfloat16").is_enabled()
    with pytest.raises(UserError, match="--precision: float16 needs a CUDA device, and this is cpu"):
        loss_scaler(CPU, "float16")
