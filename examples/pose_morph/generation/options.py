"""The options of the generate command."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from examples.pose_morph.errors import UserError
from examples.pose_morph.generation.animation import check_animation
from examples.pose_morph.option_types import Frame, Switch, check_least

File = Annotated[Path, tyro.conf.arg(metavar="PATH")]
Files = Annotated[tuple[Path, ...], tyro.conf.arg(metavar="PATH ...", help_behavior_hint="")]
OptionalFile = Annotated[Path | None, tyro.conf.arg(metavar="PATH", help_behavior_hint="")]
Names = Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME ...", help_behavior_hint="")]


@dataclass(frozen=True)
class Options:
    """Whom to draw, in which poses, and where to put it."""

    model: File
    """Folder of a run, or a model.safetensors."""
    source: Annotated[tuple[Path, ...], tyro.conf.arg(metavar="PATH ...")]
    """Pictures of people, or folders of them."""
    source_keypoints: OptionalFile = None
    """Table (.csv) with the sources' joints; by default a table beside a picture or in the folder above that has its
    row, and else joints are extracted, if mediapipe is installed."""
    source_frame: Frame = None
    """Height and width of the pictures that the joints of the sources' table are in, as 256 176 for the larger pictures
    of GFLA and CFLD. By default those of the source itself."""

    pose: OptionalFile = None
    """Table of joints whose rows are the poses to take."""
    pose_names: Names = ()
    """Rows of --pose, in this order; a name may come twice. By default all."""
    pose_from: Files = ()
    """Other pictures of people, or folders, whose poses are taken."""
    pose_sequence: OptionalFile = None
    """A sequence of poses: a table in its order, a folder of frames, or a video."""
    pose_frame: Frame = None
    """Height and width of the pictures that the joints of a table are in. By default those of the pictures beside the
    table, or of --pose-from; where there are none, the source's."""
    fit_pose: Switch = False
    """Scale and move the poses to the source's trunk and hips: for poses of other people or cameras. A sequence is
    moved as a whole."""
    between: int = 0
    """Poses to put between every two, on straight lines."""
    together: Switch = False
    """All sources show one person: draw every pose once, from all of them."""

    out: OptionalFile = None
    """Folder for a PNG per source and pose, and sheet.png with all of them side by side."""
    animate: OptionalFile = None
    """Animation of all poses in order, .gif or .mp4; with several sources one file each, SOURCE added to the name."""
    fps: float = 10.0
    """Poses per second of the animation."""
    size: Literal["native", "model"] = "native"
    """native cuts off what was added to give a source the model's shape; model keeps it. Nothing is enlarged."""
    overwrite: Switch = False
    """Write over files that are there."""
    device: str = "auto"
    """auto takes a GPU where PyTorch sees one; or cpu, cuda, cuda:1, mps."""


def check(options: Options) -> None:
    """Make sure that the options go together.

    Raises:
        UserError: no or several kinds of poses, nowhere to write to, or a number that is out of range.
    """
    if not options.source:
        raise UserError("--source: expected at least one picture, or a folder of them, got none")
    given = [name for name in ("pose", "pose_from", "pose_sequence") if getattr(options, name)]
    if len(given) != 1:
        got = " and ".join("--" + name.replace("_", "-") for name in given) or "none"
        raise UserError(f"poses: expected one of --pose, --pose-from and --pose-sequence, got {got}")
    if options.pose_names and options.pose is None:
        raise UserError("--pose-names: expected --pose FILE.csv with it, whose rows they are")
    table = options.pose or options.pose_sequence
    if options.pose_frame is not None and (
        (table is not None and table.suffix.lower() != ".csv") or min(options.pose_frame) < 1
    ):
        raise UserError(
            "--pose-frame: expected a height and a width above 0 for a table of joints (.csv); frames know theirs"
        )
    if options.source_frame is not None and min(options.source_frame) < 1:
        got = " ".join(map(str, options.source_frame))
        raise UserError(f"--source-frame: expected a height and a width above 0, got {got}")
    check_least("between", options.between, 0)
    if options.out is None and options.animate is None:
        raise UserError("nothing to write: give --out FOLDER for pictures, --animate FILE.gif or .mp4, or both")
    if options.out is not None and options.out.exists() and not options.out.is_dir():
        raise UserError(f"--out: expected a folder, and {options.out} is a file")
    if options.animate is not None:
        check_animation(options.animate, options.fps)
