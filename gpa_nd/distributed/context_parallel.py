"""ContextParallel: a GPA whose structure is spread over several processes."""

from __future__ import annotations

from copy import copy
from dataclasses import replace
from math import prod
from typing import TypeVar

import torch
import torch.distributed as dist
from jaxtyping import Bool, Float, Shaped
from torch import Tensor, nn
from torch._compile import _disable_dynamo
from torch.distributed.device_mesh import DeviceMesh

from gpa_nd.distributed.agreement import agree, check_same
from gpa_nd.distributed.arguments import agreed
from gpa_nd.distributed.attention import attend
from gpa_nd.distributed.geometry import GEOMETRY, check_geometry
from gpa_nd.distributed.peers import Peers
from gpa_nd.distributed.plan import Plan
from gpa_nd.distributed.selection import select_keys
from gpa_nd.distributed.shards import Rows, Shards
from gpa_nd.distributed.share import Share
from gpa_nd.distributed.traffic import Traffic
from gpa_nd.engine.backends import phase1_of, scale_of
from gpa_nd.engine.bias import key_bias_of
from gpa_nd.engine.choice import choose
from gpa_nd.engine.rules import Rule, enough, rules_of
from gpa_nd.nn.gpa import GPA, LAYOUTS_KEPT
from gpa_nd.ops.base import Shape
from gpa_nd.partition import lasting

Name = TypeVar("Name")
Kept = TypeVar("Kept")


class ContextParallel(nn.Module):
    """One long sequence, image, volume, video or graph over several processes, each of which holds some rows of it.

    The result is that of the GPA in one process, and so are the gradients. Queries stay where they are. Every process
    gets all coarse keys, and selects for its own cells; then it fetches the keys and values that these selected and
    others hold, for each batch entry and head. No process holds all keys. It has no weights.

    All processes of the group make it, and call it together; they run the backward pass together, too.

    Args:
        gpa: the attention, with the same settings in every process.
        group: a process group, or a :class:`torch.distributed.device_mesh.DeviceMesh` with one dimension; by default
            all processes.

    Attributes:
        traffic: what came to this process in the last forward pass; None before it.

    Raises:
        TypeError: not a GPA, or a group of another kind.
        ValueError: ``torch.distributed`` was not initialised, a mesh with several dimensions, or a group that this
            process is not in.
        NotImplementedError: a GPA with a ``selection`` that learns, or ``unselected="pooled"``.

    Example:
        >>> import torch
        >>> import torch.distributed as dist
        >>> import gpa_nd
        >>> from gpa_nd.distributed import ContextParallel
        >>> dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)  # torchrun sets these
        >>> attention = ContextParallel(gpa_nd.audio(downsample=4, cells=8, kappa=2))
        >>> x = attention.shard(torch.randn(1, 2, 1000, 16))      # the rows of this process, here all of them
        >>> attention(x, x, x).shape
        torch.Size([1, 2, 1000, 16])
        >>> dist.destroy_process_group()
    """

    def __init__(self, gpa: GPA, group: dist.ProcessGroup | DeviceMesh | None = None) -> None:
        super().__init__()
        if not isinstance(gpa, GPA):
            raise TypeError(f"gpa: expected a GPA, got {type(gpa).__name__}")
        if gpa.selection is not None:
            raise NotImplementedError(
                f"selection: expected None, the hard selection that context parallelism has, got {gpa.selection}"
            )
        if gpa.unselected != "ignored":
            raise NotImplementedError(
                f"unselected: expected 'ignored', which is all that context parallelism has, got {gpa.unselected!r}"
            )
        self.gpa = gpa
        self.peers = Peers(group)
        self.traffic: Traffic | None = None
        self._plans: dict[object, Plan] = {}
        self._shares: dict[object, Share] = {}  # of plans, on devices
        self._same: dict[object, bool] = {}  # shapes whose layouts were compared

    def shards(self, query_shape: Shape, key_shape: Shape | None = None) -> Shards:
        """Which rows, places along the first axis, each process holds.

        They are cut between cells and between groups, in parts as equal as these allow. Where queries and keys have one
        shape, both are cut at the same places.

        Args:
            query_shape: sizes of the axes of all queries between heads and channels.
            key_shape: those of all keys; as of the queries by default.

        Raises:
            TypeError: as :meth:`.GPA.layout`.
            ValueError: as :meth:`.GPA.layout`.
        """
        return self._plan(tuple(query_shape), tuple(query_shape if key_shape is None else key_shape)).shards

    def shard(self, x: Shaped[Tensor, " ..."], axis: int = 2, rows: Rows | None = None) -> Shaped[Tensor, " ..."]:
        """The rows of this process, of a tensor that has them all; differentiable.

        Args:
            x: such as ``(B, H, *shape, c)`` or, with ``axis=1``, ``(B, *shape, c)``.
            axis: the first axis of the structure.
            rows: which rows each process holds, one of the two that :meth:`shards` tells; by default those of queries
                and keys of one shape, of which x has all axes from ``axis`` to the last but one.

        Raises:
            ValueError: x has another number of rows.
        """
        rows = self.shards(x.shape[axis:-1]).queries if rows is None else rows
        if x.shape[axis] != (count := sum(map(len, rows))):
            raise ValueError(f"x: expected {count} rows along axis {axis}, got {x.shape[axis]}")
        return x.index_select(axis, rows[self.peers.rank].to(x.device))

    @torch.no_grad()
    def unshard(self, x: Shaped[Tensor, " ..."], axis: int = 2, rows: Rows | None = None) -> Shaped[Tensor, " ..."]:
        """The tensor that has the rows of all processes, in every process; without a gradient.

        Args:
            x: the rows of this process.
            axis: the first axis of the structure.
            rows: as for :meth:`shard`.

        Raises:
            ValueError: in any process, x has another number of rows; or rows, or layouts, that differ between them.
        """
        given = [-1] * self.peers.size if rows is None else [len(places) for places in rows]
        told = agree(
            self.peers, lambda: {"rows": [x.shape[axis]], "given": given}, {"rows": 1, "given": self.peers.size}
        )
        check_same("rows", [None if -1 in each else each for each in told["given"]])
        counts = [count for (count,) in told["rows"]]
        shape = (sum(counts), *x.shape[axis + 1 : -1])
        rows = self._compared(shape, shape).queries if rows is None else rows
        _check_rows("x", counts, rows)
        own = x.movedim(axis, 0)
        padded = own.new_zeros(max(counts), *own.shape[1:])
        padded[: len(own)] = own
        everything = self.peers.gather(padded)
        found = own.new_empty(sum(counts), *own.shape[1:])
        for part, places in zip(everything, rows, strict=True):
            found[places.to(x.device)] = part[: len(places)]
        return found.movedim(0, axis)

    @_disable_dynamo  # how processes wait for one another cannot be traced; the public decorator imports the compiler
    def forward(
        self,
        q: Float[Tensor, "b h *query c"],
        k: Float[Tensor, "b h_k *key c"],
        v: Float[Tensor, "b h_k *key c_v"],
        *,
        key_mask: Bool[Tensor, " b *key"] | None = None,
        key_bias: Float[Tensor, "b h_k *key"] | None = None,
    ) -> Float[Tensor, "b h *query c_v"]:
        """Attend from every query of this process to the keys of all that are relevant to its cell.

        An error in the arguments of one process is an error in all.

        Args:
            q: ``(B, H, *query_shape, c)`` the queries of this process, as :meth:`shard` cuts them.
            k: ``(B, H, *key_shape, c)`` the keys of this process.
            v: ``(B, H, *key_shape, c_v)`` their values.
            key_mask: ``(B, *key_shape)`` bool, False for keys that nobody sees.
            key_bias: ``(B, H_k, *key_shape)``, added to the affinities of each key; differentiable.

        Returns:
            ``(B, H, *query_shape, c_v)`` of the queries of this process.

        Raises:
            TypeError: as :class:`~gpa_nd.GPA`, in this process.
            ValueError: as :class:`~gpa_nd.GPA`, in any process; other rows than :meth:`shards` says; tensors that
                differ between processes in more than these; or GPAs that differ in settings or in their layout.
        """
        gpa, peers = self.gpa, self.peers
        told = agreed(gpa, peers, q, k, v, key_mask, key_bias)
        shards = self._compared(told.query_shape, told.key_shape)
        _check_rows("q", told.rows["q"], shards.queries)
        _check_rows("k", told.rows["k"], shards.keys)
        own_shape, mask, added = q.shape[2:-1], key_mask, key_bias
        q, k, v = (x.flatten(2, -2) for x in (q, k, v))
        bias = key_bias_of(mask if mask is None else mask.flatten(1), added if added is None else added.flatten(2), k)
        if not prod((*q.shape[:2], *told.query_shape, *told.key_shape)):  # but a part of the graph of gradients
            self.traffic = Traffic(0, 0, 0)
            nothing = sum(x[..., :0].sum().to(q.dtype) for x in (q, k, v, bias) if x is not None)
            return torch.unflatten(q.new_zeros(*q.shape[:3], v.shape[-1]) + nothing, 2, own_shape)
        share = self._share(told.query_shape, told.key_shape, q.device)
        backend = phase1_of(
            choose(gpa.backend, (q, k), gpa.affinity, gpa.ranking), scale_of(gpa.scale, q), gpa.affinity
        )
        before = peers.received
        relevant = select_keys(q, k, bias, share, _rules_of(gpa, share), backend, peers)
        coarse = peers.received - before
        out = attend(
            *(q, k, v, bias, relevant, share, peers), scale=gpa.scale, affinity=gpa.affinity, backend=gpa.backend
        )
        elsewhere = (prod(told.key_shape) - k.shape[2]) * k.shape[0] * k.shape[1]
        width = (k.shape[3] + v.shape[3]) * k.element_size()
        self.traffic = Traffic(coarse, peers.received - before - coarse, elsewhere * width)
        return torch.unflatten(out, 2, own_shape)

    def _compared(self, query_shape: tuple[int, ...], key_shape: tuple[int, ...]) -> Shards:
        """The shards, once all processes found together that their layouts say the same.

        Raises:
            ValueError: they do not, or one of them cannot be made.
        """
        shapes = query_shape, key_shape
        if shapes not in self._same:
            check_geometry(agree(self.peers, lambda: self._plan(*shapes).geometry, GEOMETRY))
            _keep(self._same, shapes, True)
        return self._plan(*shapes).shards

    def _plan(self, query_shape: tuple[int, ...], key_shape: tuple[int, ...]) -> Plan:
        """What is kept of the layout of the whole, which a copy of the GPA makes, so that nobody keeps it."""
        shapes = query_shape, key_shape
        if shapes not in self._plans:
            with lasting():
                layout = copy(self.gpa).layout(*shapes)
                _keep(self._plans, shapes, Plan.of(layout, *shapes, self.peers.rank, self.peers.size))
        return self._plans[shapes]

    def _share(self, query_shape: tuple[int, ...], key_shape: tuple[int, ...], device: torch.device) -> Share:
        name = query_shape, key_shape, device
        if name not in self._shares:
            with lasting():
                _keep(self._shares, name, self._plan(query_shape, key_shape).share.to(device))
        return self._shares[name]


def _rules_of(gpa: GPA, share: Share) -> tuple[Rule, ...]:
    """How each level selects, κ no more than any cell of any process may select."""
    kappas = gpa.kappa if isinstance(gpa.kappa, tuple) else (gpa.kappa,) * share.levels
    first, *others = rules_of(kappas, gpa.ranking, gpa.mass, gpa.affinity)
    first = replace(first, kappa=max(1, min(first.kappa, share.most_visible)))
    return (first,) if share.above is None else (first, *enough(tuple(others), share.above.layout))


def _keep(kept: dict[Name, Kept], name: Name, value: Kept) -> None:
    """Keep the last few."""
    kept[name] = value
    if len(kept) > LAYOUTS_KEPT:
        del kept[next(iter(kept))]


def _check_rows(name: str, counts: list[int], rows: Rows) -> None:
    """As many rows in every process as it is to hold.

    Raises:
        ValueError: another number.
    """
    expected = list(map(len, rows))
    if counts != expected:
        raise ValueError(
            f"{name}: expected {expected} rows along the first axis in the processes, as ContextParallel.shards says, "
            f"got {counts}; ContextParallel.shard cuts them from the whole"
        )
