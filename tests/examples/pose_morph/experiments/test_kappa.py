"""The ablation of kappa: names, a whole tiny one, and what it refuses."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image
from rich.console import Console

from examples.pose_morph.command_line import run_command
from examples.pose_morph.errors import UserError
from examples.pose_morph.experiments import kappa
from examples.pose_morph.experiments.distortion import DistortionOptions, distortion
from examples.pose_morph.experiments.kappa import KappaOptions, ablate, job, named, run_of


@pytest.mark.parametrize(
    ("preset", "expected"),
    [("demo", "GPA640_7_32"), ("deepfashion256", "GPA1024_7_64"), ("highres512", "GPA2048_7_64")],
)
def test_names_are_the_papers(preset, expected):
    assert named(KappaOptions(preset=preset), 7) == expected


def test_a_tiny_ablation_is_trained_reported_and_not_trained_again(people, tmp_path, monkeypatch):
    options = KappaOptions(
        out=tmp_path / "kappa", data=people, preset="tiny", kappas=(1, 2), steps=2, jobs=2, device="cpu"
    )
    console = Console(record=True, width=120)
    assert ablate(options, console) == 0
    report = json.loads((options.out / "kappa.json").read_text())
    assert [row["kappa"] for row in report["rows"]] == [1, 2]
    memory = [row["attention_bytes"] for row in report["rows"]]
    assert min(memory) > 0
    for number, row in enumerate(report["rows"], start=1):
        metrics = json.loads((options.out / f"GPA160_{number}_16-0" / "metrics.json").read_text())
        assert metrics["steps"] == 2
        assert row["l1_person"] == metrics["model"]["l1_person"]
    lines = (options.out / "kappa.md").read_text().splitlines()
    assert [line.split(" | ")[0] for line in lines[2:]] == ["| 1", "| 2"]
    with Image.open(options.out / "kappa.png") as plot, Image.open(options.out / "kappa_examples.png") as sheet:
        assert plot.width > plot.height > 200
        assert sheet.size == (4 * (120 + 6) + 6, 2 * 24 + 4 * (192 + 6))  # four pairs; source, two kappas, truth

    again = Console(record=True, width=120)
    before = (options.out / "kappa.json").read_text()
    ablate(options, again)
    assert "2 of 2 runs have a result already" in again.export_text()
    assert (options.out / "kappa.json").read_text() == before

    monkeypatch.setattr(kappa, "run_jobs", lambda *arguments, **settings: pytest.fail("something was run"))
    with pytest.raises(UserError, match=r"GPA160_1_16-0/metrics.json is of a run with other settings"):
        ablate(replace(options, steps=3), Console(quiet=True))
    for phase in ("train", "test"):
        table = people / f"fasion-resize-pairs-{phase}.csv"
        before = table.read_text()
        table.write_text("\n".join(before.splitlines()[:-1]))
        with pytest.raises(UserError, match=r"GPA160_1_16-0/metrics.json is not of a run on the data that are in"):
            ablate(options, Console(quiet=True))
        table.write_text(before)


def test_an_interrupted_run_goes_on(tmp_path):
    run = run_of(KappaOptions(out=tmp_path, preset="tiny", steps=9), 1, 0)
    assert "--resume" not in job(run).arguments
    run.out.mkdir()
    (run.out / "checkpoint.pt").touch()
    (run.out / "log.jsonl").write_text('{"step": 3}\n')
    assert "--resume" in job(run).arguments
    assert job(run).fraction() == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kappas": ()}, "--kappas: expected different numbers, got none"),
        ({"kappas": (2, 2)}, "--kappas: expected different numbers, got 2 2"),
        ({"kappas": (1, 0)}, "attention GPA160_0_16: expected kappa from 1 to 160, got 0"),
        ({"seeds": 0}, "--seeds: expected at least 1, got 0"),
        ({"steps": 0}, "--steps: expected at least 1, got 0"),
        ({"jobs": 0}, "--jobs: expected at least 1, got 0"),
        ({"data": Path("nowhere")}, "data: there is no folder nowhere"),
        ({"device": "gpu"}, "--device: expected auto, cpu, cuda, cuda:N or mps, got gpu"),
    ],
)
def test_bad_options_are_named_and_nothing_written(tmp_path, changes, message):
    with pytest.raises(UserError, match=message):
        ablate(replace(KappaOptions(out=tmp_path / "out", preset="tiny"), **changes), Console(quiet=True))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("options", "action"), [(KappaOptions, ablate), (DistortionOptions, distortion)])
def test_a_run_that_fails_is_a_message_without_a_traceback(people, tmp_path, monkeypatch, capsys, options, action):
    for path in (people / "train").iterdir():
        path.write_bytes(path.read_bytes()[:-200])
    arguments = ["--preset", "tiny", "--seeds", "1", "--jobs", "1", "--device", "cpu"]
    arguments += ["--data", str(people), "--out", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", ["experiment", *arguments])
    with pytest.raises(SystemExit) as ended:
        run_command(options, action, prog="experiment", description=None)
    assert ended.value.code == 2
    said = capsys.readouterr().out
    assert "GPA160_" in said
    assert "ended with code 2:" in said
    assert ".jpg cannot be read" in said
    assert "Traceback" not in said
