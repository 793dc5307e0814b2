"""The coarse queries that rank coarse keys for the cells of a process, of which others may hold some."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from gpa_nd.distributed.peers import Peers
from gpa_nd.partition import Partition


@dataclass(frozen=True, eq=False)
class Rankers:
    """Where the coarse queries that rank for each cell of this process come from.

    A cell ranks for itself, but where attention is causal an earlier one does, which another process may hold. Who
    sends which row is the same for every call, so that nobody has to ask.

    Attributes:
        cells: the rows that rank for each cell, numbered on from cell to cell.
        place: which row each of them is, of one's own and after them of those that come.
        outgoing: one's own rows that go to other processes, in the order of these.
        send: how many go to each process.
        receive: how many come from each.
        travels: whether any process sends anything.
    """

    cells: Partition
    place: Int[Tensor, " ranking"]
    outgoing: Int[Tensor, " sent"]
    send: list[int]
    receive: list[int]
    travels: bool

    @classmethod
    def of(
        cls,
        rankers: Partition,
        owner_of_cell: Int[Tensor, " m"],
        owner_of_row: Int[Tensor, " n"],
        rank: int,
        processes: int,
    ) -> Rankers:
        """Those of one process.

        Args:
            rankers: which rows rank for each cell.
            owner_of_cell: the process that holds each cell.
            owner_of_row: the process that holds each row; it numbers its own on from the first.
            rank: whose rankers are meant.
            processes: how many there are.
        """
        number, rows = max(1, len(owner_of_row)), rankers.order
        sender, reader = owner_of_row[rows], owner_of_cell.repeat_interleave(rankers.sizes)
        trips = ((reader * processes + sender) * number + rows)[sender != reader].unique()
        row, sender, reader = trips % number, trips // number % processes, trips // (number * processes)
        outgoing, incoming = row[sender == rank], row[reader == rank]
        own = (owner_of_row == rank).nonzero()[:, 0]
        place = torch.full((number,), -1)
        place[own] = torch.arange(len(own))
        place[incoming] = len(own) + torch.arange(len(incoming))
        lists = rankers.lists((owner_of_cell == rank).nonzero()[:, 0])
        cells = Partition(torch.arange(len(lists.order)), lists.offsets, lists.host_offsets)
        return cls(
            cells,
            place[lists.order],
            place[outgoing],
            reader[sender == rank].bincount(minlength=processes).tolist(),
            sender[reader == rank].bincount(minlength=processes).tolist(),
            bool(len(trips)),
        )

    def rows(self, x: Float[Tensor, "b h own c"], peers: Peers) -> Float[Tensor, "b h ranking c"]:
        """Rows of x that rank, cell after cell."""
        if self.travels:
            outgoing = x.index_select(2, self.outgoing).movedim(2, 0)
            incoming = peers.exchange(outgoing, self.send, self.receive).movedim(0, 2)
            x = torch.cat([x, incoming], dim=2)
        return x.index_select(2, self.place)
