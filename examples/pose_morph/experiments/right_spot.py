"""Does the attention land on the right spot? A number for Fig. 9, on people whose every pixel's true source is known.

For each held-out pair, the pixels of the true target that the source shows, too, ask the attention of every level: how
much of its mass lies within a radius of the same point of the body? Needs rendered people with rest-pose points.
Writes right_spot.json and right_spot.png.
"""

import math
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro
from PIL import Image
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from torch import Tensor

from examples.pose_morph.atomic import write_json
from examples.pose_morph.command_line import run_command
from examples.pose_morph.data.evenly import evenly
from examples.pose_morph.data.pose_data import PoseData
from examples.pose_morph.data.profiles import read_data
from examples.pose_morph.data.rest_points import read_rest_points
from examples.pose_morph.errors import UserError
from examples.pose_morph.messages import say
from examples.pose_morph.networks.copy_weights import CopyLevel, recorded
from examples.pose_morph.networks.generator import Generator
from examples.pose_morph.networks.trained import folder_beside, load_generator
from examples.pose_morph.option_types import Count, Folder, Number, OptionalFolder, Switch
from examples.pose_morph.pictures.png import write_png
from examples.pose_morph.pictures.share_map import LEGEND, draw_shares
from examples.pose_morph.pictures.sheet import draw_sheet, to_picture
from examples.pose_morph.progress import progress_bar
from examples.pose_morph.scores.right_spot import RightSpots, SpotShares, right_spots, spot_shares
from examples.pose_morph.training.batch import Batch, draw_poses, take_pairs, to_device
from examples.pose_morph.training.device import choose_device
from examples.pose_morph.training.options import PEOPLE

FACTORS = (0.5, 1.0, 2.0, 4.0)
"""The radii that are reported, in radii."""

MAIN = FACTORS.index(1.0)
QUANTITIES = ("attention", "selected", "best", "uniform")
CELL_HEIGHT, MAPS = 256, 3
CAPTION = (
    "selected, best: the most that attention to Phase 1's keys, or to any, could have there; uniform: what equal "
    "weights on the person have; off: the median distance of the strongest key"
)

PROTOCOL = (
    "mean over the pixels of all true targets whose rest-pose point some source pixel shows within the radius; "
    "attention: mass on source pixels within the radius; selected: the most that any attention could reach on the keys "
    "that Phase 1 selects; best: on all keys; uniform: equal mass on every pixel of the source's person; a pixel asks "
    "the query that covers it, and the mass of a key is spread evenly over the pixels that it covers; strongest_cm: "
    "median distance in the rest pose between the right spot and the strongest key, null where that is the background"
)


@dataclass(frozen=True)
class Options:
    """Which model is measured, on which pairs, and what counts as the right spot."""

    model: Annotated[Path, tyro.conf.arg(metavar="RUN|FILE")]
    """Folder of a run, or a .safetensors file."""
    data: Folder = PEOPLE
    """Rendered people with the folder rest/; the default is those of this repository."""
    radius: Annotated[float, tyro.conf.arg(metavar="CM")] = 4.0
    """Centimetres in the rest pose within which a source pixel is the right spot; half, twice and four times as much
    are reported, too."""
    pairs: Count = None
    """Held-out pairs to measure, evenly chosen; by default all."""
    untrained: Switch = False
    """Measure the same model before any training as well."""
    shown: Number = 6
    """Rows of the picture."""
    device: str = "auto"
    """auto (a GPU where PyTorch sees one), cpu, cuda, cuda:N or mps."""
    out: OptionalFolder = None
    """Folder for the results, by default RUN/right_spot or FILE-right_spot; older ones are replaced."""


def run(options: Options, console: Console) -> int:
    """Measure, print the table and write the results; return the exit code."""
    for name in ("radius", "pairs", "shown"):
        value = getattr(options, name)
        if value is not None and not value > 0:
            raise UserError(f"--{name}: expected more than 0, got {value}")
    device = choose_device(options.device)
    model = load_generator(options.model, device)
    people = read_data(options.data, "test", model.settings.size, "patn")  # the layout of rendered people
    for note in people.notes:
        say(console, note, style="yellow")
    which = evenly(len(people.pairs), options.pairs or len(people.pairs))
    shown = set(which[evenly(len(which), options.shown)].tolist())
    radii = tuple(factor * options.radius / 100 for factor in FACTORS)

    rows, tally, before = [], Tally(radii), Tally(radii)
    untrained = None
    if options.untrained:
        torch.manual_seed(0)
        untrained = Generator(model.settings).to(device).eval()
    with progress_bar(console) as bar:
        for pair in bar.track(which.tolist(), description="measuring"):
            spots = spots_of(people, pair, options.data, radii[MAIN])
            batch, result, levels = drawn(model.generator, people, pair)
            shares = tally.add(spots, levels)
            if untrained is not None:
                before.add(spots, drawn(untrained, people, pair)[2])
            if pair in shown:
                scale = max(1, round(CELL_HEIGHT / spots.size[0]))
                maps = [
                    draw_shares(of_level.attention[MAIN], spots.pixels, spots.hidden, spots.size, scale)
                    for of_level in list(shares.values())[-MAPS:]
                ]
                pictures = (to_picture(x[0], scale) for x in (batch.source, batch.target, result))
                rows.append([*pictures, *maps])

    if not tally.sums:
        raise UserError(f"model: {options.model} has no gpa or full attention, whose weights could be measured")
    results = {"trained": tally.summary()} | ({"untrained": before.summary()} if options.untrained else {})
    report = {
        "model": str(options.model),
        "data": str(options.data),
        "pairs": len(which),
        "radius_cm": options.radius,
        "pixels": {"asked": tally.asked, "hidden": tally.hidden},
        "left_out": sorted(tally.without_weights),
        "protocol": PROTOCOL,
        **results,
    }
    out = options.out or folder_beside(options.model, "right_spot")
    write_json(out / "right_spot.json", report)
    names = list(tally.sums)[-MAPS:]
    write_png(out / "right_spot.png", draw_share_sheet(rows, names, options.radius))

    for name, levels in results.items():
        console.print(tabulate(levels, f"{name}: % of the attention within so many cm of the right spot"))
    say(console, f"{len(which)} pairs; {tally.asked} pixels asked, {tally.hidden} more that the source does not show")
    for level in report["left_out"]:
        say(console, f"left out: {level}, which has no weights of single keys", style="yellow")
    say(console, str(out))
    return 0


class Tally:
    """The shares of all pixels of all pairs, level by level, smallest first."""

    def __init__(self, radii: tuple[float, ...]) -> None:
        """Count nothing yet."""
        self.radii = radii
        self.sums: dict[str, Tensor] = {}
        self.strongest: dict[str, list[Tensor]] = defaultdict(list)
        self.kinds: dict[str, str] = {}
        self.without_weights: set[str] = set()
        self.asked = self.hidden = 0

    def add(self, spots: RightSpots, levels: list[CopyLevel]) -> dict[str, SpotShares]:
        """Measure one pair and return its shares, smallest level first."""
        self.asked, self.hidden = self.asked + len(spots.pixels), self.hidden + len(spots.hidden)
        measured = {}
        for level in levels:
            if not level.has_weights:
                self.without_weights.add(f"{level.kind} at {level.name}")
                continue
            self.kinds[level.name] = level.kind
            shares = measured[level.name] = spot_shares(spots, level, self.radii)
            sums = torch.stack([getattr(shares, quantity).double().sum(dim=1) for quantity in QUANTITIES])
            self.sums[level.name] = self.sums.get(level.name, 0) + sums
            self.strongest[level.name].append(shares.strongest)
        return measured

    def summary(self) -> list[dict[str, Any]]:
        """Return the means over all pixels of each level, by radius in cm."""
        if not self.asked:
            raise UserError("--radius: no source shows any pixel of its target within this radius; take a larger one")
        levels = []
        for name, sums in self.sums.items():
            values: dict[str, Any] = {"level": name, "attention_kind": self.kinds[name]}
            for quantity, means in zip(QUANTITIES, (sums / self.asked).tolist(), strict=True):
                values[quantity] = {f"{100 * r:g}": mean for r, mean in zip(self.radii, means, strict=True)}
            median = float(torch.cat(self.strongest[name]).median())
            values["strongest_cm"] = 100 * median if math.isfinite(median) else None
            levels.append(values)
        return levels


def spots_of(people: PoseData, pair: int, root: Path, radius: float) -> RightSpots:
    """Return which pixels of a pair's target the source shows, and where."""
    names = [people.names[number] for number in people.pairs[pair].tolist()]
    source, target = (read_rest_points(root, name) for name in names)
    for name, points in zip(names, (source, target), strict=True):
        if tuple(points.shape[:2]) != people.size:
            raise UserError(
                f"data: the rest-pose points of {name} are {tuple(points.shape[:2])}, and the model draws "
                f"{people.size}; expected the same size: render people of that size (prepare synthetic --size)"
            )
    return right_spots(source, target, radius)


def drawn(generator: Generator, people: PoseData, pair: int) -> tuple[Batch, Tensor, list[CopyLevel]]:
    """Draw one pair; return the batch, the result and the attention of every level."""
    device = next(generator.parameters()).device
    batch = to_device(take_pairs(people, torch.tensor([pair])), device)
    with torch.no_grad(), recorded(generator) as levels:
        return batch, generator(batch.source, *draw_poses(batch, generator.settings)), levels


def draw_share_sheet(rows: list[list[Image.Image]], levels: list[str], radius: float) -> Image.Image:
    """Put the pairs under one another."""
    headers = ("source", "truth", "result", *levels)
    return draw_sheet(rows, headers, f"share of the attention within {radius:g} cm of the right spot ({LEGEND})")


def tabulate(levels: list[dict[str, Any]], title: str) -> Table:
    """Return the table that is printed, in percent and cm; what stands beside the attention is for the main radius."""
    table = Table(title=title, caption=CAPTION, box=SIMPLE, padding=(0, 1, 0, 0))
    radii = list(levels[0]["attention"])
    columns = ("level", "kind", *(f"{radius} cm" for radius in radii), *QUANTITIES[1:], "off, cm")
    for column in columns:
        table.add_column(column, justify="left" if column in columns[:2] else "right", no_wrap=True)
    for level in levels:
        shares = (*level["attention"].values(), *(level[quantity][radii[MAIN]] for quantity in QUANTITIES[1:]))
        off = "∞" if level["strongest_cm"] is None else f"{level['strongest_cm']:.1f}"
        table.add_row(level["level"], level["attention_kind"], *(f"{100 * share:.1f}" for share in shares), off)
    return table


def main() -> None:
    """Read the command line and measure."""
    run_command(Options, run, prog="python -m examples.pose_morph.experiments.right_spot", description=__doc__)


if __name__ == "__main__":
    main()
