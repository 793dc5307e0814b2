"""The paper's distortion task (section 3.2, Fig. 5): which attention copies best, and at what memory?

Every contestant trains the same network, with its attention where GPA would stand, on L_self alone, for the same time,
with several seeds, and is scored on the same 500 held-out cases. Leaves distortion.md, distortion.json,
distortion.png and distortion_examples.png in the folder; runs that have a result are not run again.
"""

import itertools
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro
from rich.console import Console

from examples.pose_morph.atomic import replace_file
from examples.pose_morph.errors import UserError
from examples.pose_morph.experiments.distortion_report import write_report
from examples.pose_morph.experiments.jobs import Job, last_entry, run_jobs
from examples.pose_morph.presets import PresetName
from examples.pose_morph.training.options import PEOPLE

SHARPNESS = 80.0
"""The preset's, which the dense levels have in every run."""
ATTENTIVE = tuple(itertools.product((2.0, 10.0, 80.0), (0.003, 0.006)))
TRIALS = {
    "GPA640_4_32": ATTENTIVE,
    "NYF128": ATTENTIVE,
    "PER128": ATTENTIVE,
    "no": tuple((SHARPNESS, rate) for rate in (0.001, 0.002, 0.003, 0.006, 0.009, 0.012)),
}
"""What `--tune` tries, (sharpness, learning rate): six settings each. NO has no sharpness to be tuned."""


@dataclass(frozen=True)
class Contestant:
    """An attention kind, and the settings that `--tune` found for it.

    Attributes:
        attention: Its name, as for train.py.
        sharpness: First 1/temperature of cosine attention where GPA would stand.
        learning_rate: Adam's.
        widen: Factor of the channels of the levels where GPA would stand.
    """

    attention: str
    sharpness: float
    learning_rate: float
    widen: float = 1.0

    @property
    def name(self) -> str:
        """What tables and plots call it."""
        return self.attention.upper() + ("" if self.widen == 1 else f", {self.widen:g}x channels")


CONTESTANTS = (
    Contestant("GPA640_4_32", 80.0, 0.003),
    Contestant("no", SHARPNESS, 0.009),
    Contestant("no", SHARPNESS, 0.009, widen=2.0),
    Contestant("NYF128", 80.0, 0.006),
    Contestant("PER128", 2.0, 0.006),
)
"""The best setting of each kind's trials; NO with twice the channels has the memory that NO saves."""


@dataclass(frozen=True)
class DistortionOptions:
    """What to compare, for how long, and where to put it."""

    out: Path = Path("runs/distortion")
    """Folder of the experiment."""
    data: Path = PEOPLE
    """Folder in the PATN layout; its test phase is the test set."""
    preset: PresetName = "demo"
    """The network."""
    seeds: int = 3
    """Runs per contestant."""
    seconds: float = 200.0
    """Training time of a run: processor seconds on a CPU, as in the paper a fixed time for everybody."""
    jobs: Annotated[int, tyro.conf.arg(metavar="N")] = 2
    """Runs side by side; each gets its share of the processors."""
    test_cases: int = 500
    """Held-out pictures under random maps."""
    device: str = "cpu"
    """cpu, or cuda (with --jobs 1)."""
    tune: bool = False
    """Instead try every setting of the grid for every kind, one seed, on training people that no run learns from."""


def job(options: DistortionOptions, contestant: Contestant, seed: int, folder: Path, phase: str) -> Job:
    """Return the run of a contestant."""
    arguments = {
        "out": folder, "data": options.data, "preset": options.preset, "attention": contestant.attention, "seed": seed,
        "seconds": options.seconds, "learning-rate": contestant.learning_rate, "sharpness": contestant.sharpness,
        "widen": contestant.widen, "phase": phase, "test-cases": options.test_cases, "device": options.device,
    }  # fmt: skip
    return Job(
        name=f"{contestant.name}, seed {seed}",
        module="examples.pose_morph.experiments.distortion_run",
        arguments=tuple(text for name, value in arguments.items() for text in (f"--{name}", str(value))),
        folder=folder,
        result=folder / "result.json",
        fraction=lambda: min(1.0, last_entry(folder / "log.jsonl", "seconds") / options.seconds),
    )


def compare(options: DistortionOptions, console: Console) -> None:
    """Run every contestant with every seed, and write the report."""
    runs = [
        (contestant, seed, options.out / f"{contestant.attention}-{contestant.widen:g}-{seed}")
        for seed, contestant in itertools.product(range(options.seeds), CONTESTANTS)
    ]
    jobs = [job(options, contestant, seed, folder, "test") for contestant, seed, folder in runs]
    run_jobs(jobs, parallel=options.jobs, console=console)
    results: dict[str, list[dict[str, Any]]] = {}
    for contestant, _, folder in runs:
        results.setdefault(contestant.name, []).append(_read(folder, options))
    shown = {contestant.name: folder / "shown.npz" for contestant, seed, folder in runs if seed == 0}
    write_report(options.out, results, shown, console)


def tune(options: DistortionOptions, console: Console) -> None:
    """Try the grid for every kind, and print which setting is best for each."""
    grid = [(kind, *setting) for kind, settings in TRIALS.items() for setting in settings]
    folders = [options.out / "tuning" / f"{kind}-{sharpness:g}-{rate:g}" for kind, sharpness, rate in grid]
    tried = [Contestant(kind, sharpness, rate) for kind, sharpness, rate in grid]
    jobs = [job(options, c, 0, folder, "validation") for c, folder in zip(tried, folders, strict=True)]
    run_jobs(jobs, parallel=options.jobs, console=console)
    losses = {entry: _read(folder, options)["scores"]["loss"] for entry, folder in zip(grid, folders, strict=True)}
    table = [
        {"attention": kind, "sharpness": sharpness, "learning_rate": rate, "loss": loss}
        for (kind, sharpness, rate), loss in losses.items()
    ]
    text = json.dumps({"seconds": options.seconds, "losses": table}, indent=2) + "\n"
    replace_file(options.out / "tuning.json", lambda file: file.write(text.encode()))
    for kind in TRIALS:
        for loss, sharpness, rate in sorted((loss, s, r) for (k, s, r), loss in losses.items() if k == kind):
            console.print(f"{kind:>12}  sharpness {sharpness:>4g}  learning rate {rate:g}  loss {loss:.4f}")


def _read(folder: Path, options: DistortionOptions) -> dict[str, Any]:
    """A run's result; refuses one that was made under another budget."""
    result = json.loads((folder / "result.json").read_text())
    for name in ("seconds", "preset", "test_cases"):
        if result["options"][name] != getattr(options, name):
            raise UserError(
                f"out: {folder} was run with {name} = {result['options'][name]}, not {getattr(options, name)}; "
                "choose another --out"
            )
    return result


def main() -> None:
    """Read the command line and run."""
    options = tyro.cli(
        DistortionOptions,
        prog="python -m examples.pose_morph.experiments.distortion",
        description=__doc__,
        config=(tyro.conf.FlagCreatePairsOff,),
    )
    console = Console()
    try:
        if options.device != "cpu" and not torch.cuda.is_available():
            raise UserError("--device: PyTorch sees no GPU here")
        (tune if options.tune else compare)(options, console)
    except UserError as error:
        console.print(f"[red]{error}[/]", soft_wrap=True, highlight=False)
        sys.exit(2)
    except KeyboardInterrupt:
        console.print("stopped; the same command goes on with the runs that have no result")
        sys.exit(130)


if __name__ == "__main__":
    main()
