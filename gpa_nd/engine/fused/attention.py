"""Phase 2 on a GPU: the operators that autograd and torch.compile see, and the launches under them."""

from __future__ import annotations

from typing import Any, NoReturn

import torch
from jaxtyping import Float, Int
from torch import Tensor

from gpa_nd.engine.fused.attention_kernels import attend_kernel
from gpa_nd.engine.fused.attention_settings import Kernel, Tiles, parts_of, power, tiles_for
from gpa_nd.engine.fused.gradient_kernels import (
    add_parts_kernel,
    key_gradient_kernel,
    logit_gradient_kernel,
    query_gradient_kernel,
)
from gpa_nd.engine.fused.groups import Groups
from gpa_nd.engine.fused.launch import Chip, chip_of, launch
from gpa_nd.engine.fused.lists import turned_round
from gpa_nd.engine.fused.packs import unions
from gpa_nd.layout import Layout


def attend(
    q: Float[Tensor, "b h n_q c"],
    k: Float[Tensor, "b h_k n_k c"],
    v: Float[Tensor, "b h_k n_k c_v"],
    layout: Layout,
    relevant: Int[Tensor, "b h m kappa"],
    logits: Float[Tensor, "b h m kappa"] | None,
    scale: float,
    query_positions: Int[Tensor, " n_q"] | None = None,
    key_positions: Int[Tensor, " n_k"] | None = None,
) -> Float[Tensor, "b h n_q c_v"]:
    """Phase 2 (lines 12–19): every query attends to the elements under its cell's coarse keys.

    Query head h reads key head h // (H / H_k). Where positions are given, query i sees key j only if
    ``key_positions[j] <= query_positions[i]``.
    """
    cells, members = layout.fine_cells, layout.members
    out: Tensor = fused_attend(
        q,
        k,
        v,
        relevant,
        None if logits is None else logits.float(),
        query_positions,
        key_positions,
        cells.order,
        cells.offsets,
        members.order,
        members.offsets,
        cells.largest,
        members.largest,
        float(scale),
    )[0]
    return out


@torch.library.custom_op("gpa_nd::fused_attend", mutates_args=())
def fused_attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    relevant: Tensor,
    logits: Tensor | None,
    query_positions: Tensor | None,
    key_positions: Tensor | None,
    cell_order: Tensor,
    cell_offsets: Tensor,
    member_order: Tensor,
    member_offsets: Tensor,
    largest_cell: int,
    largest_group: int,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """The output (B, H, n_q, c_v), and the log-sum-exp in base 2: (2, B, H, n_q) float32 that are to be added.

    The first is a row's largest score, −∞ where nothing is seen.
    """
    out, lse, remainder = empty_results(q, v)
    q, k, v = (with_whole_rows(x) for x in (q, k, v))
    cells = Groups(cell_order, cell_offsets, largest_cell)
    members = Groups(member_order, member_offsets, largest_group)
    call = Call(chip_of(q.device), q, k, v, logits, query_positions, key_positions, scale, wide=(q, k, v, out))
    check_reach(q, k, relevant)
    cells, relevant, takers = packed_cells(cells, relevant, logits)
    tiles = call.tiles("forward", cells)
    count, cell_of_tile = cells.tiles(tiles.rows)
    heads, kappa = relevant.shape[1], relevant.shape[3]
    launch(
        attend_kernel,
        (q.shape[0] * heads * count,),
        q,
        k,
        v,
        relevant,
        takers,
        *call.extras,
        cells.order,
        cells.offsets,
        cell_of_tile,
        members.order,
        members.offsets,
        out,
        remainder,
        *lse,
        *rows_of(q, k, v),
        scale,
        heads,
        heads // k.shape[1],
        len(cells),
        kappa,
        count,
        q.shape[2],
        CELL=cells.size,
        GROUP=members.size,
        ROWS=tiles.rows,
        SLOTS=slots_at_once(kappa),
        PACKED=cells.packed,
        **call.settings(tiles),
    )
    return out, lse, remainder


@fused_attend.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, *_: object) -> tuple[Tensor, Tensor, Tensor]:
    return empty_results(q, v)


@torch.library.custom_op("gpa_nd::fused_attend_backward", mutates_args=())
def fused_attend_backward(
    grad_out: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    lse: Tensor,
    remainder: Tensor,
    relevant: Tensor,
    logits: Tensor | None,
    query_positions: Tensor | None,
    key_positions: Tensor | None,
    cell_order: Tensor,
    cell_offsets: Tensor,
    member_order: Tensor,
    member_offsets: Tensor,
    largest_cell: int,
    largest_group: int,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The gradients of q, k, v and logits; the last has no elements where there are no logits."""
    dq, dk, dv, dlogits = empty_gradients(q, k, v, relevant, logits)
    grad_out, q, k, v = (with_whole_rows(x) for x in (grad_out, q, k, v))
    cells = Groups(cell_order, cell_offsets, largest_cell)
    members = Groups(member_order, member_offsets, largest_group)
    call = Call(
        chip_of(q.device),
        q,
        k,
        v,
        logits,
        query_positions,
        key_positions,
        scale,
        wide=(q, k, v, grad_out, dq, dk, dv, out),
    )
    delta = query_gradient(call, grad_out, out, remainder, lse, relevant, cells, members, dq, dlogits)
    if len(member_order) < k.shape[2]:
        dk.zero_()
        dv.zero_()
    key_gradient(call, grad_out, lse, delta, relevant, cells, members, dk, dv)
    return dq, dk, dv, dlogits


@fused_attend_backward.register_fake
def _(
    grad_out: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    lse: Tensor,
    remainder: Tensor,
    relevant: Tensor,
    logits: Tensor | None,
    *_: object,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return empty_gradients(q, k, v, relevant, logits)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    q, k, v, relevant, logits, *rest = inputs
    ctx.save_for_backward(q, k, v, *output, relevant, logits, *rest[:6])
    ctx.rest = rest[6:]
    ctx.mark_non_differentiable(*output[1:])


def _differentiate(ctx: Any, grad_out: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
    *grads, grad_logits = fused_attend_backward(grad_out, *ctx.saved_tensors, *ctx.rest)
    return *grads, None, grad_logits if ctx.needs_input_grad[4] else None, *(None,) * 9


fused_attend.register_autograd(_differentiate, setup_context=_save)


def _differentiate_twice(ctx: Any, *_: Tensor) -> NoReturn:
    raise NotImplementedError("backend 'triton' has no second derivatives; backend='reference' has them")


fused_attend_backward.register_autograd(_differentiate_twice)


# The launches of the backward


def query_gradient(
    call: Call,
    grad_out: Tensor,
    out: Tensor,
    remainder: Tensor,
    lse: Tensor,
    relevant: Tensor,
    cells: Groups,
    members: Groups,
    dq: Tensor,
    dlogits: Tensor,
) -> Tensor:
    """Fill dq, and dlogits where there are logits; return δ (B, H, n_q)."""
    q, k, v = call.q, call.k, call.v
    delta = torch.empty_like(lse[0])
    cells, relevant, takers = packed_cells(cells, relevant, call.logits)
    tiles = call.tiles("query gradient", cells)
    count, cell_of_tile = cells.tiles(tiles.rows)
    batch, heads, _, kappa = relevant.shape
    adds = call.logits is not None and count > len(cells)
    parts = torch.empty(batch * heads, count, kappa, dtype=torch.float32, device=q.device) if adds else dlogits
    launch(
        query_gradient_kernel,
        (batch * heads * count,),
        q,
        k,
        v,
        out,
        remainder,
        *lse,
        grad_out,
        relevant,
        takers,
        *call.extras,
        cells.order,
        cells.offsets,
        cell_of_tile,
        members.order,
        members.offsets,
        delta,
        dq,
        parts,
        *rows_of(q, k, v, grad_out),
        call.scale,
        heads,
        heads // k.shape[1],
        len(cells),
        kappa,
        count,
        q.shape[2],
        CELL=cells.size,
        GROUP=members.size,
        ROWS=tiles.rows,
        SLOTS=slots_at_once(kappa),
        PACKED=cells.packed,
        **call.settings(tiles),
    )
    if adds:
        launch(
            logit_gradient_kernel,
            (batch * heads * len(cells),),
            parts,
            dlogits,
            cells.offsets,
            len(cells),
            kappa,
            count,
            CELL=cells.size,
            ROWS=tiles.rows,
            SLOTS=slots_at_once(kappa),
            num_warps=1,
        )
    return delta


def key_gradient(
    call: Call,
    grad_out: Tensor,
    lse: Tensor,
    delta: Tensor,
    relevant: Tensor,
    cells: Groups,
    members: Groups,
    dk: Tensor,
    dv: Tensor,
) -> None:
    """Fill dk and dv of the members: from the lists of cells that chose their groups, in parts where those are long."""
    q, k, v = call.q, call.k, call.v
    batch, heads, _, kappa = relevant.shape
    key_heads, n_q, n_k = k.shape[1], q.shape[2], k.shape[2]
    pack = members.packable if call.logits is None else 1
    lists = turned_round(relevant, len(members), key_heads, pack)
    members = members.pack(pack)
    tiles = call.tiles("key gradient", members)
    per_slot = entries_per_slot(cells.typical, lists.length, len(members))
    slots, group_of_slot = members.shares(tiles.rows, lists, per_slot)
    part_keys, part_slots = min(tiles.rows, members.largest), 2 * lists.length // per_slot
    width = q.shape[-1] + v.shape[-1]
    parts = torch.empty(batch * key_heads, part_slots, part_keys, width, dtype=torch.float32, device=q.device)
    launch(
        key_gradient_kernel,
        (batch * key_heads * slots,),
        q,
        k,
        v,
        *lse,
        delta,
        grad_out,
        *call.extras,
        cells.order,
        cells.offsets,
        members.order,
        members.offsets,
        lists.entries,
        lists.takers,
        lists.offsets,
        group_of_slot,
        dk,
        dv,
        parts,
        *rows_of(q, k, v, grad_out),
        call.scale,
        key_heads,
        heads // key_heads,
        len(cells),
        len(members),
        kappa,
        lists.length,
        per_slot,
        slots,
        part_slots,
        n_q,
        n_k,
        CELL=cells.size,
        GROUP=members.size,
        KEYS=tiles.rows,
        PART_KEYS=part_keys,
        SLOTS=16 if cells.typical >= 16 else 64,
        PACKED=members.packed,
        **call.settings(tiles),
    )
    if part_slots:
        launch(
            add_parts_kernel,
            (batch * key_heads * slots,),
            members.order,
            members.offsets,
            lists.offsets,
            group_of_slot,
            parts,
            dk,
            dv,
            len(members),
            lists.length,
            per_slot,
            slots,
            part_slots,
            n_k,
            C=q.shape[-1],
            C_WIDTH=power(q.shape[-1]),
            V=v.shape[-1],
            V_WIDTH=power(v.shape[-1]),
            GROUP=members.size,
            KEYS=tiles.rows,
            PART_KEYS=part_keys,
            WIDE=call.is_wide,
            num_warps=4,
        )


# What the launches are given


def empty_results(q: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Room for the output, the log-sum-exp, and in 16 bits for what is rounded off the output."""
    out = q.new_empty(*q.shape[:3], v.shape[3])
    lse = q.new_empty(2, *q.shape[:3], dtype=torch.float32)
    return out, lse, torch.empty_like(out) if out.dtype != torch.float32 else q.new_empty(0)


def empty_gradients(
    q: Tensor, k: Tensor, v: Tensor, relevant: Tensor, logits: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Room for the gradients of q, k, v and logits."""
    dlogits = q.new_empty(0 if logits is None else relevant.shape, dtype=torch.float32)
    return q.new_empty(q.shape), k.new_empty(k.shape), v.new_empty(v.shape), dlogits


def with_whole_rows(x: Tensor) -> Tensor:
    """x, copied if the channels of a row do not lie side by side."""
    return x if x.stride(-1) == 1 else x.contiguous()


class Call:
    """What all launches of one call share.

    Args:
        wide: the tensors that decide whether offsets need 64 bits.
    """

    def __init__(
        self,
        chip: Chip,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        logits: Tensor | None,
        query_positions: Tensor | None,
        key_positions: Tensor | None,
        scale: float,
        wide: tuple[Tensor, ...],
    ) -> None:
        self.chip, self.q, self.k, self.v, self.logits, self.scale = chip, q, k, v, logits, scale
        self.has_positions = query_positions is not None
        self.is_wide = any(reach(x) >= 2**31 for x in wide)
        # Contiguous tensors; those that are absent, and that no kernel reads then, are another.
        self.extras = [q if x is None else x.contiguous() for x in (logits, query_positions, key_positions)]

    def tiles(self, kernel: Kernel, owned: Groups) -> Tiles:
        """The tiles of a kernel whose programs own elements of these groups."""
        widest = max(self.q.shape[-1], self.v.shape[-1])
        return tiles_for(kernel, self.q.dtype, widest, owned.typical, self.has_positions, self.chip)

    def settings(self, tiles: Tiles) -> dict[str, object]:
        """The constants that the three kernels have in common, and how they are launched."""
        c, c_v = self.q.shape[-1], self.v.shape[-1]
        least = tiles.rows if self.q.dtype.itemsize == 2 else 0
        (c0, c1), (v0, v1) = parts_of(c, least), parts_of(c_v, least)
        return {
            **{"C": c, "C0": c0, "C1": c1, "V": c_v, "V0": v0, "V1": v1},
            "HAS_LOGITS": self.logits is not None,
            "HAS_POSITIONS": self.has_positions,
            "PRECISION": "tf32x3" if self.chip.is_nvidia else "ieee",
            "WIDEN": self.chip.is_interpreter and self.q.dtype == torch.bfloat16,
            "WIDE": self.is_wide,
            "COLUMNS": tiles.columns,
            "CHUNK": tiles.chunk,
            "num_warps": tiles.warps,
            "num_stages": tiles.stages,
            # All registers, of which the assembler would rather spill a few.
            **({"maxnreg": 255} if self.chip.is_nvidia else {}),
        }


def packed_cells(cells: Groups, relevant: Tensor, logits: Tensor | None) -> tuple[Groups, Tensor, Tensor]:
    """Packs of cells with the unions of their lists, and which of them takes what; or all as it was.

    A logit is of one cell and one coarse key: where there are logits, nothing is packed.
    """
    if cells.packable == 1 or logits is not None or not relevant.shape[-1]:
        return cells, relevant.contiguous(), relevant
    return cells.pack(cells.packable), *unions(relevant, cells.packable)


def check_reach(q: Tensor, k: Tensor, relevant: Tensor) -> None:
    """Elements and entries of lists are counted in 32 bits, from the first of their head.

    Raises:
        ValueError: there are more.
    """
    counts = {"queries": q.shape[2], "keys": k.shape[2], "selected keys of a head": relevant[0, 0].numel()}
    counts["selected keys of a head"] *= q.shape[1] // k.shape[1]
    if too_many := [f"{count} {name}" for name, count in counts.items() if count >= 2**31]:
        raise ValueError(f"q, k: backend 'triton' takes fewer than 2³¹ of each, got {' and '.join(too_many)}")


def rows_of(*tensors: Tensor) -> list[int]:
    """Strides up to that of the rows."""
    return [stride for x in tensors for stride in x.stride()[:3]]


def reach(x: Tensor) -> int:
    """How far from the first element of a batch entry the last one may lie."""
    return sum((size - 1) * abs(stride) for size, stride in zip(x.shape[1:], x.stride()[1:], strict=True)) + 1


def slots_at_once(kappa: int) -> int:
    """Slots of a cell that are looked up together."""
    return min(power(kappa), 32)


def entries_per_slot(cell: int, length: int, groups: int) -> int:
    """How many entries of a list are a program's work: at least 16, more where cells are so small that it is little.

    And at least twice as many as a list of ``length / groups`` has, so that the parts of the lists that are split take
    no more room than the gradients themselves.

    Example:
        >>> entries_per_slot(64, 12288, 4096), entries_per_slot(1, 12288, 4096), entries_per_slot(64, 98304, 960)
        (16, 1024, 205)
    """
    return max(16, min(1024, power(1024 // cell)), -(-2 * length // groups))
