"""Selected blocks: the rows under coarse keys that the cells of a process named, fetched where others hold them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Int, Shaped
from torch import Tensor

from gpa_nd.distributed.fetch import Fetch, Trip
from gpa_nd.distributed.peers import Peers
from gpa_nd.distributed.share import Holdings, Share
from gpa_nd.partition import Partition


@dataclass(frozen=True, eq=False)
class Blocks:
    """One's own blocks of rows, and after them those that came from others.

    Batch entries and heads of keys want different blocks, and so stand one after another along one axis. Behind all
    rows stand zeros, in blocks of the largest size which nobody names: what a backend makes of the sizes of blocks,
    such as the order in which it adds up, shall not depend on what was selected.

    Attributes:
        names: (blocks,) batch entry and head · n_k' + coarse key, for all blocks but those of zeros.
        number: (heads · n_k',) the block of each of these; −1 where it is not here.
        members: the rows under each block.
        groups: the same, with rows that are under none: every row is in one.
        trip: which rows travel.
    """

    names: Int[Tensor, " blocks"]
    number: Int[Tensor, " heads_n_k_low"]
    members: Partition
    groups: Partition
    trip: Trip

    @classmethod
    def of(cls, named: Int[Tensor, "b_h m r"], heads: int, share: Share, held: Holdings, peers: Peers) -> Blocks:
        """Ask all processes for what is wanted of theirs, which all of them must do together.

        Args:
            named: what one's own cells named, as :func:`by_head` writes it.
            heads: how many batch entries and heads of keys there are.
            share: who holds what.
            held: the rows under coarse keys.
            peers: the processes.
        """
        owner, slot, room = share.coarse_keys.owner, share.coarse_keys.slot, named.shape[-1]
        count = len(owner)
        wanted = torch.zeros(heads * count + 1, dtype=torch.bool, device=named.device)
        wanted[torch.where(named >= 0, named, heads * count).flatten()] = True
        names = wanted[:-1].nonzero()[:, 0]
        names = names[owner[names % count] != peers.rank]
        names = names[owner[names % count].argsort(stable=True)]  # process after process
        wants = owner[names % count].bincount(minlength=peers.size)
        wanted_here = peers.exchange(wants, [1] * peers.size, [1] * peers.size)
        asking, telling = torch.stack([wants, wanted_here]).tolist()
        asked = peers.exchange(names, asking, telling)
        lists = held.members.lists(slot[asked % count])
        rows = lists.order + (asked // count * held.rows).repeat_interleave(lists.sizes)
        sizes = held.sizes[names % count].cpu()
        send, receive = (_sums(x, n) for x, n in ((lists.host_offsets.diff(), telling), (sizes, asking)))
        more = torch.cat([sizes, torch.full((room,), held.largest)])
        own = (torch.arange(heads, device=names.device)[:, None] * count + share.own).flatten()
        names, number = torch.cat([own, names]), torch.full((heads * count,), -1, device=names.device)
        number[names] = torch.arange(len(names), device=names.device)
        members = _followed(repeated(held.members, heads, held.rows), heads * held.rows, more)
        groups = members
        if not held.members.covers:
            groups = _followed(repeated(held.groups, heads, held.rows), heads * held.rows, more)
        return cls(names, number, members, groups, Trip(peers, rows, send, receive, room * held.largest))

    def numbered(self, named: Int[Tensor, "b_h m r"]) -> Int[Tensor, "1 1 b_h_m r"]:
        """The blocks that cells named, as :func:`by_head` writes it; negative numbers stay."""
        return torch.where(named >= 0, self.number[named.clamp_min(0)], named).flatten(0, 1)[None, None]

    def rows(self, *own: Shaped[Tensor, "b h rows _c"]) -> tuple[Shaped[Tensor, "1 1 all_rows _c"], ...]:
        """One's own rows, those that came, and zeros; differentiable."""
        found = Fetch.apply(self.trip, *(x.reshape(-1, x.shape[-1]) for x in own))  # type: ignore[no-untyped-call]
        return tuple(x[None, None] for x in found)


def by_head(named: Int[Tensor, "b h m r"], heads: int, count: int) -> Int[Tensor, "b_h m r"]:
    """Coarse keys as numbers that tell their batch entry and head of keys, too; negative numbers stay.

    Args:
        named: coarse keys for each head of queries.
        heads: how many heads keys have; neighbouring heads of queries share one.
        count: how many coarse keys there are.

    Example:
        >>> by_head(torch.tensor([[[[0, 4]], [[4, -1]]]]), 2, 5).tolist()
        [[[0, 4]], [[9, -1]]]
    """
    entries, of_queries = named.shape[:2]
    head = torch.arange(entries * of_queries, device=named.device) // (of_queries // heads)
    return torch.where(named >= 0, named + (head * count).view(entries, of_queries, 1, 1), named).flatten(0, 1)


def repeated(part: Partition, times: int, elements: int) -> Partition:
    """The same cells of so many structures, one after another, of so many elements each.

    Example:
        >>> repeated(Partition.from_labels(torch.tensor([1, 0])), 2, 2).labels.tolist()
        [1, 0, 3, 2]
    """
    first = torch.arange(times, device=part.order.device)[:, None] * elements
    host = _offsets(part.host_offsets.diff().repeat(times))
    return Partition((first + part.order).flatten(), host.to(part.order.device), host, part.covers)


def _followed(part: Partition, elements: int, sizes: Int[Tensor, " more"]) -> Partition:
    """More cells, of the elements that follow those of a partition."""
    host = _offsets(torch.cat([part.host_offsets.diff(), sizes]))
    more = elements + torch.arange(int(sizes.sum()), device=part.order.device)
    return Partition(torch.cat([part.order, more]), host.to(part.order.device), host, part.covers)


def _offsets(sizes: Int[Tensor, " m"]) -> Int[Tensor, " m_plus_1"]:
    return torch.cat([sizes.new_zeros(1), sizes.cumsum(0)])


def _sums(x: Int[Tensor, " n"], counts: list[int]) -> list[int]:
    """Sums of the first so many numbers, of as many as come next, and so on."""
    return [int(part.sum()) for part in x.split(counts)]
