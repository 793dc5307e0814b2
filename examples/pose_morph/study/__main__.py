"""Ask people whether pictures are real or generated, as in Appendix C of the paper, on a small local web page.

A picture is shown for 4 seconds after 2 seconds of warning. Answers go to a file line by line; Ctrl-C or a crash loses
none, and the same command goes on. `python -m examples.pose_morph.study.report results.jsonl` says what was found.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from examples.pose_morph.command_line import run_command
from examples.pose_morph.errors import UserError
from examples.pose_morph.messages import say
from examples.pose_morph.option_types import Count, Frame, RequiredFolder, check_least
from examples.pose_morph.stop_signal import StopSignal
from examples.pose_morph.study.design import StudyDesign
from examples.pose_morph.study.exhibition import gather
from examples.pose_morph.study.server import StudyServer
from examples.pose_morph.study.sitting import Sitting

TwoFolders = Annotated[tuple[Path, Path] | None, tyro.conf.arg(metavar="REAL FAKE", help_behavior_hint="")]


@dataclass(frozen=True)
class Options:
    """Which pictures to ask about, how, and where the answers go."""

    real: RequiredFolder
    """Real pictures, such as the test pictures of a data set."""
    generated: RequiredFolder
    """Generated pictures, such as the folder of `evaluate --save-pictures`."""
    out: Annotated[Path, tyro.conf.arg(metavar="FILE")] = Path("results.jsonl")
    """Where the answers go, one JSON object a line; a file of the same study is gone on with."""
    golden: TwoFolders = None
    """Folders of real and of obviously fake pictures for the golden questions; by default other real pictures, half of
    them shuffled in blocks."""
    count: int = 55
    """Real pictures, and as many generated ones."""
    answers: int = 3
    """Answers that each picture gets, all from different people."""
    golden_count: int = 45
    """Golden questions, whose right answers are certain; they test the participant."""
    golden_pass: float = 0.6
    """Share of the golden questions that must be right for a participant's answers to count."""
    pictures_each: Count = None
    """Pictures per participant, golden ones on top; by default all. The golden ones shrink in proportion, to 10."""
    warning: float = 2.0
    """Seconds from the reveal button to the picture."""
    visible: float = 4.0
    """Seconds that the picture stays."""
    frame: Frame = None
    """Size to which all pictures are cut; by default the smallest generated picture's, if all have its shape."""
    seed: int = 0
    """Seed of the choice of pictures and of their order."""
    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 lets phones on the same network take part."""
    port: int = 8000
    """Port to listen on; 0 takes a free one."""


def check(options: Options) -> None:
    """Refuse numbers that make no study."""
    least = {"count": 1, "answers": 1, "golden_count": 0, "pictures_each": 1, "seed": 0, "port": 0}
    for name, bound in least.items():
        check_least(name, getattr(options, name), bound)
    if not 0 <= options.golden_pass <= 1:
        raise UserError(f"--golden-pass: expected a share from 0 to 1, got {options.golden_pass}")
    if not (0 <= options.warning <= 60 and 0 < options.visible <= 600):
        raise UserError(
            f"--warning, --visible: expected seconds up to 60 and 600, got {options.warning} and {options.visible}"
        )
    if options.frame is not None and not all(16 <= side <= 4096 for side in options.frame):
        raise UserError(f"--frame: expected a height and a width from 16 to 4096, got {options.frame}")


def run(options: Options, console: Console) -> int:
    """Serve the study until a signal comes; return the exit code."""
    check(options)
    with StopSignal() as stop:
        with console.status("reading the pictures"):
            exhibition = gather(
                options.real,
                options.generated,
                golden=options.golden,
                count=options.count,
                golden_count=options.golden_count,
                frame=options.frame,
                seed=options.seed,
            )
        each = min(options.pictures_each or 2 * options.count, 2 * options.count)
        design = StudyDesign(
            options.seed,
            options.answers,
            each,
            options.golden_pass,
            options.warning,
            options.visible,
            exhibition.frame,
            exhibition.exhibits,
        )
        with StudyServer(options.host, options.port, lambda: Sitting(design, exhibition, options.out)) as server:
            sitting = server.sitting
            try:
                for note in (*exhibition.notes, *sitting.notes):
                    say(console, note, style="yellow")
                result = sitting.result()
                addresses, (height, width) = server.addresses(), exhibition.frame
                say(
                    console,
                    f"{options.count} real and {options.count} generated pictures of {height}x{width}, "
                    f"{options.golden_count} golden questions; {result.places_filled} of {result.places} answers are "
                    f"in {options.out}",
                )
                say(console, f"participants: {'  or  '.join(addresses)}")
                say(console, f"results:      {addresses[0]}results  (Ctrl-C ends; nothing is lost)")
                while stop.received is None:
                    server.handle_request()
            finally:
                sitting.close()
        result = sitting.result()
        say(
            console,
            f"stopped with {result.places_filled} of {result.places} answers; the same command goes on, and this says "
            f"what was found: python -m examples.pose_morph.study.report {options.out}",
        )
        return 128 + stop.received


def main() -> None:
    """Read the command line and serve."""
    run_command(Options, run, prog="python -m examples.pose_morph.study", description=__doc__)


if __name__ == "__main__":
    main()
