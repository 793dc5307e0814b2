"""Lines 12–19 and their gradient, for a block of cells at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from gpa_nd.engine.blocked.blocks import Block, CellBlocks, Scratch, all_finite, hide, limit, possible, softmax
from gpa_nd.engine.blocked.members import Members
from gpa_nd.engine.blocked.positions import Positions
from gpa_nd.engine.blocked.widths import widths
from gpa_nd.engine.distances import distance_gradients, squared_distances
from gpa_nd.engine.precision import wide
from gpa_nd.partition import Partition, add_rows


@dataclass
class BlockKeys:
    """What the cells of a block attend to.

    Attributes:
        element: (p, r) its number.
        row: (p, r) where it is among all rows of k and v.
        slot: (p, r) which of the κ coarse keys it is under.
        seen: (p, 1, r) whether it is real, and not masked; None if all are. What is not real repeats one that is, and
            is zero without one.
        k: (p, r, c) the keys.
        v: (p, r, c_v) the values.
        added: (p, 1, r) what is added to the scores, or None.
    """

    element: Int[Tensor, "p r"]
    row: Int[Tensor, "p r"]
    slot: Int[Tensor, "p r"]
    seen: Bool[Tensor, "p 1 r"] | None
    k: Float[Tensor, "p r c"]
    v: Float[Tensor, "p r c_v"]
    added: Float[Tensor, "p 1 r"] | None


class Bias:
    """What is added to the scores of each key: (B, H_k, n_k), −∞ where it is masked.

    Batch entries or heads that share one are not copied.
    """

    def __init__(self, bias: Tensor) -> None:
        self.bias, self.heads = bias, bias.shape[1]
        all_entries, all_heads = (n > 1 and bias.stride(axis) == 0 for axis, n in enumerate(bias.shape[:2]))
        rows = bias[: 1 if all_entries else None, : 1 if all_heads else None]
        self.per_entry = 0 if all_entries else rows.shape[1] * rows.shape[2]
        self.per_head = 0 if all_heads else rows.shape[2]
        self.rows = rows.reshape(-1)

    def of(self, head: Int[Tensor, " p"], element: Int[Tensor, "p r"]) -> Float[Tensor, "p r"]:
        """What is added to these keys of each head, counted over batch entries and heads."""
        first = head // self.heads * self.per_entry + head % self.heads * self.per_head
        return self.rows.index_select(0, (first[:, None] + element).flatten()).view(element.shape)

    def of_visible(self, grad: Float[Tensor, "b h_k n_k"]) -> Float[Tensor, "b h_k n_k"]:
        """The gradient, zero where a key is masked."""
        return grad.masked_fill(self.bias.isneginf(), 0).to(self.bias.dtype)


@dataclass
class BlockQueries:
    """Some queries of each cell of a block, and how they attend.

    Attributes:
        element: (p, s) its number.
        row: (p, s) where it is among all rows of q; the row after the last one for padding.
        silent: (p, s) True for padding, which nobody reads, and in cells that are NaN; None if no query is.
        q: (p, s, c) the queries, times the scale if the affinity is a dot product.
        weights: (p, s, r) softmax of its scores over the keys that it sees.
    """

    element: Int[Tensor, "p s"]
    row: Int[Tensor, "p s"]
    silent: Bool[Tensor, "p s"] | None
    q: Float[Tensor, "p s c"]
    weights: Float[Tensor, "p s r"]


class Phase2:
    """Phase 2 for a block of (head, cell) pairs at a time. The arguments are those of the operator."""

    def __init__(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        relevant: Tensor,
        logits: Tensor | None,
        bias: Tensor | None,
        cells: list[Tensor],
        members: list[Tensor],
        query_positions: Tensor | None,
        key_positions: Tensor | None,
        always: Tensor | None,
        scale: float,
        affinity: str,
    ) -> None:
        self.shapes, self.dtype = (q.shape, k.shape, v.shape), wide(q.dtype)
        heads = torch.arange(q.shape[0] * q.shape[1], device=q.device)
        sharing = q.shape[1] // k.shape[1]  # query heads that read the same head of k and v
        self.key_head = heads // sharing
        self.first_query, self.first_key = heads * q.shape[2], self.key_head * k.shape[2]
        self.q, self.k, self.v = (x.reshape(-1, x.shape[-1]) for x in (q, k, v))
        self.relevant = relevant.flatten(0, 1)
        self.logits = None if logits is None else logits.flatten(0, 1)
        self.bias = None if bias is None else Bias(bias)
        self.positions = None
        if query_positions is not None and key_positions is not None:
            self.positions = Positions(query_positions, key_positions, self.dtype)
        self.scale, self.affinity = scale, affinity
        spoilt = (self.relevant == -2).any(-1)
        self.spoilt = spoilt if possible(spoilt) else None
        self.cells = Partition.from_tensors(cells)
        self.rows = len(self.q) + (not self.cells.uniform)  # the last one takes what is computed for padding
        part = Partition.from_tensors(members)
        self.members = [
            (Members(part, (self.relevant if cells is None else self.relevant[:, cells])[..., :columns]), cells)
            for columns, cells in widths(self.relevant, always)
        ]
        self.room = Scratch(q.device)
        self.sums: Tensor | None = None  # of e to the scores of each query, their logarithm, where that is wanted

    def attend_with_sums(self) -> tuple[Float[Tensor, "b h n_q c_v"], Float[Tensor, "b h n_q"]]:
        """The result, and the log-sum-exp of each query's scores, −∞ where it sees nothing."""
        self.sums = torch.empty(self.rows, dtype=self.dtype, device=self.q.device)
        return self.attend(), self.sums[: len(self.q)].view(self.shapes[0][:3])

    def attend(self) -> Float[Tensor, "b h n_q c_v"]:
        """The result."""
        out = self.v.new_empty(self.rows, self.v.shape[-1])
        dtype = self.v.dtype if multiplies(self.v) else self.dtype
        for members, block in self._blocks(matrices=2):
            keys = self._gather(members, block, dtype)
            for queries in self._score(block, keys, matrices=2):
                x = self._weigh(queries, keys)
                if queries.silent is not None:  # not in padding, whose results nobody reads
                    x.masked_fill_(queries.silent[..., None], torch.nan)
                out.index_copy_(0, queries.row.flatten(), x.flatten(0, 1).to(out.dtype))
        return out[: len(self.q)].view(*self.shapes[0][:3], -1)

    def gradients(self, grad: Tensor, grad_sums: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Those of q, k, v, the logits and the bias; empty where there are no logits or no bias."""
        grad_sums = None if grad_sums is None else grad_sums.reshape(-1, 1)
        grad = grad.reshape(-1, grad.shape[-1])
        dq = self.q.new_empty(self.rows, self.q.shape[-1])
        dk, dv = (torch.zeros(x.shape, dtype=self.dtype, device=x.device) for x in (self.k, self.v))
        dlogits = torch.zeros(self.relevant.numel(), 1, dtype=self.dtype, device=grad.device)
        dbias = dlogits.new_zeros(len(self.k), 1) if self.bias is not None else dlogits.new_empty(0)
        self._add_gradients(grad, grad_sums, dq=dq, dk=dk, dv=dv, dlogits=dlogits, dbias=dbias)
        self.room = Scratch(grad.device)  # what blocks were computed in is given up before gradients are rounded
        of_q, of_k, of_v = (
            x.view(shape).to(grad.dtype) for x, shape in zip((dq[: len(self.q)], dk, dv), self.shapes, strict=True)
        )
        of_logits, of_bias = dlogits.new_empty(0), dbias
        if self.logits is not None:
            of_logits = dlogits.to(self.logits.dtype).view(*self.shapes[0][:2], *self.relevant.shape[1:])
        if self.bias is not None:
            of_bias = self.bias.of_visible(dbias.view(self.shapes[1][:3]))
        return of_q, of_k, of_v, of_logits, of_bias

    def _add_gradients(
        self,
        grad: Float[Tensor, "rows c_v"],
        grad_sums: Float[Tensor, "rows 1"] | None,
        *,
        dq: Tensor,
        dk: Tensor,
        dv: Tensor,
        dlogits: Tensor,
        dbias: Tensor,
    ) -> None:
        """Block by block; a row of dq is written once, to the others is added."""
        for members, block in self._blocks(matrices=4):
            keys = self._gather(members, block, self.dtype)
            if self.positions is not None:  # what no query sees may be anything
                keys.k.nan_to_num_(0, 0, 0), keys.v.nan_to_num_(0, 0, 0)
            dk_rows, dv_rows = self._zeros("dk", keys.k.shape), self._zeros("dv", keys.v.shape)
            dadded = self._zeros("dadded", keys.row.shape)
            for queries in self._score(block, keys, matrices=4):
                dx = self._pick("dx", grad, queries.row.clamp_max(len(grad) - 1), self.dtype)
                if queries.silent is not None:
                    dx.masked_fill_(queries.silent[..., None], 0)
                dv_rows.baddbmm_(queries.weights.mT, dx)
                dscores = torch.bmm(dx, keys.v.mT, out=self.room("dscores", queries.weights.shape, self.dtype))
                dscores -= torch.linalg.vecdot(dscores, queries.weights)[..., None]
                if grad_sums is not None:
                    dsums = self._pick("dsums", grad_sums, queries.row.clamp_max(len(grad) - 1), self.dtype)
                    dscores += dsums if queries.silent is None else dsums.masked_fill_(queries.silent[..., None], 0)
                dscores *= queries.weights
                dadded += dscores.sum(1)
                if self.affinity == "dot":
                    dq_rows = torch.bmm(dscores, keys.k, out=self.room("dq", queries.q.shape, self.dtype))
                    dk_rows.baddbmm_(dscores.mT, queries.q)
                else:
                    dq_rows, from_here = distance_gradients(dscores, queries.q, keys.k)
                    dq_rows.neg_()
                    dk_rows -= self.scale * from_here
                dq.index_copy_(0, queries.row.flatten(), dq_rows.mul_(self.scale).flatten(0, 1).to(dq.dtype))
            add_rows(dk, keys.row.flatten(), dk_rows.flatten(0, 1))
            add_rows(dv, keys.row.flatten(), dv_rows.flatten(0, 1))
            if self.logits is not None:
                entry = (block.heads * len(self.cells) + block.cells)[:, None] * self.relevant.shape[-1] + keys.slot
                add_rows(dlogits, entry.flatten(), dadded.view(-1, 1))
            if self.bias is not None:
                add_rows(dbias, keys.row.flatten(), dadded.view(-1, 1))

    def _blocks(self, matrices: int) -> Iterator[tuple[Members, Block]]:
        """Blocks in which keys, values, and so many tables of scores and gradients stay in the cache together."""
        row, copies = self.q.shape[-1] + self.v.shape[-1], matrices // 2  # gradients of both take as much room
        for members, cells in self.members:
            blocks = CellBlocks(
                self.cells,
                limit(self.q),
                per_element=row + matrices * members.columns,
                per_cell=copies * row * members.columns,
                heads=len(self.relevant),
                only=cells,
            )
            for block in blocks:
                yield members, block

    def _gather(self, members: Members, block: Block, dtype: torch.dtype) -> BlockKeys:
        """Lines 15–16; keys in the dtype that is computed in, values in the one that is given."""
        element, slot, real = members.of(self.relevant[block.heads, block.cells, : members.kappa])
        row = element + self.first_key[block.heads, None]
        k, v = self._pick("k", self.k, row, self.dtype), self._pick("v", self.v, row, dtype)
        seen, added = None if real is None else real[:, None], None
        if self.bias is not None:
            added = self.bias.of(self.key_head[block.heads], element)[:, None].to(self.dtype)
            if possible(masked := added.isneginf()):
                seen = ~masked if seen is None else seen & ~masked
                added.masked_fill_(masked, 0)
        if seen is not None and possible(nothing := ~seen.any(-1, keepdim=True)):
            k.masked_fill_(nothing, 0), v.masked_fill_(nothing, 0)
        if self.logits is not None and self.logits.shape[-1]:
            of_slots = self.logits[block.heads, block.cells].to(self.dtype).gather(-1, slot)[:, None]
            added = of_slots if added is None else of_slots.add_(added)
        return BlockKeys(element, row, slot, seen, k, v, added)

    def _score(self, block: Block, keys: BlockKeys, matrices: int) -> Iterator[BlockQueries]:
        """Softmax of the scores of line 17, for as many queries of each cell at once as there is room for."""
        cells, size = block.elements.shape
        step = max(1, limit(self.q) // (cells * matrices * keys.row.shape[1]))
        spoilt = None if self.spoilt is None else self.spoilt[block.heads, block.cells, None]
        silent = None if block.real is None else ~block.real
        if spoilt is not None:
            silent = spoilt.expand(cells, size) if silent is None else spoilt | silent
        for start in range(0, size, step):
            some = slice(start, start + step)
            element = block.elements[:, some]
            row = element + self.first_query[block.heads, None]
            q = self._pick("q", self.q, row, self.dtype)
            q = q.mul_(self.scale) if self.affinity == "dot" else q
            if spoilt is not None:  # nothing of a cell that is NaN may reach the gradients of others
                q.masked_fill_(spoilt[..., None], 0)
            if block.real is not None:
                row = torch.where(block.real[:, some], row, len(self.q))
            weights = self._softmax(element, row, q, keys)
            yield BlockQueries(element, row, None if silent is None else silent[:, some], q, weights)

    def _softmax(self, element: Tensor, row: Tensor, q: Tensor, keys: BlockKeys) -> Float[Tensor, "p s r"]:
        shape = (*q.shape[:2], keys.row.shape[1])
        scores = self.room("scores", shape, self.dtype)
        if self.affinity == "dot":
            torch.bmm(q, keys.k.mT, out=scores)
        else:
            torch.mul(squared_distances(q, keys.k), -self.scale, out=scores)
        if keys.added is not None:
            scores += keys.added
        if self.positions is not None:
            nothing = self.positions.hide(scores, element, keys.element, keys.seen, self.room)
        elif keys.seen is not None:
            hide(scores, ~keys.seen)
            nothing = ~keys.seen.any(-1, keepdim=True)
        if self.sums is not None:
            self.sums.index_copy_(0, row.flatten(), scores.logsumexp(-1).flatten())
        if self.positions is None and keys.seen is None:
            return softmax(scores, self.room)
        weights = softmax(scores, self.room)
        return weights.masked_fill_(nothing, 0) if possible(nothing) else weights

    def _weigh(self, queries: BlockQueries, keys: BlockKeys) -> Float[Tensor, "p s c_v"]:
        """Line 17: the weighted sum of the values."""
        weights, v = queries.weights.to(keys.v.dtype), keys.v
        if self.positions is None or all_finite(v):
            x = torch.bmm(weights, v, out=self.room("x", (*weights.shape[:2], v.shape[2]), v.dtype))
        else:  # the weight of what a query does not see is zero, but 0 · ∞ is not
            seen = self.positions.seen(queries.element, keys.element, keys.seen)
            spoilt = torch.bmm(seen.to(v.dtype), (~v.isfinite()).to(v.dtype)) > 0
            x = torch.bmm(weights, v.nan_to_num(0, 0, 0)).masked_fill_(spoilt, torch.nan)
        return x

    def _pick(self, name: str, x: Tensor, row: Tensor, dtype: torch.dtype) -> Tensor:
        """Rows of x by their numbers."""
        flat = torch.index_select(x, 0, row.flatten(), out=self.room(name, (row.numel(), x.shape[1]), x.dtype))
        if x.dtype != dtype:
            flat = self.room(f"wide {name}", flat.shape, dtype).copy_(flat)
        return torch.unflatten(flat, 0, row.shape)

    def _zeros(self, name: str, shape: torch.Size) -> Tensor:
        return self.room(name, shape, self.dtype).zero_()


def multiplies(x: Tensor) -> bool:
    """Whether the device multiplies matrices of this dtype, whose sums are then rounded once, to the result."""
    if x.device.type != "cpu" or x.dtype != torch.bfloat16:
        return x.device.type != "cpu" or x.dtype in (torch.float32, torch.float64)
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
