"""The paper's distortion task (section 3.2, Fig. 5): which attention copies best, and at what memory?

Every contestant trains the same network, with its attention where GPA would stand, on L_self alone, for the same time,
with several seeds, and is scored on the same 500 held-out cases. Leaves distortion.md, distortion.json,
distortion.png and distortion_examples.png in the folder; runs that have a result are not run again.
"""

import itertools
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console

from examples.pose_morph.atomic import write_json
from examples.pose_morph.command_line import run_command
from examples.pose_morph.data.profiles import Profile
from examples.pose_morph.errors import UserError
from examples.pose_morph.experiments.distortion_report import NUMBERS, write_report
from examples.pose_morph.experiments.distortion_run import RunOptions, data_digest, model_settings
from examples.pose_morph.experiments.jobs import Job, last_entry, run_jobs
from examples.pose_morph.experiments.run_results import read_result
from examples.pose_morph.networks.attention_names import attention_name
from examples.pose_morph.option_types import Folder, RequiredFolder
from examples.pose_morph.presets import PRESETS, PresetName
from examples.pose_morph.training.device import choose_device
from examples.pose_morph.training.options import PEOPLE

SHARPNESS = 80.0
"""The preset's, which the dense levels have in every run."""
FIRST = tuple(itertools.product((2.0, 10.0, 80.0), (0.003, 0.006)))
TRIALS = {
    "gpa": (*FIRST, (80.0, 0.0015), (320.0, 0.0015), (320.0, 0.003)),
    "NYF128": (*FIRST, (80.0, 0.012), (320.0, 0.006), (320.0, 0.012)),
    "PER128": (*FIRST, (0.5, 0.006), (0.5, 0.012), (2.0, 0.012)),
    "no": tuple((SHARPNESS, rate) for rate in (0.001, 0.002, 0.003, 0.006, 0.0075, 0.009, 0.012, 0.015, 0.02)),
}
"""What `--tune` tries, (sharpness, learning rate): the same six settings for all, then three around the best of these,
which lay at the edge. NO has no sharpness to be tuned, but as many rates."""


@dataclass(frozen=True)
class Contestant:
    """An attention kind, and the settings that `--tune` found for it.

    Attributes:
        attention: Its name, as for train.py; gpa is the preset's own.
        sharpness: First 1/temperature of cosine attention where GPA would stand.
        learning_rate: Adam's.
        widen: Factor of the channels of the levels where GPA would stand.
    """

    attention: str
    sharpness: float
    learning_rate: float
    widen: float = 1.0


CONTESTANTS = (
    Contestant("gpa", 80.0, 0.003),
    Contestant("no", SHARPNESS, 0.009),
    Contestant("NYF128", 80.0, 0.006),
    Contestant("PER128", 2.0, 0.006),
    Contestant("no", SHARPNESS, 0.009, widen=5.25),
)
"""The best setting of each kind's trials with the demo. NO with 5.25 times the channels takes as much memory as GPA."""

WHERE = ("out", "data", "profile")
"""Options of a run that say where things lie; all others must be as they were for its result to count."""


@dataclass(frozen=True)
class DistortionOptions:
    """What to compare, for how long, and where to put it."""

    out: RequiredFolder = Path("runs/distortion")
    """Folder of the experiment."""
    data: Folder = PEOPLE
    """Folder with the data, as for train.py; its test phase is the test set."""
    profile: Profile = "auto"
    """Its layout."""
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
    """cpu, cuda or cuda:N; on a GPU the runs go one after the other (--jobs 1)."""
    tune: bool = False
    """Instead try every setting of the grid for every kind, one seed, on training people that no run learns from."""


def check(options: DistortionOptions) -> None:
    """Refuse options that cannot work.

    Raises:
        UserError: the message names the option.
    """
    for name in ("seeds", "jobs", "test_cases"):
        if getattr(options, name) < 1:
            raise UserError(f"--{name.replace('_', '-')}: expected at least 1, got {getattr(options, name)}")
    if not options.seconds > 0:
        raise UserError(f"--seconds: expected more than 0, got {options.seconds:g}")
    kind = choose_device(options.device).type
    if kind not in ("cpu", "cuda"):
        raise UserError(f"--device: expected cpu or cuda, whose memory can be measured, got {kind}")
    if kind == "cuda" and options.jobs > 1:
        raise UserError(
            f"--jobs: runs side by side would take the GPU's time from each other; expected 1 with --device "
            f"{options.device}, got {options.jobs}"
        )


def run_of(options: DistortionOptions, contestant: Contestant, seed: int) -> RunOptions:
    """Return the run of a contestant."""
    attention = contestant.attention
    if attention == "gpa":
        attention = attention_name(PRESETS[options.preset].model)
    name = f"{attention}-{contestant.widen:g}-{seed}"
    if options.tune:
        name = f"tuning/{attention}-{contestant.sharpness:g}-{contestant.learning_rate:g}"
    return RunOptions(
        out=options.out / name,
        data=options.data,
        profile=options.profile,
        preset=options.preset,
        attention=attention,
        seed=seed,
        seconds=options.seconds,
        learning_rate=contestant.learning_rate,
        sharpness=contestant.sharpness,
        widen=contestant.widen,
        phase="validation" if options.tune else "test",
        test_cases=options.test_cases,
        device=str(choose_device(options.device)),
    )


def label(run: RunOptions) -> str:
    """Return what tables and plots call a run's contestant."""
    return run.attention.upper() + ("" if run.widen == 1 else f", {run.widen:g}x channels")


def results_of(runs: Sequence[RunOptions], parallel: int, console: Console) -> list[dict[str, Any]]:
    """Do the runs that have no result yet, and return the results of all.

    Raises:
        UserError: a result was made with other options, or a run failed.
    """
    data = data_digest(runs[0])
    for run in runs:
        model_settings(run)  # a name that does not fit the preset is said before anything runs
        if (run.out / "result.json").is_file():
            _read(run, data)
    jobs = [
        Job(
            name=f"{label(run)}, seed {run.seed}",
            module="examples.pose_morph.experiments.distortion_run",
            arguments=tuple(
                text for name, value in asdict(run).items() for text in (f"--{name.replace('_', '-')}", str(value))
            ),
            folder=run.out,
            result=run.out / "result.json",
            fraction=lambda run=run: min(1.0, last_entry(run.out / "log.jsonl", "seconds") / run.seconds),
        )
        for run in runs
    ]
    run_jobs(jobs, parallel=parallel, console=console)
    return [_read(run, data) for run in runs]


def compare(options: DistortionOptions, console: Console) -> None:
    """Run every contestant with every seed, and write the report."""
    order = itertools.product(range(options.seeds), CONTESTANTS)
    runs = [run_of(options, contestant, seed) for seed, contestant in order]
    results: dict[str, list[dict[str, Any]]] = {}
    for run, result in zip(runs, results_of(runs, options.jobs, console), strict=True):
        results.setdefault(label(run), []).append(result)
    shown = {label(run): run.out / "shown.npz" for run in runs if run.seed == 0}
    write_report(options.out, results, shown, console)


def tune(options: DistortionOptions, console: Console) -> None:
    """Try the grid for every kind, and print which setting is best for each."""
    tried = [Contestant(kind, *setting) for kind, settings in TRIALS.items() for setting in settings]
    runs = [run_of(options, contestant, 0) for contestant in tried]
    table = [
        {"attention": run.attention, "sharpness": run.sharpness, "learning_rate": run.learning_rate,
         "loss": result["scores"]["loss"]}
        for run, result in zip(runs, results_of(runs, options.jobs, console), strict=True)
    ]  # fmt: skip
    write_json(options.out / "tuning.json", {"seconds": options.seconds, "losses": table})
    for kind, trials in itertools.groupby(table, key=lambda row: row["attention"]):
        for row in sorted(trials, key=lambda row: row["loss"]):
            console.print(
                f"{kind:>12}  sharpness {row['sharpness']:>4g}  learning rate {row['learning_rate']:g}  "
                f"loss {row['loss']:.4f}"
            )


def _read(run: RunOptions, data: dict[str, dict[str, int]]) -> dict[str, Any]:
    """A run's result; refuses one that was made with other options or on other data."""
    path = run.out / "result.json"
    result = read_result(path, NUMBERS)
    before = result.get("options")
    if not isinstance(before, dict):
        raise UserError(f"out: {path} is not the result of a run; remove it, or choose another --out")
    for name, now in asdict(run).items():
        if name not in WHERE and before.get(name) != now:
            raise UserError(f"out: {run.out} was run with {name} = {before.get(name)}, not {now}; choose another --out")
    if result.get("data") != data:
        raise UserError(f"out: {run.out} was run on other data than {run.data}; choose another --out")
    return result


def distortion(options: DistortionOptions, console: Console) -> int:
    """Compare, or tune; return the exit code."""
    check(options)
    (tune if options.tune else compare)(options, console)
    return 0


if __name__ == "__main__":
    run_command(
        DistortionOptions, distortion, prog="python -m examples.pose_morph.experiments.distortion", description=__doc__
    )
