"""The script: what a run leaves, exact resumption, signals, and refusals."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console

from examples.pose_morph import presets, train
from examples.pose_morph.checkpoint import load_checkpoint
from examples.pose_morph.errors import UserError
from examples.pose_morph.options import Options
from examples.pose_morph.presets import Level, ModelSettings, Preset, TrainingSettings
from examples.pose_morph.train import decay, evenly

TINY = Preset(
    ModelSettings(
        size=(32, 16),
        levels=(Level(4, 4, downsample=2, cells=(4, 2), kappa=4), Level(6, 6)),
        limb_coordinates=True,
        copy_pixels=True,
        sharpness=80.0,
    ),
    TrainingSettings(steps=6, batch_size=2, r1_every=2, log_every=1, sample_every=2, checkpoint_every=3),
)


@pytest.fixture(autouse=True)
def _tiny(monkeypatch):
    monkeypatch.setitem(presets.PRESETS, "demo", TINY)


def run(people: Path, out: Path, **options) -> int:
    """Train in this process, quietly."""
    return train.train(Options(data=people, out=out, device="cpu", **options), Console(quiet=True))


def steps_of(out: Path) -> list[int]:
    """The steps of the log's lines."""
    return [json.loads(line)["step"] for line in (out / "log.jsonl").read_text().splitlines()]


def assert_equal_states(one: object, other: object) -> None:
    """Compare nested states bit for bit, all but the clock."""
    assert type(one) is type(other)
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other)
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            if key != "seconds":
                assert_equal_states(one[key], other[key])
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(other)
        for a, b in zip(one, other, strict=True):
            assert_equal_states(a, b)
    else:
        assert one == other


def test_a_run_leaves_its_log_samples_checkpoint_and_metrics(people, tmp_path):
    out = tmp_path / "run"
    assert run(people, out) == 0
    assert steps_of(out) == [1, 2, 3, 4, 5, 6]
    assert sorted(file.name for file in (out / "samples").iterdir()) == [
        "step_000002.png", "step_000004.png", "step_000006.png",
    ]  # fmt: skip
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert {"per", "gan", "disc", "r1"} <= lines[0].keys()  # a pair
    assert "self" in lines[1]
    assert "gan" not in lines[1]
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["pairs"] == 4
    assert metrics["steps"] == 6
    for who in ("model", "copy_source"):
        assert metrics[who].keys() == metrics["protocols"].keys()
    assert metrics["settings"]["model"]["attention"] == "gpa"
    assert load_checkpoint(out / "checkpoint.pt")["step"] == 6


@pytest.mark.parametrize("attention", ["gpa", "no"])
def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(people, tmp_path, attention):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    run(people, whole, attention=attention, max_steps=4, eval_pairs=1)
    run(people, parts, attention=attention, max_steps=2, eval_pairs=1)
    torch.rand(5)  # whatever happens in between
    run(people, parts, attention=attention, max_steps=4, eval_pairs=1, resume=True)
    assert_equal_states(load_checkpoint(whole / "checkpoint.pt"), load_checkpoint(parts / "checkpoint.pt"))
    assert steps_of(parts) == [1, 2, 3, 4]
    scores = [json.loads((out / "metrics.json").read_text())["model"] for out in (whole, parts)]
    assert scores[0] == scores[1]
    run(people, parts, attention=attention, max_steps=6, eval_pairs=1, resume=True)
    with pytest.raises(AssertionError):  # two more steps do change something
        assert_equal_states(load_checkpoint(whole / "checkpoint.pt"), load_checkpoint(parts / "checkpoint.pt"))


def test_lines_after_the_checkpoint_are_dropped_on_resuming(people, tmp_path):
    out = tmp_path / "run"
    run(people, out, max_steps=3, eval_pairs=1)
    with (out / "log.jsonl").open("a") as file:
        file.write('{"step": 4}\n{"step": 5}\n')
    run(people, out, max_steps=4, eval_pairs=1, resume=True)
    assert steps_of(out) == [1, 2, 3, 4]


def test_refusals_say_what_to_do(people, tmp_path):
    out = tmp_path / "run"
    with pytest.raises(UserError, match="no checkpoint"):
        run(people, out, resume=True)
    run(people, out, max_steps=1, eval_pairs=1)
    with pytest.raises(UserError, match="already holds a run; add --resume"):
        run(people, out)
    with pytest.raises(UserError, match="trained with attention = gpa, not no"):
        run(people, out, resume=True, attention="no")
    with pytest.raises(UserError, match="trained with batch_size = 2, not 3"):
        run(people, out, resume=True, batch_size=3)
    with pytest.raises(UserError, match="seed 0, not 1"):
        run(people, out, resume=True, seed=1)
    with pytest.raises(UserError, match="--max-steps: expected at least 1, got 0"):
        run(people, tmp_path / "other", max_steps=0)
    if not torch.cuda.is_available():
        with pytest.raises(UserError, match="PyTorch sees no cuda here"):
            train.choose_device("cuda")


def test_a_missing_folder_is_a_message_and_leaves_nothing(people, tmp_path):
    command = [sys.executable, "-m", "examples.pose_morph.train", "--data", "nowhere", "--out", str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert "data: there is no folder nowhere" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
    assert not (tmp_path / "run").exists()


ENDLESS = """
import sys
from dataclasses import replace
from examples.pose_morph import presets, train
from tests_settings import TINY
presets.PRESETS["demo"] = replace(TINY, training=replace(TINY.training, steps=100_000, sample_every=100_000))
train.main()
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_a_checkpoint_that_resumes(people, tmp_path, monkeypatch, number):
    out = tmp_path / "run"
    (tmp_path / "endless.py").write_text(ENDLESS)
    (tmp_path / "tests_settings.py").write_text("from examples.pose_morph.presets import *\n" + f"TINY = {TINY!r}\n")
    command = [sys.executable, str(tmp_path / "endless.py"), "--data", str(people), "--out", str(out)]
    paths = os.pathsep.join([str(Path(train.__file__).parents[2]), str(tmp_path)])
    process = subprocess.Popen(
        [*command, "--device", "cpu"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env={**os.environ, "PYTHONPATH": paths},
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while not (out / "log.jsonl").exists() or not steps_of(out):
        assert time.monotonic() < deadline
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.05)
    process.send_signal(number)
    said = process.communicate(timeout=60)[0]
    assert process.returncode == 128 + number
    step = load_checkpoint(out / "checkpoint.pt")["step"]
    assert step >= 1
    assert f"stopped at step {step}; to go on: python -m examples.pose_morph.train --data" in said
    assert "--resume" in said
    assert "Traceback" not in said

    monkeypatch.setitem(
        presets.PRESETS, "demo", replace(TINY, training=replace(TINY.training, steps=100_000, sample_every=100_000))
    )
    assert run(people, out, max_steps=step + 2, eval_pairs=1, resume=True) == 0
    assert steps_of(out) == list(range(1, step + 3))


def test_learning_rates_fall_to_zero_over_the_last_third():
    assert [decay(step, 300) for step in (0, 200, 250, 300)] == pytest.approx([1, 1, 0.5, 0])


def test_even_choice_takes_both_ends_and_never_more_than_there_is():
    assert evenly(10, 4).tolist() == [0, 3, 6, 9]
    assert evenly(3, 100).tolist() == [0, 1, 2]
