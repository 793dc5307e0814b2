"""Print what a model costs before it is trained: every attention layer, and the number of parameters."""

import math
from dataclasses import dataclass
from typing import Annotated

import torch
import tyro
from rich.console import Console
from rich.table import Table
from torch import nn

from examples.pose_morph.command_line import run_command
from examples.pose_morph.dry_run import dry_run
from examples.pose_morph.messages import say
from examples.pose_morph.networks.attention_cost import multiply_adds, peak_bytes
from examples.pose_morph.networks.attention_names import (
    LEAST_KEYS_PER_RANK,
    RANK,
    default_rank,
    level_name,
    with_attention,
)
from examples.pose_morph.networks.discriminator import Discriminator
from examples.pose_morph.networks.generator import Generator, key_channels
from examples.pose_morph.networks.low_rank import landmarks_of
from examples.pose_morph.networks.settings import Attention, Grid, ModelSettings, Nystromformer, Performer
from examples.pose_morph.option_types import Count, check_least
from examples.pose_morph.presets import PRESETS, PresetName
from examples.pose_morph.training.device import choose_device
from examples.pose_morph.training.options import AttentionName
from examples.pose_morph.training.precision import Precision


@dataclass(frozen=True)
class LayerPlan:
    """One level's attention.

    Attributes:
        size: Height and width of the level.
        name: Its attention, as the paper names it.
        attention: The same as settings.
        operations: Multiply-adds of one forward pass of the batch.
        memory: Bytes that forward and backward are expected to need beyond what is there.
    """

    size: tuple[int, int]
    name: str
    attention: Attention
    operations: int
    memory: int


@dataclass(frozen=True)
class Options:
    """What to plan."""

    preset: PresetName = "demo"
    """Model and training settings (examples/pose_morph/presets.py)."""
    attention: AttentionName = "gpa"
    """What copies at the large levels, as of examples.pose_morph.train."""
    batch_size: Count = None
    """Pairs per step, instead of the preset's number."""
    dry_run: Annotated[str | None, tyro.conf.arg(metavar="DEVICE", help_behavior_hint="")] = None
    """Also run one forward and backward pass of both networks on this device, and say how long it took."""


def plan_table(model: ModelSettings, batch_size: int) -> list[LayerPlan]:
    """Return the plan of every attention layer, smallest level first, as the paper's tables have them."""
    rows = []
    for level, size in zip(model.levels, model.sizes, strict=True):
        widths = key_channels(level, model), level.channels
        rows.append(
            LayerPlan(
                size,
                level_name(level.attention, size),
                level.attention,
                batch_size * multiply_adds(level.attention, size, *widths),
                peak_bytes(level.attention, size, *widths, batch_size=batch_size, cosine=model.sharpness > 0),
            )
        )
    return rows[::-1]


def count_parameters(model: ModelSettings) -> tuple[int, int]:
    """Count the trained numbers of the generator and of the discriminator, without making them."""
    with torch.device("meta"):
        networks: tuple[nn.Module, nn.Module] = Generator(model), Discriminator(model)
    generator, discriminator = (sum(p.numel() for p in network.parameters()) for network in networks)
    return generator, discriminator


def print_plan(console: Console, model: ModelSettings, batch_size: int, *, precision: Precision = "float32") -> None:
    """Print the attention layers and the parameters of ``model``.

    Args:
        console: Where to.
        model: The networks.
        batch_size: Pictures that are worked off at once.
        precision: What they are worked off in; the memory is float32's, and a sentence says so of another precision.
    """
    rows = plan_table(model, batch_size)
    table = Table(title=f"Attention forward and backward, float32, batch size {batch_size}", title_justify="left")
    numbers = [_numbers(row.attention) for row in rows]
    used = [name for name in ("m", "d", "kappa", "rank") if any(name in of_row for of_row in numbers)]
    table.add_column("level", justify="right", no_wrap=True)
    table.add_column("kind", no_wrap=True)
    for heading in (*used, "G multiply-adds", "MiB"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row, of_row in zip(rows, numbers, strict=True):
        shown = [str(of_row.get(name, "")) for name in used]
        table.add_row(f"{row.size[0]}x{row.size[1]}", row.name, *shown, *_cost(row.operations, row.memory))
    table.add_section()
    total = sum(row.operations for row in rows), sum(row.memory for row in rows)
    table.add_row("sum", "", *("" for _ in used), *_cost(*total))
    console.print(table)
    if precision != "float32":
        # Counted by PyTorch's allocator on a CPU: half for Performer, 0.6 to 0.75 for full, 0.7 to 1 for GPA.
        say(console, f"the MiB are float32's; {precision} takes between half of them and about all, by the kind")
    for note in map(_note, rows):
        if note:
            say(console, note)
    generator, discriminator = count_parameters(model)
    say(console, f"parameters: generator {generator:,}, discriminator {discriminator:,}")


def _numbers(attention: Attention) -> dict[str, int]:
    match attention:
        case Grid(downsample, cells, kappa):
            return {"m": math.prod(cells), "d": downsample, "kappa": kappa}
        case Nystromformer(rank) | Performer(rank):
            return {"rank": rank}
        case _:
            return {}


def _cost(operations: int, memory: int) -> tuple[str, str]:
    return f"{operations / 1e9:,.2f}", f"{memory / 2**20:,.1f}"


def _note(row: LayerPlan) -> str:
    """What a rank is at this level, where it is not what its name says."""
    if not isinstance(row.attention, Nystromformer | Performer):
        return ""
    keys, rank, place = math.prod(row.size), row.attention.rank, f"{row.size[0]}x{row.size[1]}: "
    if rank < RANK and rank == default_rank(row.size):
        return f"{place}rank {rank}, at most 1/{LEAST_KEYS_PER_RANK} of the {keys} keys; the paper's {RANK} is too much"
    used = landmarks_of(rank, keys)
    if isinstance(row.attention, Nystromformer) and used < rank:
        return f"{place}{used} landmarks of {math.ceil(keys / used)} pixels; {rank} would not be filled evenly"
    return ""


def plan(options: Options, console: Console) -> int:
    """Print the plan and, if it is asked for, try it; return the exit code."""
    check_least("batch_size", options.batch_size, 1)
    preset = PRESETS[options.preset]
    batch_size = preset.training.batch_size if options.batch_size is None else options.batch_size
    model = with_attention(preset.model, options.attention)
    print_plan(console, model, batch_size)
    if options.dry_run is not None:
        device = choose_device(options.dry_run, option="--dry-run")
        taken = dry_run(model, batch_size, device)
        memory = "" if taken.memory is None else f", {taken.memory / 2**30:.1f} GiB at the peak"
        say(console, f"forward and backward on {device}: {taken.seconds:.1f} s{memory}")
    return 0


def main() -> None:
    """Read the command line and print the plan."""
    run_command(Options, plan, prog="python -m examples.pose_morph.plan", description=__doc__)


if __name__ == "__main__":
    main()
