"""From where does a trained model copy? Key contributions at chosen points of a generated picture (the paper's Fig. 9).

Lines lead from points of the generated picture to their keys in the source picture, each as opaque as the key's share
of the attention. Without --points the neck, an elbow, a hip and an ankle are asked.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from string import ascii_uppercase
from typing import Annotated

import torch
import tyro
from jaxtyping import Float
from rich.console import Console
from rich.table import Table
from torch import Tensor

from examples.pose_morph.command_line import run_command
from examples.pose_morph.data.pose import JOINTS
from examples.pose_morph.data.profiles import Profile, read_data
from examples.pose_morph.errors import UserError
from examples.pose_morph.messages import say
from examples.pose_morph.networks.copy_weights import CopyLevel, find_level, recorded
from examples.pose_morph.networks.trained import folder_beside, load_generator
from examples.pose_morph.option_types import Folder, OptionalFolder
from examples.pose_morph.pictures.contribution_lines import Contribution, draw_contributions
from examples.pose_morph.pictures.png import write_png
from examples.pose_morph.training.batch import draw_poses, take_pairs, to_device
from examples.pose_morph.training.device import choose_device
from examples.pose_morph.training.options import PEOPLE

DEFAULT_JOINTS = ((1,), (3, 6), (11, 8), (10, 13))
"""Neck, elbow, hip, ankle: of each the first joint that is known."""

PICTURE_HEIGHT = 640

Point = tuple[float, float]
"""(x, y) in pixels of the picture."""


@dataclass(frozen=True)
class Options:
    """Which model is asked, on which pair, at which points."""

    model: Annotated[Path, tyro.conf.arg(metavar="RUN|FILE")]
    """Folder of a run, or a .safetensors file."""
    data: Folder = PEOPLE
    """Data folder; the default is the rendered people of this repository."""
    profile: Profile = "auto"
    """How the data lies in its folder; auto finds out."""
    pair: int = 0
    """Number of the held-out pair, from 0."""
    points: Annotated[tuple[str, ...], tyro.conf.arg(metavar="X,Y …")] = ()
    """Points of the generated picture in its pixels, A, B, C … in this order."""
    layer: Annotated[str, tyro.conf.arg(metavar="HxW")] = "last"
    """Resolution of the attention, such as 64x40; last is the largest."""
    device: str = "auto"
    """auto (a GPU where PyTorch sees one), cpu, cuda, cuda:N or mps."""
    out: OptionalFolder = None
    """Folder for the picture, by default RUN/contributions or FILE-contributions; an older one of the
    same pair and layer is replaced."""


def run(options: Options, console: Console) -> int:
    """Draw the picture and print what the lines say; return the exit code."""
    device = choose_device(options.device)
    model = load_generator(options.model, device)
    people = read_data(options.data, "test", model.settings.size, options.profile)
    for note in people.notes:
        say(console, note, style="yellow")
    if not 0 <= options.pair < len(people.pairs):
        raise UserError(f"--pair: expected 0 … {len(people.pairs) - 1}, got {options.pair}")
    batch = to_device(take_pairs(people, torch.tensor([options.pair])), device)
    asked = [*map(parse_point, options.points)] or default_points(batch.target_keypoints[0])
    with torch.no_grad(), recorded(model.generator) as levels:
        result = model.generator(batch.source, *draw_poses(batch, model.settings))
        level = find_level(levels, options.layer)
        contributions = contributions_at([point for _, point in asked], level, model.settings.size)

    source, target = (people.names[number] for number in people.pairs[options.pair].tolist())
    title = f"{source} to {target}, {level.kind} attention at {level.name}"
    scale = max(1, round(PICTURE_HEIGHT / model.settings.size[0]))
    picture = draw_contributions(batch.source[0], result[0], batch.target[0], contributions, title, scale)
    folder = options.out or folder_beside(options.model, "contributions")
    path = folder / f"pair_{options.pair:04d}_{level.name}.png"
    write_png(path, picture)
    say(console, title)
    console.print(tabulate([name for name, _ in asked], contributions))
    say(console, str(path))
    return 0


def parse_point(text: str) -> tuple[str, Point]:
    """Read "x,y" and return the point under no name."""
    try:
        x, y = map(float, text.split(","))
        if not math.isfinite(x + y):
            raise ValueError(text)
    except ValueError as error:
        raise UserError(f"--points: expected pairs such as 40,25 with spaces between them, got {text!r}") from error
    return "", (x, y)


def default_points(keypoints: Float[Tensor, "18 2"]) -> list[tuple[str, Point]]:
    """Return the joints that are asked for without --points, as far as they are known."""
    points = []
    for joints in DEFAULT_JOINTS:
        known = [joint for joint in joints if bool(torch.isfinite(keypoints[joint]).all())]
        if known:
            x, y = keypoints[known[0]].tolist()
            points.append((JOINTS[known[0]], (x, y)))
    if not points:
        raise UserError("--points: the target pose has none of the joints that are asked for by default; give points")
    return points


def contributions_at(points: list[Point], level: CopyLevel, size: tuple[int, int]) -> list[Contribution]:
    """Return the weights of the keys for points of a picture of ``size``, lettered in their order.

    Raises:
        UserError: a point lies outside the picture, there are more of them than letters, or no weights.
    """
    if len(points) > len(ascii_uppercase):
        raise UserError(f"--points: expected at most {len(ascii_uppercase)} points, got {len(points)}")
    numbers = []
    for x, y in points:
        row, column = (math.floor((z + 0.5) * n / m) for z, n, m in zip((y, x), level.size, size, strict=True))
        if not (0 <= row < level.size[0] and 0 <= column < level.size[1]):
            raise UserError(
                f"--points: expected points inside the picture, {size[1]} wide and {size[0]} high, got {x:g},{y:g}"
            )
        numbers.append(row * level.size[1] + column)
    weights = level.weights(torch.tensor(numbers, device=level.q.device))[0].cpu()
    return [
        Contribution(letter, point, of_point.unflatten(0, level.key_size))
        for letter, point, of_point in zip(ascii_uppercase, points, weights, strict=False)
    ]


def tabulate(names: list[str], contributions: list[Contribution]) -> Table:
    """Say in numbers what the lines show; keys are (x, y) in pixels of the layer."""
    table = Table()
    for column in ("", "point", "strongest key", "its share", "keys for 90 %"):
        table.add_column(column, justify="left" if column in ("", "point") else "right")
    for name, (label, (x, y), weights) in zip(names, contributions, strict=True):
        row, column = divmod(int(weights.argmax()), weights.shape[1])
        ordered = weights.flatten().sort(descending=True).values.cumsum(0)
        enough = int((ordered < 0.9).sum()) + 1
        table.add_row(
            label, f"{name} ({x:g}, {y:g})".strip(), f"({column}, {row})", f"{float(weights.max()):.1%}", str(enough)
        )
    return table


def main() -> None:
    """Read the command line and draw."""
    run_command(Options, run, prog="python -m examples.pose_morph.experiments.contributions", description=__doc__)


if __name__ == "__main__":
    main()
