"""How Phase 2 is cut into tiles, from shape, dtype and chip: choices as data, so that they can be tuned."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch

from gpa_nd.engine.fused.launch import Chip
from gpa_nd.engine.fused.powers import power_of_two
from gpa_nd.engine.fused.tuned import tunable

Kernel = Literal["forward", "query gradient", "key gradient"]


@dataclass(frozen=True)
class Tiles:
    """The tiles of one kernel.

    Attributes:
        rows: queries of a cell (or keys of a group) that a program owns.
        columns: gathered keys (or queries) at a time.
        warps: warps of a program.
        stages: how far loads run ahead.
        chunk: channels at a time in products over channels; 0 holds all of them.
    """

    rows: int
    columns: int
    warps: int
    stages: int
    chunk: int = 0


# Up to how many channels, and the tiles for cells (or groups) that fill them. None spills, as compiled for sm_80, sm_90
# and sm_100 with all the registers that a thread can have: tests/engine/fused/test_compiling.py.
NVIDIA: dict[tuple[Kernel, int], tuple[tuple[int, Tiles], ...]] = {
    ("forward", 2): (
        (64, Tiles(64, 32, 4, 2)),
        (128, Tiles(64, 32, 8, 2)),
        (256, Tiles(32, 32, 4, 2)),
    ),
    ("query gradient", 2): (
        (64, Tiles(64, 32, 4, 2)),
        (128, Tiles(64, 32, 8, 2)),
        (256, Tiles(32, 32, 4, 2)),
    ),
    ("key gradient", 2): (
        (128, Tiles(64, 32, 8, 2)),
        (256, Tiles(32, 32, 4, 2)),
    ),
    ("forward", 4): (
        (64, Tiles(32, 32, 8, 2)),
        (256, Tiles(16, 32, 8, 2, chunk=32)),
    ),
    ("query gradient", 4): (
        (64, Tiles(32, 32, 8, 1, chunk=32)),
        (256, Tiles(16, 32, 8, 1, chunk=32)),
    ),
    ("key gradient", 4): (
        (64, Tiles(32, 32, 8, 2)),
        (256, Tiles(16, 32, 8, 1, chunk=32)),
    ),
}
AMD: dict[tuple[Kernel, int], tuple[tuple[int, Tiles], ...]] = {
    ("forward", 2): ((64, Tiles(64, 32, 4, 2)), (256, Tiles(32, 32, 4, 2))),
    ("query gradient", 2): ((128, Tiles(64, 32, 4, 2)), (256, Tiles(16, 32, 4, 2))),
    ("key gradient", 2): ((64, Tiles(32, 32, 4, 2)), (256, Tiles(16, 32, 4, 2))),
    ("forward", 4): ((64, Tiles(64, 32, 4, 2)), (128, Tiles(16, 32, 4, 2)), (256, Tiles(16, 32, 4, 1, chunk=32))),
    ("query gradient", 4): ((64, Tiles(32, 32, 4, 1, chunk=32)), (256, Tiles(16, 32, 4, 1, chunk=32))),
    ("key gradient", 4): ((64, Tiles(16, 32, 4, 2)), (256, Tiles(16, 32, 4, 1, chunk=32))),
}


@tunable
def tiles_for(
    kernel: Kernel, dtype: torch.dtype, widest: int, owned: int, masked: bool, axes: int, chip: Chip
) -> Tiles:
    """The tiles of a kernel.

    Args:
        kernel: which.
        dtype: of q, k and v.
        widest: the more channels of q and v.
        owned: the size of a cell (of a group), whose elements are a program's rows.
        masked: whether positions or a bias decide what is seen, which needs more registers.
        axes: how many numbers a position has; several need more still.
        chip: where it runs.
    """
    table = NVIDIA if chip.is_nvidia or chip.is_interpreter else AMD
    tiles = next(tiles for most, tiles in table[kernel, dtype.itemsize] if widest <= most)
    rows = min(tiles.rows, power_of_two(owned, at_least=16))
    if axes > 1:
        most = 16 if kernel == "key gradient" or widest > 128 else 32 if widest > 64 else 64
        tiles, rows = replace(tiles, columns=16), min(most, rows)
    if rows < tiles.rows:
        return replace(tiles, rows=rows, warps=4 if dtype.itemsize == 2 and widest <= 128 else 8)
    if masked and chip.is_nvidia and tiles.rows >= 64:
        return replace(tiles, rows=32, warps=4) if kernel == "key gradient" else replace(tiles, warps=8)
    return tiles


def parts_of(channels: int, rows: int) -> tuple[int, int]:
    """The two powers of two that hold this many channels with the least room to spare; the second may be 0.

    A second part of less than 64 channels pays only beside 64 rows, among which the warps then divide it.

    Example:
        >>> parts_of(64, 64), parts_of(80, 64), parts_of(80, 16), parts_of(200, 16)
        ((64, 0), (64, 16), (128, 0), (128, 128))
    """
    powers = [16, 32, 64, 128]
    seconds = [0, *(power for power in powers if power >= 64 or rows >= 64)]
    fitting = [(a, b) for a in powers for b in seconds if b <= a and a + b >= channels]
    return min(fitting, key=lambda parts: (sum(parts), parts[1]))
