"""Write a trained model as safetensors with a model card, from the checkpoint or the model file of a run."""

import shutil
from dataclasses import dataclass, replace
from typing import Annotated

import torch
import tyro
from rich.console import Console

from examples.pose_morph.atomic import replace_file
from examples.pose_morph.command_line import run_command
from examples.pose_morph.errors import UserError
from examples.pose_morph.existing import refuse_existing
from examples.pose_morph.messages import say
from examples.pose_morph.networks.trained import WEIGHTS, load_generator, save_model
from examples.pose_morph.option_types import RequiredFolder, Switch

Text = Annotated[str | None, tyro.conf.arg(metavar="TEXT", help_behavior_hint="")]

CARD, METRICS = "README.md", "metrics.json"


@dataclass(frozen=True)
class Options:
    """What to export, and where to."""

    run: RequiredFolder
    """Folder of a run, with checkpoint.pt or model.safetensors."""
    out: RequiredFolder
    """Folder that gets model.safetensors, README.md (the model card) and, if the run has one, metrics.json."""
    data: Text = None
    """What the model was trained on, in words, for the model card."""
    licence: Text = None
    """Licence of the data that the model was trained on, for the model card."""
    overwrite: Switch = False
    """Write over files that are there."""


def export(options: Options, console: Console) -> int:
    """Write the files; return the exit code."""
    if options.out.exists() and not options.out.is_dir():
        raise UserError(f"out: expected a folder, and {options.out} is a file")
    metrics, copied = options.run / METRICS, options.out / METRICS
    copies = metrics.is_file() and copied.resolve() != metrics.resolve()
    written = [options.out / WEIGHTS, options.out / CARD, *([copied] if copies else [])]
    refuse_existing(written, overwrite=options.overwrite)
    generator, settings, info = load_generator(options.run, torch.device("cpu"))
    info = replace(info, data=options.data or info.data, licence=options.licence or info.licence)
    if copies:
        with metrics.open("rb") as source:
            replace_file(copied, lambda file: shutil.copyfileobj(source, file))
    save_model(options.out, generator, info=info)
    height, width = settings.size
    say(console, f"{info.preset} ({height}x{width}), {info.steps} steps: written to {options.out}")
    if info.licence == "unknown":
        say(console, "the model card says that the data's licence is unknown; --licence TEXT gives it")
    return 0


def main() -> None:
    """Read the command line and export."""
    run_command(Options, export, prog="python -m examples.pose_morph.export", description=__doc__)


if __name__ == "__main__":
    main()
