"""The processes that train one model together: one, or as many as torchrun started."""

import os
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from examples.pose_morph.errors import UserError
from examples.pose_morph.training.device import choose_device

FAILED = 1 << 10
"""The word for an error, larger than any signal's number."""


@dataclass(frozen=True)
class ProcessGroup:
    """This process among the others.

    Attributes:
        rank: Its number; process 0 writes files and speaks.
        size: How many there are.
        device: Where it computes.
    """

    rank: int
    size: int
    device: torch.device

    def wrap(self, module: nn.Module) -> nn.Module:
        """Return ``module`` so that its gradients are averaged over the processes."""
        if self.size == 1:
            return module
        places = [self.device] if self.device.type == "cuda" else None
        return DistributedDataParallel(module, device_ids=places, forward_sync_buffers=False)

    def mean(self, values: Tensor) -> Tensor:
        """Return the mean over the processes."""
        if self.size > 1:
            dist.all_reduce(values)
            values /= self.size
        return values

    def agree(self, signal: int | None, error: UserError | None = None) -> int | None:
        """Tell the others of a signal or an error of this process, and return the signal that anybody received.

        Raises:
            UserError: some process has an error; every process raises it, so that nobody waits for who is gone.
        """
        if self.size > 1:
            word = torch.tensor(FAILED if error else signal or 0, device=self.device)
            dist.all_reduce(word, op=dist.ReduceOp.MAX)
            if word == FAILED:
                messages: list[str | None] = [None] * self.size
                dist.all_gather_object(messages, str(error) if error else None)
                raise UserError(next(message for message in messages if message is not None))
            return int(word) or None
        if error is not None:
            raise error
        return signal

    def leave(self) -> None:
        """Part from the other processes."""
        if self.size > 1 and dist.is_initialized():
            dist.destroy_process_group()


def join_processes(device_name: str) -> ProcessGroup:
    """Join the processes that torchrun started, over NCCL on GPUs and gloo on CPUs; without torchrun stay alone.

    Raises:
        UserError: the device is not there.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        return ProcessGroup(0, 1, choose_device(device_name))
    device = choose_device(device_name, int(os.environ["LOCAL_RANK"]))
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return ProcessGroup(dist.get_rank(), size, device)


def without_exchange(module: nn.Module, more_to_come: bool) -> AbstractContextManager[None]:
    """Hold the exchange of gradients back while more of them are to be added in this step."""
    if more_to_come and isinstance(module, DistributedDataParallel):
        return module.no_sync()
    return nullcontext()


def share_of(step: int, batch_size: int, processes: ProcessGroup) -> range:
    """Return the sample numbers of a step that belong to this process: a contiguous part of its batch."""
    part = batch_size // processes.size
    start = step * batch_size + processes.rank * part
    return range(start, start + part)
