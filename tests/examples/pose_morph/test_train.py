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
from examples.pose_morph.data.patn import read_patn
from examples.pose_morph.data.pose import heatmaps
from examples.pose_morph.errors import UserError
from examples.pose_morph.networks.discriminator import Discriminator
from examples.pose_morph.networks.generator import Generator, draw_pose
from examples.pose_morph.networks.settings import Full, Grid, Level, ModelSettings
from examples.pose_morph.presets import Preset, TrainingSettings
from examples.pose_morph.train import decay, evenly
from examples.pose_morph.training.checkpoint import load_checkpoint
from examples.pose_morph.training.options import Options
from examples.pose_morph.training.pair_stream import PairStream, take_pairs

TINY = Preset(
    ModelSettings(
        size=(32, 16),
        levels=(Level(4, 4, Grid(downsample=2, cells=(4, 2), kappa=4)), Level(6, 6, Full())),
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
    assert metrics["settings"]["attention"] == "GPA8_4_16"
    assert load_checkpoint(out / "checkpoint.pt")["step"] == 6


@pytest.mark.parametrize("attention", ["gpa", "no", "performer"])
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
    with pytest.raises(UserError, match="trained with attention GPA8_4_16, not NO"):
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
    (tmp_path / "tests_settings.py").write_text(
        "from examples.pose_morph.networks.settings import *\nfrom examples.pose_morph.presets import *\n"
        + f"TINY = {TINY!r}\n"
    )
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


def test_who_sees_what(people, tmp_path, monkeypatch):
    """Real for D is (M1, B1), fake (G, B2), on pairs only; scores are the averaged model's, on people of test/."""
    judged, drawn, scored = [], [], []
    forward, pairs, distorted, score = Discriminator.forward, PairStream.pairs, PairStream.distorted, train.score_pairs

    def judge(self, image, maps):
        judged.append((image.detach().clone(), maps.clone()))
        return forward(self, image, maps)

    def draw_distorted(self):
        drawn.append(("distorted", distorted(self)))
        return drawn[-1][1]

    def draw_pairs(self):
        drawn.append(("pairs", pairs(self)))
        return drawn[-1][1]

    def note(batches, morph, perceptual):
        batches = list(batches)
        scored.append((batches, [morph(batch) for batch in batches]))
        return score(iter(batches), morph, perceptual)

    monkeypatch.setattr(Discriminator, "forward", judge)
    monkeypatch.setattr(PairStream, "distorted", draw_distorted)
    monkeypatch.setattr(PairStream, "pairs", draw_pairs)
    monkeypatch.setattr(train, "score_pairs", note)
    run(people, tmp_path / "run", max_steps=2)

    assert [kind for kind, _ in drawn] == ["pairs", "pairs", "distorted"]  # a distorted batch is drawn from pairs
    batch = drawn[0][1]
    size = TINY.model.size
    assert all(len(image) == TINY.training.batch_size for image, _ in judged)
    assert len(judged) == 4  # G's loss, real, fake and R1 in the first step; none in the second, which is L_self's
    for_generator, real, fake, penalised = judged
    assert torch.equal(real[0], batch.source)
    assert torch.equal(real[1], heatmaps(batch.source_keypoints, size))
    assert torch.equal(fake[1], heatmaps(batch.target_keypoints, size))
    assert torch.equal(fake[0], for_generator[0])
    assert torch.equal(penalised[0], batch.source)

    held_out = read_patn(people, "test", size)
    batches, results = scored[0]
    expected = take_pairs(held_out, torch.arange(len(held_out.pairs)))
    assert torch.equal(torch.cat([batch.target for batch in batches]), expected.target)
    averaged = Generator(TINY.model)
    saved = load_checkpoint(tmp_path / "run" / "checkpoint.pt")
    weights = {name.removeprefix("module."): value for name, value in saved["ema"].items() if name != "n_averaged"}
    averaged.load_state_dict(weights)
    poses = [draw_pose(points, TINY.model) for points in (batches[0].source_keypoints, batches[0].target_keypoints)]
    with torch.no_grad():
        torch.testing.assert_close(results[0], averaged(batches[0].source, *poses), rtol=0, atol=1e-5)


def test_the_generator_learns_from_the_discriminator(people, tmp_path, monkeypatch):
    weights = []
    for gan_weight in (0.0, 10.0):
        changed = replace(TINY, training=replace(TINY.training, gan_weight=gan_weight))
        monkeypatch.setitem(presets.PRESETS, "demo", changed)
        out = tmp_path / str(gan_weight)
        run(people, out, max_steps=1, eval_pairs=1)
        weights.append(load_checkpoint(out / "checkpoint.pt")["generator"])
    assert any(not torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_a_run_that_ends_before_its_first_checkpoint_resumes(people, tmp_path, monkeypatch):
    def full_memory(*arguments, **settings):
        raise MemoryError

    with monkeypatch.context() as broken:
        broken.setattr(train, "reconstruction_loss", full_memory)
        with pytest.raises(MemoryError):
            run(people, tmp_path / "run", max_steps=1)
    assert run(people, tmp_path / "run", max_steps=1, eval_pairs=1, resume=True) == 0


def test_losses_that_are_not_finite_stop_the_run_and_keep_the_checkpoint(people, tmp_path, monkeypatch):
    loss = train.reconstruction_loss
    with monkeypatch.context() as broken:
        broken.setattr(train, "reconstruction_loss", lambda *a, **k: loss(*a, **k) * torch.nan)
        with pytest.raises(UserError, match="step 1: the losses are no longer finite"):
            run(people, tmp_path / "run", max_steps=2)
    saved = load_checkpoint(tmp_path / "run" / "checkpoint.pt")
    assert saved["step"] == 0
    assert all(value.isfinite().all() for value in saved["generator"].values())


def test_resuming_on_other_data_is_refused(people, tmp_path):
    run(people, tmp_path / "run", max_steps=1, eval_pairs=1)
    table = next(people.glob("fas*annotation-train.csv"))
    table.write_text(table.read_text().replace("20", "21"))
    with pytest.raises(UserError, match="data: the names, keypoints or pairs are not those"):
        run(people, tmp_path / "run", max_steps=2, resume=True)
