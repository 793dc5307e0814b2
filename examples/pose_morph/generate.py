"""Draw people in other poses with a trained model: single pictures, grids of people and poses, animations.

For example, a person of one picture in the pose of another:
python -m examples.pose_morph.generate --model runs/pose_morph/demo-gpa --source a.jpg --pose-from b.jpg --out results
"""

from collections.abc import Callable, Iterator, Sequence

from jaxtyping import Float
from PIL import Image
from rich.console import Console
from torch import Tensor

from examples.pose_morph.command_line import run_command
from examples.pose_morph.data.pose_data import fit
from examples.pose_morph.errors import UserError
from examples.pose_morph.existing import refuse_existing
from examples.pose_morph.generation.animation import write_animation
from examples.pose_morph.generation.morph import draw_poses, read_sources, without_padding
from examples.pose_morph.generation.options import Options, check
from examples.pose_morph.generation.people import Person, read_people
from examples.pose_morph.generation.poses import (
    TargetPose,
    between,
    check_inside,
    doubtful,
    fit_to_body,
    names_between,
    place,
    poses_of,
    read_poses,
)
from examples.pose_morph.generation.results import Files, Sheet, distinct, plan_files
from examples.pose_morph.generation.sequence import read_sequence
from examples.pose_morph.messages import counted, say
from examples.pose_morph.networks.generator import Generator
from examples.pose_morph.networks.settings import Nystromformer
from examples.pose_morph.networks.trained import load_generator
from examples.pose_morph.pictures.png import write_png
from examples.pose_morph.pictures.sheet import to_picture
from examples.pose_morph.progress import progress_bar
from examples.pose_morph.training.device import choose_device


def generate(options: Options, console: Console) -> int:
    """Draw what ``options`` ask for; return the exit code."""
    check(options)
    generator, settings, _ = load_generator(options.model, choose_device(options.device))
    with console.status("reading pictures and poses"):  # the extractor takes its time where no table has the joints
        people, notes = read_people(options.source, options.source_keypoints, options.source_frame)
        poses, left_out = target_poses(options)
    notes += [*left_out, *doubtful(poses_of(people), "source"), *doubtful(poses, "pose")]
    pose_names = distinct(names_between([pose.name for pose in poses], options.between))
    if options.pose_sequence is not None or options.between:  # files in the order of the frames
        pose_names = [f"{number:05d}_{name}" for number, name in enumerate(pose_names)]

    groups = [people] if options.together else [[person] for person in people]
    if len(groups[0]) > 1 and any(isinstance(level.attention, Nystromformer) for level in settings.levels):
        raise UserError("--together: Nyströmformer's attention takes one source; leave it out, or use a GPA model")
    names = distinct(["+".join(person.name for person in group) for group in groups])
    plans = [
        plan_files(name, pose_names, out=options.out, animate=options.animate, alone=len(names) == 1) for name in names
    ]
    sheet_path = None if options.out is None else options.out / "sheet.png"
    everything = [path for plan in plans for path in (*plan.pictures, plan.animation)]
    refuse_existing([path for path in (*everything, sheet_path) if path is not None], overwrite=options.overwrite)

    joints = [joints_for(group[0], poses, options, settings.size) for group in groups]
    for name, points in zip(names, joints, strict=True):
        notes += check_inside(points, pose_names, settings.size, name)
    for note in notes:
        say(console, note, style="yellow")

    sheet = Sheet(len(groups), pose_names, settings.size, together=len(groups[0]))
    with progress_bar(console) as bar:
        task = bar.add_task("drawing", total=len(groups) * len(pose_names))
        for number, (group, points, plan) in enumerate(zip(groups, joints, plans, strict=True)):
            results = draw_group(
                generator, group, points, plan, options, keep=sheet.poses, advance=lambda: bar.advance(task)
            )
            if number in sheet.people:
                sheet.add(group, points, results)
    if sheet_path is not None:
        sheet.save(sheet_path)
        say(console, f"{counted(len(groups) * len(pose_names), 'picture')} and a sheet of them: {options.out}")
    for plan in plans:
        if plan.animation is not None:
            say(console, f"{counted(len(pose_names), 'frame')}: {plan.animation}")
    return 0


def target_poses(options: Options) -> tuple[list[TargetPose], list[str]]:
    """Return the poses that the options name, and notes on what is left out."""
    if options.pose is not None:
        return read_poses(options.pose, options.pose_names, options.pose_frame), []
    if options.pose_sequence is not None:
        return read_sequence(options.pose_sequence, options.pose_frame)
    people, notes = read_people(options.pose_from, None, options.pose_frame)
    return poses_of(people), notes


def joints_for(
    person: Person, poses: Sequence[TargetPose], options: Options, size: tuple[int, int]
) -> Float[Tensor, "q 18 2"]:
    """Return the poses that a person takes, in the networks' frame of ``size``."""
    joints = place(poses, (person.picture.height, person.picture.width), size)
    if options.fit_pose:
        body = fit(person.picture, person.keypoints, size).keypoints
        joints = fit_to_body(joints, body, together=options.pose_sequence is not None, source=person.name)
    return between(joints, options.between)


def draw_group(
    generator: Generator,
    people: Sequence[Person],
    joints: Float[Tensor, "p 18 2"],
    files: Files,
    options: Options,
    *,
    keep: Sequence[int],
    advance: Callable[[], None],
) -> dict[int, Float[Tensor, "3 h w"]]:
    """Draw one person, of one or several pictures, in all poses; return the results with the numbers of ``keep``."""
    original = (people[0].picture.height, people[0].picture.width)
    kept = {}

    def pictures() -> Iterator[Image.Image]:
        for number, image in enumerate(draw_poses(generator, read_sources(generator, people), joints)):
            if number in keep:
                kept[number] = image
            picture = to_picture(image)
            if options.size == "native":
                picture = without_padding(picture, original)
            if files.pictures:
                write_png(files.pictures[number], picture)
            advance()
            yield picture

    if files.animation is None:
        for _ in pictures():
            pass
    else:
        write_animation(files.animation, pictures(), options.fps)
    return kept


def main() -> None:
    """Read the command line and draw."""
    run_command(Options, generate, prog="python -m examples.pose_morph.generate", description=__doc__)


if __name__ == "__main__":
    main()
