"""Tile sizes of the kernels of Phase 1, chosen from shape, dtype and chip: data that a measurement may change."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from gpa_nd.engine.fused.launch import Chip
from gpa_nd.engine.fused.powers import power_of_two
from gpa_nd.engine.fused.tuned import tunable

SUMS_AT_ONCE = 2**24  # float32 sums held at a time: 64 MB
POOLED_AT_ONCE = 256  # sums in a program of the pool kernel
BLOCKS_AT_MOST = 1024  # blocks of keys whose largest sums the select kernel holds
PROGRAMS_PER_PROCESSOR = 4  # where there are fewer, keys are divided among programs


@dataclass(frozen=True)
class Tile:
    """What a program of a kernel that multiplies coarse queries with coarse keys holds.

    Attributes:
        rows: coarse queries.
        keys: coarse keys.
        warps: warps of the program.
        stages: tiles of keys in flight.
        channels: how many of them at most the rows are held with; those of more are read again for every tile of keys,
            so many at a time.
    """

    rows: int
    keys: int
    warps: int
    stages: int
    channels: int = 256


@dataclass(frozen=True)
class PoolTile:
    """What a program of the pool kernel holds: ``groups`` sums of ``width`` channels, ``members`` loads under way."""

    groups: int
    members: int
    width: int
    warps: int


@dataclass(frozen=True)
class SelectTile:
    """How the select kernel divides the tiles of keys into blocks: ``blocks`` of ``tiles`` each."""

    blocks: int
    tiles: int


# Chip and bytes of a number: up to so many channels, this tile. Compiled for all of them: nothing spills, and all fits.
TILES: dict[tuple[str, int], tuple[tuple[int, Tile], ...]] = {
    ("sm_80", 2): ((128, Tile(128, 64, 8, 3)), (256, Tile(128, 64, 8, 2))),
    ("sm_80", 4): ((32, Tile(128, 64, 8, 2)), (256, Tile(128, 64, 8, 2, channels=16))),
    ("sm_90", 2): ((128, Tile(128, 64, 8, 3)), (256, Tile(128, 64, 8, 2))),
    ("sm_90", 4): ((64, Tile(128, 64, 8, 2)), (256, Tile(128, 64, 8, 2, channels=32))),
    ("sm_100", 2): ((128, Tile(128, 32, 8, 3)), (192, Tile(128, 64, 8, 2)), (256, Tile(128, 64, 8, 2, channels=64))),
    ("sm_100", 4): ((256, Tile(128, 64, 8, 2, channels=16)),),
    ("other NVIDIA", 2): ((128, Tile(128, 64, 8, 2)), (256, Tile(128, 64, 8, 2, channels=64))),
    ("other NVIDIA", 4): ((32, Tile(128, 64, 8, 2)), (256, Tile(128, 64, 8, 2, channels=16))),
    ("AMD", 2): ((128, Tile(128, 32, 4, 2)), (256, Tile(64, 64, 4, 1))),
    ("AMD", 4): ((256, Tile(128, 64, 8, 1, channels=32)),),
    ("interpreter", 2): ((256, Tile(16, 16, 1, 1)),),
    ("interpreter", 4): ((32, Tile(16, 16, 1, 1)), (256, Tile(16, 16, 1, 1, channels=32))),
}


@tunable
def tile_of(channels: int, dtype: torch.dtype, chip: Chip) -> Tile:
    """The tile of coarse queries and coarse keys for heads of so many channels."""
    name = chip.name
    if (name, dtype.itemsize) not in TILES:
        name = "other NVIDIA" if chip.is_nvidia else "AMD"
    return next(tile for at_most, tile in TILES[name, dtype.itemsize] if channels <= at_most)


@tunable
def sum_tile_of(tile: Tile, largest: int, keys: int) -> Tile:
    """The tile for sums over cells of at most ``largest`` coarse queries, several of which may share it.

    It has fewer rows where the sums of so many cells over so many keys could not be held at once.
    """
    slots = power_of_two(largest)
    while tile.rows > max(16, slots) and tile.rows // slots * keys > SUMS_AT_ONCE:
        tile = replace(tile, rows=tile.rows // 2, warps=min(4, tile.warps))
    return tile


@tunable
def candidate_tile_of(tile: Tile, largest: int, candidates: int) -> Tile:
    """The tile for the candidates of cells of at most ``largest`` coarse queries, of which none shares it."""
    rows, keys = (
        min(most, power_of_two(n, at_least=16)) for most, n in ((tile.rows, largest), (tile.keys, candidates))
    )
    return replace(tile, rows=rows, keys=keys, warps=tile.warps if rows > 32 else min(4, tile.warps))


def channel_parts(c: int, at_most: int = 256) -> tuple[int, int]:
    """How c channels are stored and multiplied: two powers of two, the second 0 where one does as well.

    Where that is more than ``at_most``, a power of two that divides it and is not more.

    Example:
        >>> channel_parts(64), channel_parts(80), channel_parts(17), channel_parts(80, at_most=32)
        ((64, 0), (64, 16), (32, 0), (16, 0))
    """
    main = power_of_two(c, at_least=16)
    rest = 0
    if main > 16 and (over := power_of_two(c - main // 2, at_least=16)) < main // 2:
        main, rest = main // 2, over
    if main + rest > at_most:
        main, rest = min(at_most, rest or main), 0
    return main, rest


@tunable
def pool_tile(channels: int, largest: int) -> PoolTile:
    """For groups of at most ``largest`` elements."""
    width = power_of_two(channels)
    return PoolTile(max(1, POOLED_AT_ONCE // width), min(8, power_of_two(largest)), width, 1)


@tunable
def select_tile(tiles: int) -> SelectTile:
    """For so many tiles of keys."""
    in_block = 1
    while tiles > in_block * BLOCKS_AT_MOST:
        in_block *= 2
    return SelectTile(power_of_two(-(-tiles // in_block)), in_block)
