"""Phase 2 on a GPU: the operators that autograd and torch.compile see, and the launches under them."""

from __future__ import annotations

from typing import Any, NoReturn

import torch
from jaxtyping import Float, Int
from torch import Tensor

from gpa_nd.engine.fused.attention_kernels import attend_kernel
from gpa_nd.engine.fused.attention_settings import Tiles, parts_of, power, tiles_for
from gpa_nd.engine.fused.gradient_kernels import (
    add_parts_kernel,
    key_gradient_kernel,
    logit_gradient_kernel,
    query_gradient_kernel,
)
from gpa_nd.engine.fused.launch import Chip, chip_of, launch
from gpa_nd.engine.fused.lists import turned_round
from gpa_nd.engine.fused.tables import owners, slots_of
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
    chip = chip_of(q.device)
    q, k, v = (with_whole_rows(x) for x in (q, k, v))
    heads, cells, kappa = relevant.shape[1:]
    out, lse, remainder = empty_results(q, v)
    of_sizes = sizes(cell_order, cell_offsets, largest_cell, member_order, member_offsets, largest_group)
    of_kinds = kinds(chip, q, logits, query_positions, wide=(q, k, v, out))
    cell = typical(cell_order, cell_offsets, largest_cell)
    masked = query_positions is not None
    tiles = tiles_for("forward", q.dtype, widest(q, v), cell, masked, chip)
    count, cell_of_tile = cell_tiles(cell_order, cell_offsets, largest_cell, tiles.rows)
    launch(
        attend_kernel,
        (q.shape[0] * heads * count,),
        q,
        k,
        v,
        relevant.contiguous(),
        *or_stand_ins(q, logits, query_positions, key_positions),
        cell_order,
        cell_offsets,
        cell_of_tile,
        member_order,
        member_offsets,
        out,
        remainder,
        *lse,
        *q.stride()[:3],
        *k.stride()[:3],
        *v.stride()[:3],
        scale,
        heads,
        heads // k.shape[1],
        cells,
        kappa,
        count,
        q.shape[2],
        ROWS=tiles.rows,
        SLOTS=slots_at_once(kappa),
        **of_sizes,
        **of_kinds,
        **channels(q, v, tiles),
        **shape_of(tiles, chip),
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
    chip = chip_of(q.device)
    grad_out, q, k, v = (with_whole_rows(x) for x in (grad_out, q, k, v))
    batch, heads, cells, kappa = relevant.shape
    n_q, n_k, key_heads, groups = q.shape[2], k.shape[2], k.shape[1], len(member_offsets) - 1
    dq, dk, dv, dlogits = empty_gradients(q, k, v, relevant, logits)
    delta = torch.empty_like(lse[0])
    cell = typical(cell_order, cell_offsets, largest_cell)
    extras = or_stand_ins(q, logits, query_positions, key_positions)
    strides = [stride for x in (q, k, v, grad_out) for stride in x.stride()[:3]]
    of_sizes = sizes(cell_order, cell_offsets, largest_cell, member_order, member_offsets, largest_group)
    of_kinds = kinds(chip, q, logits, query_positions, wide=(q, k, v, grad_out, dq, dk, dv, out))

    masked = query_positions is not None
    tiles = tiles_for("query gradient", q.dtype, widest(q, v), cell, masked, chip)
    count, cell_of_tile = cell_tiles(cell_order, cell_offsets, largest_cell, tiles.rows)
    one_each = count == cells
    if logits is None or one_each:
        parts = dlogits
    else:
        parts = torch.empty(batch * heads, count, kappa, dtype=torch.float32, device=q.device)
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
        relevant.contiguous(),
        *extras,
        cell_order,
        cell_offsets,
        cell_of_tile,
        member_order,
        member_offsets,
        delta,
        dq,
        parts,
        *strides,
        scale,
        heads,
        heads // key_heads,
        cells,
        kappa,
        count,
        n_q,
        ROWS=tiles.rows,
        SLOTS=slots_at_once(kappa),
        **of_sizes,
        **of_kinds,
        **channels(q, v, tiles),
        **shape_of(tiles, chip),
    )
    if logits is not None and not one_each:
        launch(
            logit_gradient_kernel,
            (batch * heads * cells,),
            parts,
            dlogits,
            cell_offsets,
            cells,
            kappa,
            count,
            CELL=of_sizes["CELL"],
            ROWS=tiles.rows,
            SLOTS=slots_at_once(kappa),
            num_warps=1,
        )

    if len(member_order) < n_k:
        dk.zero_()
        dv.zero_()
    lists = turned_round(relevant, groups, key_heads)
    group = typical(member_order, member_offsets, largest_group)
    tiles = tiles_for("key gradient", q.dtype, widest(q, v), group, masked, chip)
    per_slot = entries_per_slot(cell)
    slots = slots_of(groups, len(member_order), largest_group, tiles.rows, lists.length, per_slot)
    group_of_slot = owners(
        member_offsets, len(member_order), largest_group, tiles.rows, lists.offsets, lists.length, per_slot
    )
    part_keys, part_slots = min(tiles.rows, largest_group), 2 * lists.length // per_slot
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
        *extras,
        cell_order,
        cell_offsets,
        member_order,
        member_offsets,
        lists.entries,
        lists.offsets,
        group_of_slot,
        dk,
        dv,
        parts,
        *strides,
        scale,
        key_heads,
        heads // key_heads,
        cells,
        groups,
        kappa,
        lists.length,
        per_slot,
        slots,
        part_slots,
        n_q,
        n_k,
        KEYS=tiles.rows,
        PART_KEYS=part_keys,
        SLOTS=16 if cell >= 16 else 64,
        **of_sizes,
        **of_kinds,
        **channels(q, v, tiles),
        **shape_of(tiles, chip),
    )
    if part_slots:
        launch(
            add_parts_kernel,
            (batch * key_heads * slots,),
            member_order,
            member_offsets,
            lists.offsets,
            group_of_slot,
            parts,
            dk,
            dv,
            groups,
            lists.length,
            per_slot,
            slots,
            part_slots,
            n_k,
            C=q.shape[-1],
            C_WIDTH=power(q.shape[-1]),
            V=v.shape[-1],
            V_WIDTH=power(v.shape[-1]),
            GROUP=of_sizes["GROUP"],
            KEYS=tiles.rows,
            PART_KEYS=part_keys,
            WIDE=of_kinds["WIDE"],
            num_warps=4,
        )
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


def or_stand_ins(q: Tensor, logits: Tensor | None, *positions: Tensor | None) -> list[Tensor]:
    """Contiguous tensors; those that are absent, and that no kernel reads then, are another."""
    return [q if x is None else x.contiguous() for x in (logits, *positions)]


def widest(q: Tensor, v: Tensor) -> int:
    """The more channels of q and v."""
    return max(q.shape[-1], v.shape[-1])


def channels(q: Tensor, v: Tensor, tiles: Tiles) -> dict[str, int]:
    """Channels and the two parts that they come in."""
    least = tiles.rows if q.dtype.itemsize == 2 else 0
    (c0, c1), (v0, v1) = parts_of(q.shape[-1], least), parts_of(v.shape[-1], least)
    return {"C": q.shape[-1], "C0": c0, "C1": c1, "V": v.shape[-1], "V0": v0, "V1": v1}


def sizes(
    cell_order: Tensor,
    cell_offsets: Tensor,
    largest_cell: int,
    member_order: Tensor,
    member_offsets: Tensor,
    largest_group: int,
) -> dict[str, int]:
    """The size that all cells (groups) have; 0 if they differ."""
    cells, groups = len(cell_offsets) - 1, len(member_offsets) - 1
    return {
        "CELL": largest_cell if largest_cell * cells == len(cell_order) else 0,
        "GROUP": largest_group if largest_group * groups == len(member_order) else 0,
    }


def kinds(
    chip: Chip, q: Tensor, logits: Tensor | None, positions: Tensor | None, wide: tuple[Tensor, ...]
) -> dict[str, object]:
    """What there is, and in which precision and with how many bits it is computed."""
    return {
        "HAS_LOGITS": logits is not None,
        "HAS_POSITIONS": positions is not None,
        "PRECISION": "tf32x3" if chip.is_nvidia else "ieee",
        "WIDEN": chip.is_interpreter and q.dtype == torch.bfloat16,
        "WIDE": any(reach(x) >= 2**31 for x in wide),
    }


def reach(x: Tensor) -> int:
    """How far from the first element of a batch entry the last one may lie."""
    return sum((size - 1) * abs(stride) for size, stride in zip(x.shape[1:], x.stride()[1:], strict=True)) + 1


def typical(order: Tensor, offsets: Tensor, largest: int) -> int:
    """The size that a tile of a partition's groups is made for: the largest, but not if most are far smaller."""
    return min(largest, -(-2 * len(order) // (len(offsets) - 1)))


def cell_tiles(order: Tensor, offsets: Tensor, largest: int, rows: int) -> tuple[int, Tensor]:
    """How many tiles the cells have, and the cell of each; the table is read only where cells differ in size."""
    count = slots_of(len(offsets) - 1, len(order), largest, rows)
    uniform = largest * (len(offsets) - 1) == len(order)
    return count, offsets if uniform else owners(offsets, len(order), largest, rows)


def slots_at_once(kappa: int) -> int:
    """Slots of a cell that are looked up together."""
    return min(power(kappa), 32)


def entries_per_slot(cell: int) -> int:
    """How many entries of a list are a program's work: at most 16, more where cells are so small that it is little."""
    return max(16, min(1024, power(1024 // cell)))


def shape_of(tiles: Tiles, chip: Chip) -> dict[str, int]:
    """What is chosen besides the rows; and all registers, of which the assembler would rather spill a few."""
    registers = {"maxnreg": 255} if chip.is_nvidia else {}
    launched = {"num_warps": tiles.warps, "num_stages": tiles.stages, **registers}
    return {"COLUMNS": tiles.columns, "CHUNK": tiles.chunk, **launched}
