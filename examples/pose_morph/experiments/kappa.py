"""The paper's ablation of kappa (Fig. 7 and 11): more relevant keys, more detail, more memory.

Trains the whole pose-morphing task once per kappa and seed with train.py. Leaves kappa.md, kappa.json, kappa.png
(scores and memory over kappa) and kappa_examples.png (held-out people, kappa rising from left to right) in the folder;
runs that have a result are not run again.
"""

import itertools
import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro
from rich.console import Console
from rich.table import Table

from examples.pose_morph.atomic import replace_file, write_json, write_text
from examples.pose_morph.command_line import run_command
from examples.pose_morph.data.evenly import evenly
from examples.pose_morph.data.pose_data import PHASES
from examples.pose_morph.data.profiles import Profile, read_data
from examples.pose_morph.errors import UserError
from examples.pose_morph.experiments.attention_memory import attention_memory
from examples.pose_morph.experiments.jobs import Job, last_entry, run_jobs
from examples.pose_morph.experiments.run_results import read_result
from examples.pose_morph.networks.attention_names import attention_name, with_attention
from examples.pose_morph.networks.generator import draw_pose
from examples.pose_morph.networks.trained import load_generator
from examples.pose_morph.option_types import Count, Folder, RequiredFolder
from examples.pose_morph.pictures.png import write_png
from examples.pose_morph.pictures.sheet import draw_sheet, to_picture
from examples.pose_morph.presets import PRESETS, PresetName
from examples.pose_morph.training.batch import take_pairs, to_device
from examples.pose_morph.training.device import choose_device
from examples.pose_morph.training.options import PEOPLE, Options, identity_of, settings_of
from examples.pose_morph.training.resume import digest_of

SCORES = {
    "perceptual_efficientnet_lite0": "perceptual distance", "l1_person": "L1 on the person", "ssim_gaussian": "SSIM",
}  # fmt: skip
SHOWN = 6


@dataclass(frozen=True)
class KappaOptions:
    """What to train, how often, and where to put it."""

    out: RequiredFolder = Path("runs/kappa")
    """Folder of the experiment."""
    data: Folder = PEOPLE
    """Folder with the data, as for train.py."""
    profile: Profile = "auto"
    """Its layout."""
    preset: PresetName = "demo"
    """The network and its training."""
    kappas: tuple[int, ...] = (1, 2, 4)
    """Key sets per cell; m and the height of Phase 1 are the preset's."""
    seeds: int = 1
    """Runs per kappa."""
    steps: Count = None
    """Steps of a run, instead of the preset's number."""
    jobs: Annotated[int, tyro.conf.arg(metavar="N")] = 1
    """Runs side by side; each gets its share of the processors."""
    device: str = "auto"
    """As for train.py."""


def named(options: KappaOptions, kappa: int) -> str:
    """Return the paper's name of the preset's GPA with another kappa."""
    cells, _, height = attention_name(PRESETS[options.preset].model).removeprefix("GPA").split("_")
    return f"GPA{cells}_{kappa}_{height}"


def check(options: KappaOptions) -> None:
    """Refuse options that cannot work.

    Raises:
        UserError: the message names the option.
    """
    if not options.kappas or len(set(options.kappas)) < len(options.kappas):
        raise UserError(f"--kappas: expected different numbers, got {' '.join(map(str, options.kappas)) or 'none'}")
    for name in ("seeds", "steps", "jobs"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise UserError(f"--{name}: expected at least 1, got {value}")
    for kappa in options.kappas:
        with_attention(PRESETS[options.preset].model, named(options, kappa))
    choose_device(options.device)


def run_of(options: KappaOptions, kappa: int, seed: int) -> Options:
    """Return one training run."""
    name = named(options, kappa)
    return Options(
        preset=options.preset,
        data=options.data,
        profile=options.profile,
        out=options.out / f"{name}-{seed}",
        attention=name,
        device=options.device,
        steps=options.steps,
        seed=seed,
    )


def job(run: Options) -> Job:
    """Return how a training run is started; one that was interrupted goes on."""
    folder, steps = run.out, settings_of(run).training.steps
    arguments = ["--preset", run.preset, "--data", str(run.data), "--profile", run.profile, "--out", str(folder)]
    arguments += ["--attention", run.attention, "--device", run.device, "--steps", str(steps), "--seed", str(run.seed)]
    if (folder / "checkpoint.pt").is_file():
        arguments.append("--resume")
    return Job(
        name=f"{run.attention}, seed {run.seed}",
        module="examples.pose_morph.train",
        arguments=tuple(arguments),
        folder=folder,
        result=folder / "metrics.json",
        fraction=lambda: last_entry(folder / "log.jsonl", "step") / steps,
    )


def ablate(options: KappaOptions, console: Console) -> int:
    """Train every kappa with every seed, and write the report; return the exit code."""
    check(options)
    size = PRESETS[options.preset].model.size
    data = {phase: digest_of(read_data(options.data, phase, size, options.profile)) for phase in PHASES}
    order = itertools.product(range(options.seeds), options.kappas)
    runs = {(kappa, seed): run_of(options, kappa, seed) for seed, kappa in order}
    for run in runs.values():
        if (run.out / "metrics.json").is_file():
            _scores(run, data)
    run_jobs([job(run) for run in runs.values()], parallel=options.jobs, console=console)
    device = choose_device(options.device)
    measured = device if device.type == "cuda" else torch.device("cpu")
    rows = []
    for kappa in options.kappas:
        mine = [runs[kappa, seed] for seed in range(options.seeds)]
        scores = [_scores(run, data) for run in mine]
        generator = load_generator(mine[0].out, measured).generator
        row: dict[str, Any] = {"kappa": kappa, "attention_bytes": attention_memory(generator, measured)}
        for name in SCORES:
            values = [score[name] for score in scores]
            row[name] = statistics.fmean(values)
            row[f"{name}_spread"] = statistics.stdev(values) if len(values) > 1 else 0.0
        rows.append(row)
    _write(options, rows, {kappa: runs[kappa, 0].out for kappa in options.kappas}, device, console)
    return 0


def _scores(run: Options, data: dict[str, dict[str, int]]) -> dict[str, float]:
    """The scores of a finished run; refuses one that was trained in another way, or on data of another digest."""
    path = run.out / "metrics.json"
    metrics = read_result(path, [f"model.{name}" for name in SCORES])
    if metrics.get("settings") != json.loads(json.dumps(identity_of(run, settings_of(run)))):
        raise UserError(f"out: {path} is of a run with other settings (preset, steps, …); choose another --out")
    if metrics.get("data") != data:
        raise UserError(f"out: {path} is not of a run on the data that are in {run.data} now; choose another --out")
    return metrics["model"]


def _write(
    options: KappaOptions,
    rows: Sequence[dict[str, Any]],
    folders: dict[int, Path],
    device: torch.device,
    console: Console,
) -> None:
    table = Table("kappa", *SCORES.values(), "attention MB, batch 1")
    lines = [f"| kappa | {' | '.join(SCORES.values())} | attention MB, batch 1 |", "|---" * (len(SCORES) + 2) + "|"]
    for row in rows:
        cells = [f"{row[name]:.4f} ± {row[f'{name}_spread']:.4f}" for name in SCORES]
        cells = [str(row["kappa"]), *cells, f"{row['attention_bytes'] / 1e6:.1f}"]
        table.add_row(*cells)
        lines.append(f"| {' | '.join(cells)} |")
    console.print(table)
    report = {"preset": options.preset, "seeds": options.seeds, "steps": options.steps, "rows": rows}
    write_json(options.out / "kappa.json", report)
    write_text(options.out / "kappa.md", "\n".join(lines) + "\n")
    _plot(options.out / "kappa.png", rows)
    _examples(options, folders, device)
    console.print(f"written to {options.out}: kappa.md, .json, .png and kappa_examples.png", soft_wrap=True)


def _plot(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    from matplotlib.figure import Figure  # without pyplot, whose windows and backend are none of ours

    figure = Figure(figsize=(14, 3.6))
    axes = figure.subplots(1, len(SCORES) + 1)
    kappas = [row["kappa"] for row in rows]
    for axis, (name, label) in zip(axes, SCORES.items(), strict=False):
        values, spreads = [row[name] for row in rows], [row[f"{name}_spread"] for row in rows]
        axis.errorbar(kappas, values, spreads, marker="o", capsize=4)
        axis.set_title(f"{label}, {'more' if name.startswith('ssim') else 'less'} is better", fontsize=10)
    axes[-1].plot(kappas, [row["attention_bytes"] / 1e6 for row in rows], marker="o", color="C1")
    axes[-1].set_title("attention blocks, MB at batch 1", fontsize=10)
    axes[-1].set_ylim(0, 1.2 * max(row["attention_bytes"] for row in rows) / 1e6)
    for axis in axes:
        axis.set_xscale("log", base=2)
        axis.set_xticks(kappas, [str(kappa) for kappa in kappas])
        axis.set_xlabel("kappa")
        axis.grid(alpha=0.3)
    figure.tight_layout()
    replace_file(path, lambda file: figure.savefig(file, format="png", dpi=110))


def _examples(options: KappaOptions, folders: dict[int, Path], device: torch.device) -> None:
    """Draw held-out people with every kappa, side by side."""
    model = PRESETS[options.preset].model
    data = read_data(options.data, "test", model.size, options.profile)
    batch = to_device(take_pairs(data, evenly(len(data.pairs), SHOWN)), device)
    source, target = draw_pose(batch.source_keypoints, model), draw_pose(batch.target_keypoints, model)
    columns = [batch.source]
    for folder in folders.values():
        with torch.no_grad():
            columns.append(load_generator(folder, device).generator(batch.source, source, target))
    columns.append(batch.target)
    scale = max(1, round(192 / model.size[0]))
    rows = [[to_picture(column[row], scale) for column in columns] for row in range(len(batch.source))]
    headers = ["source", *(f"kappa = {kappa}" for kappa in folders), "truth"]
    sheet = draw_sheet(rows, headers, f"{options.preset}, held-out people")
    write_png(options.out / "kappa_examples.png", sheet)


if __name__ == "__main__":
    run_command(KappaOptions, ablate, prog="python -m examples.pose_morph.experiments.kappa", description=__doc__)
