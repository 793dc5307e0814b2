"""What the launches of one call of Phase 2 have in common."""

from __future__ import annotations

import torch
from torch import Tensor

from gpa_nd.engine.fused.attention_settings import Kernel, Tiles, parts_of, tiles_for
from gpa_nd.engine.fused.groups import Groups
from gpa_nd.engine.fused.launch import Chip
from gpa_nd.engine.fused.packs import unions
from gpa_nd.engine.fused.powers import power_of_two


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
        bias: Tensor | None,
        query_positions: Tensor | None,
        key_positions: Tensor | None,
        scale: float,
        wide: tuple[Tensor, ...],
    ) -> None:
        self.chip, self.q, self.k, self.v, self.logits, self.scale = chip, q, k, v, logits, scale
        self.axes = 0 if query_positions is None else query_positions.shape[1]
        self.is_masked = self.axes > 0 or bias is not None
        self.is_wide = any(reach(x) >= 2**31 for x in (*wide, *([] if bias is None else [bias])))
        # Contiguous, but for the bias; those that are absent, and that no kernel reads then, are another.
        logits, query_positions, key_positions = (
            q if x is None else x.contiguous() for x in (logits, query_positions, key_positions)
        )
        self.extras = [logits, bias, query_positions, key_positions]
        self.bias_strides = [None] * 3 if bias is None else rows_of(bias)

    def tiles(self, kernel: Kernel, owned: Groups) -> Tiles:
        """The tiles of a kernel whose programs own elements of these groups."""
        widest = max(self.q.shape[-1], self.v.shape[-1])
        return tiles_for(kernel, self.q.dtype, widest, owned.typical, self.is_masked, self.axes, self.chip)

    def settings(self, tiles: Tiles) -> dict[str, object]:
        """The constants that the three kernels have in common, and how they are launched."""
        c, c_v = self.q.shape[-1], self.v.shape[-1]
        least = tiles.rows if self.q.dtype.itemsize == 2 else 0
        (c0, c1), (v0, v1) = parts_of(c, least), parts_of(c_v, least)
        return {
            **{"C": c, "C0": c0, "C1": c1, "V": c_v, "V0": v0, "V1": v1},
            "HAS_LOGITS": self.logits is not None,
            "AXES": self.axes,
            "PRECISION": self.chip.precision,
            "WIDEN": self.chip.is_interpreter and self.q.dtype == torch.bfloat16,
            "WIDE": self.is_wide,
            "COLUMNS": tiles.columns,
            "CHUNK": tiles.chunk,
            "num_warps": tiles.warps,
            "num_stages": tiles.stages,
            # Without a limit the assembler takes fewer registers, for more programs side by side, and spills.
            **({"maxnreg": 255} if self.chip.is_nvidia else {}),
        }


def packed_cells(
    cells: Groups, relevant: Tensor, logits: Tensor | None, has_positions: bool
) -> tuple[Groups, Tensor, Tensor]:
    """Packs of cells with the unions of their lists, and which of them takes what; or all as it was.

    A logit is of one cell and one coarse key: where there are logits, nothing is packed. Nor is it where there are
    positions: what comes later may change what a neighbour names, and thereby how the sums of its pack are rounded.
    """
    if cells.packable == 1 or logits is not None or has_positions or not relevant.shape[-1]:
        return cells, relevant.contiguous(), relevant
    return cells.pack(cells.packable), *unions(relevant, cells.packable)


def check_reach(q: Tensor, k: Tensor, relevant: Tensor) -> None:
    """Elements and entries of lists are counted in 32 bits, from the first of their head.

    Raises:
        ValueError: there are more.
    """
    counts = {"queries": q.shape[2], "keys": k.shape[2], "selected keys of a head": relevant.shape[2:].numel()}
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
    return min(power_of_two(kappa, at_least=16), 32)
