"""The processes that share one structure, and the two ways in which they pass tensors on."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.distributed as dist
from jaxtyping import Shaped
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh


class Peers:
    """The processes of a group.

    Tensors travel as bytes: bit for bit, whatever dtypes a backend of ``torch.distributed`` computes with.

    Args:
        group: a process group, a mesh with one dimension, or None for all processes.

    Attributes:
        rank: the number of this process among them.
        size: how many they are.
        received: bytes that came to this process from others so far.

    Raises:
        TypeError: something else.
        ValueError: a mesh with several dimensions, a group that this process is not in, or no group at all, since
            ``torch.distributed`` was not initialised.
    """

    def __init__(self, group: dist.ProcessGroup | DeviceMesh | None) -> None:
        if not dist.is_available() or not dist.is_initialized():
            raise ValueError("group: expected torch.distributed.init_process_group to be called first")
        if isinstance(group, DeviceMesh):
            if group.ndim != 1:
                raise ValueError(f"group: expected a mesh with one dimension, such as mesh['cp'], got {group}")
            group = group.get_group()
        if group is dist.GroupMember.NON_GROUP_MEMBER:  # type: ignore[comparison-overlap]  # what new_group returns
            raise ValueError("group: expected one that this process is in, got one that it is not in")
        if group is not None and not isinstance(group, dist.ProcessGroup):
            raise TypeError(f"group: expected a ProcessGroup, a DeviceMesh or None, got {type(group).__name__}")
        self.group = group
        self.rank, self.size = dist.get_rank(group), dist.get_world_size(group)
        self.received = 0

    def __deepcopy__(self, memo: object) -> Peers:
        """A copy of a model talks to the same processes."""
        return self

    @property
    def device(self) -> torch.device:
        """Where tensors can be passed on from."""
        if "nccl" in dist.get_backend(self.group):
            return torch.device("cuda", torch.cuda.current_device())
        return torch.device("cpu")

    def gather(self, x: Shaped[Tensor, "*shape"]) -> Shaped[Tensor, " processes *shape"]:
        """What all processes have, in their order; of one shape everywhere."""
        everything = x.new_empty(self.size, *x.shape)
        if x.numel():
            dist.all_gather_single(_as_bytes(everything), _as_bytes(x.contiguous()[None]), group=self.group)
            self.received += everything.nbytes - x.nbytes
        return everything

    def exchange(
        self, rows: Shaped[Tensor, " sent *shape"], send: Sequence[int], receive: Sequence[int]
    ) -> Shaped[Tensor, " received *shape"]:
        """Rows for every other process, against its rows for this one.

        Args:
            rows: what is sent, process after process.
            send: how many rows each process gets.
            receive: how many come from each.
        """
        received = rows.new_empty(sum(receive), *rows.shape[1:])
        if 0 not in rows.shape[1:]:
            dist.all_to_all_single(
                _as_bytes(received), _as_bytes(rows.contiguous()), list(receive), list(send), group=self.group
            )
            self.received += received.nbytes - received[: receive[self.rank]].nbytes
        return received


def _as_bytes(x: Shaped[Tensor, " rows *shape"]) -> Shaped[Tensor, "rows bytes"]:
    return x.view(len(x), x.shape[1:].numel()).view(torch.uint8)
