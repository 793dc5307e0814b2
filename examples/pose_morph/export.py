"""Write a trained model as safetensors with a model card, from the checkpoint or the model file of a run."""

import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import torch
import tyro
from rich.console import Console

from examples.pose_morph.atomic import replace_file
from examples.pose_morph.command_line import run_command
from examples.pose_morph.errors import UserError
from examples.pose_morph.networks.trained import WEIGHTS, load_generator, save_model

Text = Annotated[str | None, tyro.conf.arg(metavar="TEXT", help_behavior_hint="")]
Folder = Annotated[Path, tyro.conf.arg(metavar="FOLDER")]
Switch = Annotated[bool, tyro.conf.arg(help_behavior_hint="")]


@dataclass(frozen=True)
class Options:
    """What to export, and where to."""

    run: Folder
    """Folder of a run, with checkpoint.pt or model.safetensors."""
    out: Folder
    """Folder that gets model.safetensors, README.md (the model card) and, if the run has one, metrics.json."""
    data: Text = None
    """What the model was trained on, in words, for the model card."""
    licence: Text = None
    """Licence of the data that the model was trained on, for the model card."""
    overwrite: Switch = False
    """Write over files that are there."""


def export(options: Options, console: Console) -> int:
    """Write the files; return the exit code."""
    there = [options.out / name for name in (WEIGHTS, "README.md") if (options.out / name).exists()]
    if there and not options.overwrite:
        raise UserError(f"out: {there[0]} is already there; choose another folder or add --overwrite")
    if options.out.exists() and not options.out.is_dir():
        raise UserError(f"out: expected a folder, and {options.out} is a file")
    generator, settings, info = load_generator(options.run, torch.device("cpu"))
    info = replace(info, data=options.data or info.data, licence=options.licence or info.licence)
    metrics = options.run / "metrics.json"
    if metrics.is_file() and options.out.resolve() != options.run.resolve():
        with metrics.open("rb") as source:
            replace_file(options.out / metrics.name, lambda file: shutil.copyfileobj(source, file))
    save_model(options.out, generator, info=info)
    height, width = settings.size
    console.print(f"{info.preset} ({height}x{width}), {info.steps} steps: written to {options.out}", soft_wrap=True)
    if info.licence == "unknown":
        console.print("the model card says that the data's licence is unknown; --licence TEXT gives it", soft_wrap=True)
    return 0


def main() -> None:
    """Read the command line and export."""
    run_command(Options, export, prog="python -m examples.pose_morph.export", description=__doc__)


if __name__ == "__main__":
    main()
