import pytest
import torch

from examples.pose_morph.errors import UserError
from examples.pose_morph.training.device import choose_device


@pytest.fixture
def two_gpus(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)


def test_a_gpu_that_is_not_there_is_a_message(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for name in ("cuda", "cuda:3"):
        with pytest.raises(UserError, match="--device: PyTorch sees no cuda here"):
            choose_device(name)
    assert choose_device("auto").type in ("cpu", "mps")


@pytest.mark.parametrize("name", ["gpu", "cpu:1", "cuda:", "cuda:-1", "cuda:a"])
def test_other_names_are_refused(name):
    with pytest.raises(UserError, match="--device: expected auto, cpu, cuda, cuda:N or mps"):
        choose_device(name)


def test_one_of_several_gpus(two_gpus):
    assert choose_device("auto") == torch.device("cuda")
    assert choose_device("cuda:1") == torch.device("cuda", 1)
    with pytest.raises(UserError, match=r"PyTorch sees 2 GPU\(s\) here, cuda:0 to cuda:1; got cuda:3"):
        choose_device("cuda:3")


def test_every_process_of_torchrun_takes_its_own_gpu(two_gpus):
    assert [choose_device("auto", rank) for rank in range(2)] == [torch.device("cuda", rank) for rank in range(2)]
    with pytest.raises(UserError, match=r"got cuda:2"):
        choose_device("cuda", 2)
    with pytest.raises(UserError, match="every process takes its own GPU; expected cuda, got cuda:0"):
        choose_device("cuda:0", 0)
    assert choose_device("cpu", 5) == torch.device("cpu")
