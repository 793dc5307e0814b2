"""The comparison: its runs, its report from made-up results, and results that do not count."""

import json
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

from examples.pose_morph.errors import UserError
from examples.pose_morph.experiments import distortion
from examples.pose_morph.experiments.distortion import CONTESTANTS, TRIALS, DistortionOptions, label, run_of
from examples.pose_morph.experiments.distortion_run import RunOptions, data_digest, model_settings
from examples.pose_morph.experiments.jobs import Job
from examples.pose_morph.presets import PRESETS
from examples.pose_morph.training.options import PEOPLE

LOSSES = {"GPA160_4_16": 0.1, "NO": 0.3, "NO, 5.25x channels": 0.25, "NYF128": 0.4, "PER128": 0.2}


@cache
def people(phase: str) -> dict[str, dict[str, int]]:
    """The digest of the people that every run here is of."""
    return data_digest(RunOptions(out=Path(), data=PEOPLE, preset="tiny", phase=phase))


def write_result(run: RunOptions, loss: float) -> None:
    """Write what a run leaves."""
    run.out.mkdir(parents=True)
    options = {name: str(value) if isinstance(value, Path) else value for name, value in asdict(run).items()}
    scores = {"loss": loss, "perceptual": loss / 2, "l1": loss / 4, "ssim_gaussian": 1 - loss}
    result = {"options": options, "scores": scores, "bytes": {"attention": 2_500_000, "step": 9_000_000}}
    result["data"] = people(run.phase)
    text = json.dumps({**result, "steps": 7, "parameters": 1_230_000, "torch": torch.__version__})
    (run.out / "result.json").write_text(text)
    grey = np.full((2, 3, 64, 40), 100, np.uint8)
    np.savez(
        run.out / "shown.npz", source=grey, truth=grey, result=grey + np.uint8(20 if "GPA" in run.attention else 40)
    )


@pytest.fixture
def options(tmp_path) -> DistortionOptions:
    """A tiny comparison with all results made up; the second seed is worse by 0.02."""
    given = DistortionOptions(out=tmp_path / "out", preset="tiny", seeds=2, seconds=1.0, test_cases=2)
    for seed in range(2):
        for contestant in CONTESTANTS:
            run = run_of(given, contestant, seed)
            write_result(run, LOSSES[label(run)] + 0.02 * seed)
    return given


def test_the_report_sorts_by_loss_and_shows_memory(options):
    console = Console(record=True, width=80)
    assert distortion.distortion(options, console) == 0
    said = console.export_text()
    assert "10 of 10 runs have a result already" in said
    assert "NO, 5.25x channels  0.2600 ± 0.0141" in said
    assert "…" not in said
    lines = (options.out / "distortion.md").read_text().splitlines()
    assert lines[0].split(" | ")[:3] == ["| attention", "held-out loss", "perceptual"]
    names = [line.split(" | ")[0].removeprefix("| ") for line in lines[2:]]
    assert names == ["GPA160_4_16", "PER128", "NO, 5.25x channels", "NO", "NYF128"]
    assert lines[2] == "| GPA160_4_16 | 0.1100 ± 0.0141 | 0.0550 | 0.0275 | 0.8900 | 2.5 | 9.0 | 7 | 1.23 M |"
    report = json.loads((options.out / "distortion.json").read_text())
    assert [row["name"] for row in report["rows"]] == names
    assert {name: len(runs) for name, runs in report["runs"].items()} == dict.fromkeys(LOSSES, 2)
    with Image.open(options.out / "distortion.png") as plot:
        assert plot.format == "PNG"
        assert plot.width > plot.height > 300
        assert len(plot.convert("RGB").getcolors(2**24)) > 100


def test_the_examples_show_the_best_first_and_its_error_above_it(options):
    distortion.distortion(options, Console(quiet=True))
    with Image.open(options.out / "distortion_examples.png") as sheet:
        assert sheet.size == (7 * (80 + 6) + 6, 2 * 24 + 4 * (128 + 6))
        middles = [
            sheet.getpixel((6 + column * 86 + 40, 48 + row * 134 + 64))[0] for row in (0, 1) for column in (0, 1, 2, 3)
        ]
    assert middles == [255, 255, 60, 120, 100, 100, 120, 140]


def test_a_plot_does_not_change_the_backend_of_the_program(options, monkeypatch):
    import matplotlib

    monkeypatch.setattr(matplotlib, "use", lambda *arguments: pytest.fail("the backend was changed"))
    distortion.distortion(options, Console(quiet=True))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seconds": 2.0}, r"GPA160_4_16-1-0 was run with seconds = 1.0, not 2.0; choose another --out"),
        ({"test_cases": 3}, r"was run with test_cases = 2, not 3"),
    ],
)
def test_a_result_of_another_budget_is_refused_before_anything_runs(options, monkeypatch, changes, message):
    monkeypatch.setattr(distortion, "run_jobs", lambda *arguments, **settings: pytest.fail("something was run"))
    with pytest.raises(UserError, match=message):
        distortion.distortion(replace(options, **changes), Console(quiet=True))


@pytest.mark.parametrize(("name", "value"), [("learning_rate", 0.1), ("sharpness", 3.0)])
def test_a_result_of_other_settings_is_refused(options, monkeypatch, name, value):
    changed = (replace(CONTESTANTS[0], **{name: value}), *CONTESTANTS[1:])
    monkeypatch.setattr(distortion, "CONTESTANTS", changed)
    with pytest.raises(UserError, match=rf"was run with {name} = .*, not {value}"):
        distortion.distortion(options, Console(quiet=True))


def test_a_folder_that_was_moved_still_counts(options, tmp_path):
    options.out.rename(tmp_path / "moved")
    distortion.distortion(replace(options, out=tmp_path / "moved"), Console(quiet=True))
    assert (tmp_path / "moved" / "distortion.md").is_file()


@pytest.mark.parametrize("phase", ["train", "test"])
def test_a_result_on_other_data_is_refused(options, phase):
    path = options.out / "NYF128-1-1" / "result.json"
    result = json.loads(path.read_text())
    result["data"][phase]["digest"] += 1
    path.write_text(json.dumps(result))
    with pytest.raises(UserError, match=r"NYF128-1-1 was run on other data than .*people; choose another --out"):
        distortion.distortion(options, Console(quiet=True))


def test_a_broken_result_is_named(options):
    broken = options.out / "PER128-1-1" / "result.json"
    broken.write_text("{")
    with pytest.raises(UserError, match=r"PER128-1-1/result.json is not the result of a run; remove it"):
        distortion.distortion(options, Console(quiet=True))


def test_every_kind_gets_as_many_trials_on_pictures_apart_from_the_test(options, monkeypatch):
    assert len({len(trials) for trials in TRIALS.values()}) == 1
    given = replace(options, tune=True, device="auto" if not torch.cuda.is_available() else "cpu")
    started: list[Job] = []

    def run_jobs(jobs, *, parallel, console):
        started.extend(jobs)
        for number, job in enumerate(jobs):
            arguments = dict(zip(job.arguments[::2], job.arguments[1::2], strict=True))
            assert arguments["--phase"] == "validation"
            kind, rate, sharpness = (arguments[f"--{name}"] for name in ("attention", "learning-rate", "sharpness"))
            contestant = distortion.Contestant(kind, float(sharpness), float(rate))
            write_result(run_of(given, contestant, 0), 1.0 - number / 100)

    monkeypatch.setattr(distortion, "run_jobs", run_jobs)
    console = Console(record=True, width=100)
    distortion.distortion(given, console)
    losses = json.loads((options.out / "tuning.json").read_text())["losses"]
    assert len(losses) == len(started) == len({job.folder for job in started}) == sum(map(len, TRIALS.values()))
    printed = [line.split() for line in console.export_text().splitlines()]
    assert [line[0] for line in printed[::9]] == ["GPA160_4_16", "NYF128", "PER128", "no"]
    assert printed[0][-1] < printed[8][-1]
    assert not (options.out / "distortion.md").exists()


def test_a_run_is_started_with_its_own_options(options):
    run = run_of(options, CONTESTANTS[-1], 1)
    assert run.out == options.out / "no-5.25-1"
    assert (run.attention, run.widen, run.seed, run.phase) == ("no", 5.25, 1, "test")
    assert run_of(replace(options, preset="demo"), CONTESTANTS[0], 0).attention == "GPA640_4_32"


def test_every_contestant_fits_the_shipped_sizes(options):
    for preset in ("demo", "tiny"):
        for contestant in CONTESTANTS:
            settings = model_settings(run_of(replace(options, preset=preset), contestant, 0))
            assert settings.sizes == PRESETS[preset].model.sizes


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"jobs": 0}, "--jobs: expected at least 1, got 0"),
        ({"seeds": 0}, "--seeds: expected at least 1, got 0"),
        ({"test_cases": 0}, "--test-cases: expected at least 1, got 0"),
        ({"seconds": 0.0}, "--seconds: expected more than 0, got 0"),
        ({"seconds": float("nan")}, "--seconds: expected more than 0, got nan"),
        ({"device": "gpu"}, "--device: expected auto, cpu, cuda, cuda:N or mps, got gpu"),
    ],
)
def test_bad_options_are_named(options, changes, message):
    with pytest.raises(UserError, match=message):
        distortion.distortion(replace(options, **changes), Console(quiet=True))


def test_runs_do_not_share_a_gpu(options, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(UserError, match=r"--jobs: .* expected 1 with --device cuda, got 2"):
        distortion.distortion(replace(options, device="cuda"), Console(quiet=True))
