"""Rows of other processes, and the way back of their gradients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Int, Shaped
from torch import Tensor
from torch.autograd.function import once_differentiable

from gpa_nd.distributed.peers import Peers
from gpa_nd.engine.precision import wide
from gpa_nd.partition import add_rows


@dataclass(frozen=True, eq=False)
class Trip:
    """Which rows travel.

    Attributes:
        peers: the processes.
        rows: one's own that are sent, process after process; a row may go to several.
        send: how many go to each process.
        receive: how many come from each.
        zeros: how many are put behind those that come.
    """

    peers: Peers
    rows: Int[Tensor, " sent"]
    send: list[int]
    receive: list[int]
    zeros: int

    def there(self, x: Shaped[Tensor, " own *shape"]) -> Shaped[Tensor, " all_rows *shape"]:
        """One's own rows, those that came, and zeros."""
        came = self.peers.exchange(x.index_select(0, self.rows), self.send, self.receive)
        return torch.cat([x, came, x.new_zeros(self.zeros, *x.shape[1:])])

    def back(self, grad: Shaped[Tensor, "all_rows c"]) -> Shaped[Tensor, "own c"]:
        """The gradients of one's own rows; those of other processes are added in the order of these."""
        came = sum(self.receive)
        own = len(grad) - self.zeros - came
        returned = self.peers.exchange(grad[own : own + came], self.receive, self.send)
        total = grad[:own].to(wide(grad.dtype), copy=True)
        return add_rows(total, self.rows, returned.to(total.dtype)).to(grad.dtype)


class Fetch(torch.autograd.Function):
    """:meth:`Trip.there` of several tensors.

    They are one node of the graph, so that every process sends the gradients in one order.
    """

    @staticmethod
    def forward(ctx: Any, trip: Trip, *own: Tensor) -> tuple[Tensor, ...]:
        """All rows of each."""
        ctx.trip = trip
        return tuple(trip.there(x) for x in own)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Back to who sent them."""
        needed = ctx.needs_input_grad[1:]
        return None, *(ctx.trip.back(x) if need else None for x, need in zip(grads, needed, strict=True))
