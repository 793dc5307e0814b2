"""The script: what a run leaves, exact resumption, signals, and refusals."""

import errno
import io
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
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from examples.pose_morph import presets, train
from examples.pose_morph.data.folder_store import FolderStore
from examples.pose_morph.data.pose_data import DataError, Phase, PoseData
from examples.pose_morph.data.profiles import Profile, read_data
from examples.pose_morph.errors import UserError
from examples.pose_morph.networks.settings import Full, Grid, Level, ModelSettings
from examples.pose_morph.networks.trained import load_generator
from examples.pose_morph.presets import Preset, TrainingSettings
from examples.pose_morph.training.board import Board
from examples.pose_morph.training.checkpoint import load_checkpoint
from examples.pose_morph.training.options import Options
from examples.pose_morph.training.terms import Terms

TINY = Preset(
    ModelSettings(
        size=(32, 16),
        levels=(Level(4, 4, Grid(downsample=2, cells=(4, 2), kappa=4)), Level(6, 6, Full())),
        limb_coordinates=True,
        copy_pixels=True,
        sharpness=80.0,
    ),
    TrainingSettings(steps=6, batch_size=2, r1_every=2, self_every=2, log_every=1, sample_every=2, checkpoint_every=3),
)

EQUATION_2 = replace(TINY, training=replace(TINY.training, self_every=1, betas=(0.0, 0.99)))
"""All terms in every step, as in the paper's presets."""

SELF_ALONE = Terms(per=False, self_=True, gan=False)


@pytest.fixture(autouse=True)
def _tiny(monkeypatch):
    monkeypatch.setitem(presets.PRESETS, "demo", TINY)


def run(people: Path, out: Path, **options) -> int:
    """Train in this process, quietly."""
    return train.train(Options(data=people, out=out, device="cpu", **options), Console(quiet=True))


def said_by(people: Path, out: Path, **options) -> str:
    """Train in this process; return what is said."""
    console = Console(file=io.StringIO(), width=200)
    train.train(Options(data=people, out=out, device="cpu", **options), console)
    return console.file.getvalue()


def steps_of(out: Path) -> list[int]:
    """The steps of the log's lines."""
    return [json.loads(line)["step"] for line in (out / "log.jsonl").read_text().splitlines()]


def lines_of(out: Path) -> list[dict[str, float]]:
    """The log's lines without the clock."""
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name != "seconds"} for line in lines]


def read_unpaired(root: Path, phase: Phase, size: tuple[int, int], profile: Profile = "auto") -> PoseData:
    """The people as single pictures."""
    data = read_data(root, phase, size, profile)
    numbers = torch.arange(len(data))
    return replace(data, pairs=torch.stack([numbers, numbers], dim=1), paired=False)


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
    assert "task" in json.loads((out / "metrics.json").read_text())
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["pairs"] == 4
    assert metrics["steps"] == 6
    for who in ("model", "copy_source"):
        assert metrics[who].keys() == metrics["protocols"].keys()
        assert "perceptual_efficientnet_lite0" in metrics[who]
    assert metrics["settings"]["attention"] == "GPA8_4_16"
    assert load_checkpoint(out / "checkpoint.pt")["step"] == 6


@pytest.mark.parametrize(("attention", "self_every", "precision"), [("gpa", 1, "float32"), ("no", 2, "bfloat16")])
def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(
    people, tmp_path, monkeypatch, attention, self_every, precision
):
    changed = replace(TINY, training=replace(TINY.training, self_every=self_every, log_every=3))
    monkeypatch.setitem(presets.PRESETS, "demo", changed)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    same = {"attention": attention, "precision": precision, "eval_pairs": 1}
    run(people, whole, max_steps=4, **same)
    run(people, parts, max_steps=2, **same)
    torch.rand(5)  # whatever happens in between
    run(people, parts, max_steps=4, resume=True, **same)
    assert_equal_states(load_checkpoint(whole / "checkpoint.pt"), load_checkpoint(parts / "checkpoint.pt"))
    assert lines_of(parts) == lines_of(whole)
    assert steps_of(parts) == [3, 4]
    scores = [json.loads((out / "metrics.json").read_text())["model"] for out in (whole, parts)]
    assert scores[0] == scores[1]
    run(people, parts, max_steps=6, resume=True, **same)
    assert steps_of(parts) == [3, 6]
    with pytest.raises(AssertionError):  # two more steps do change something
        assert_equal_states(load_checkpoint(whole / "checkpoint.pt"), load_checkpoint(parts / "checkpoint.pt"))


def test_bfloat16_trains_close_to_float32(people, tmp_path, monkeypatch):
    monkeypatch.setitem(presets.PRESETS, "demo", EQUATION_2)
    losses = []
    for precision in ("float32", "bfloat16"):
        run(people, tmp_path / precision, precision=precision, max_steps=4, eval_pairs=1)
        losses.append(lines_of(tmp_path / precision))
    for one, other in zip(*losses, strict=True):
        assert other == pytest.approx(one, rel=0.1, abs=0.02)
    assert losses[0] != losses[1]


def test_working_a_batch_off_in_parts_changes_nothing(people, tmp_path, monkeypatch):
    monkeypatch.setitem(presets.PRESETS, "demo", EQUATION_2)
    losses = []
    for accumulate in (1, 2):
        out = tmp_path / str(accumulate)
        run(people, out, accumulate=accumulate, batch_size=4, minibatch_group=2, max_steps=4, eval_pairs=1)
        losses.append(lines_of(out))
    for one, other in zip(*losses, strict=True):
        assert {"per", "self", "gan", "disc"} <= one.keys()
        assert other == pytest.approx(one, rel=1e-4)


def test_a_step_of_equation_two_is_the_sum_of_its_terms(people, tmp_path, monkeypatch):
    """Adam with betas (0, 0) and one step has no memory: sign-like, so compare what it saw through its moments."""
    monkeypatch.setitem(presets.PRESETS, "demo", EQUATION_2)
    gradients = {}
    for name, terms in (("all", Terms(True, True, True)), ("pair", Terms(True, False, True)), ("self", SELF_ALONE)):
        monkeypatch.setattr(train, "terms_of", lambda step, settings, paired, terms=terms: terms)
        run(people, tmp_path / name, max_steps=1, eval_pairs=1)
        moments = load_checkpoint(tmp_path / name / "checkpoint.pt")["optimizer_g"]["state"]
        gradients[name] = torch.cat([moment["exp_avg"].flatten() for moment in moments.values()])
    torch.testing.assert_close(gradients["all"], gradients["pair"] + gradients["self"], rtol=1e-3, atol=1e-6)
    assert gradients["self"].abs().max() > 0


def test_unpaired_data_trains_evaluates_and_resumes(people, tmp_path, monkeypatch):
    monkeypatch.setattr(train, "read_data", read_unpaired)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    paired = []
    save = train.save_samples
    monkeypatch.setattr(
        train, "save_samples", lambda *given, **named: (paired.append(named["paired"]), save(*given, **named))
    )
    said = said_by(people, whole, max_steps=3, licence="MIT")
    assert set(paired) == {False}
    assert "| licence of that data | MIT |" in (whole / "README.md").read_text()
    assert "6 pictures to learn, 4 held out" in said
    assert "4 held-out pictures scored" in said
    assert "pairs of people" not in (whole / "README.md").read_text()
    run(people, parts, max_steps=1, licence="MIT")
    run(people, parts, max_steps=3, licence="MIT", resume=True)
    assert_equal_states(load_checkpoint(whole / "checkpoint.pt"), load_checkpoint(parts / "checkpoint.pt"))
    for line in lines_of(whole):
        assert {"self", "gan", "disc"} <= line.keys()
        assert "per" not in line
    metrics = json.loads((whole / "metrics.json").read_text())
    assert metrics["task"].startswith("pictures and their tau of strength 0.15, seeded")
    assert metrics["pairs"] == 4  # the pictures of test/
    assert metrics == {**json.loads((parts / "metrics.json").read_text()), "seconds": metrics["seconds"]}


def test_lines_after_the_checkpoint_are_dropped_on_resuming(people, tmp_path):
    out = tmp_path / "run"
    run(people, out, max_steps=3, eval_pairs=1)
    with (out / "log.jsonl").open("a") as file:
        file.write('{"step": 4}\n{"step": 5}\n')
    run(people, out, max_steps=4, eval_pairs=1, resume=True)
    assert steps_of(out) == [1, 2, 3, 4]


def test_a_run_that_ends_early_says_how_to_go_on_and_one_that_is_done_that_it_is(people, tmp_path, monkeypatch):
    out = tmp_path / "run"
    monkeypatch.setattr("sys.argv", ["train.py", "--max-steps", "2"])
    said = said_by(people, out, max_steps=2, eval_pairs=1)
    assert "the whole run has 6 steps; to go on: python -m examples.pose_morph.train --resume\n" in said
    said = said_by(people, out, max_steps=1, eval_pairs=1, resume=True)
    assert "2 of 6 steps are done, and --max-steps 1 asks for no more: there is nothing to train, only to score" in said
    assert "to go on" not in said_by(people, out, eval_pairs=1, resume=True)
    assert "6 of 6 steps are done: there is nothing to train" in said_by(people, out, eval_pairs=1, resume=True)


def test_scoring_counts_pairs(people, tmp_path, monkeypatch):
    seen = []
    make = train.training_bar

    def bar(console):
        made = make(console)
        update = made.update
        made.update = lambda task, **changes: (
            update(task, **changes),
            seen.append((made.tasks[0].description, made.tasks[0].completed, made.tasks[0].total)),
        )
        return made

    monkeypatch.setattr(train, "training_bar", bar)
    run(people, tmp_path / "run", max_steps=1)
    assert [entry for entry in seen if entry[0].startswith("scoring")] == [
        ("scoring", 0, 4), ("scoring", 2, 4), ("scoring", 4, 4),
        ("scoring copies", 0, 4), ("scoring copies", 2, 4), ("scoring copies", 4, 4),
    ]  # fmt: skip


def test_the_attention_is_listed_after_the_refusals_and_for_what_is_worked_off_at_once(people, tmp_path):
    console = Console(file=io.StringIO(), width=200)
    with pytest.raises(UserError):
        train.train(Options(data=tmp_path, out=tmp_path / "run", device="cpu"), console)
    assert "Attention" not in console.file.getvalue()
    said = said_by(people, tmp_path / "run", max_steps=1, eval_pairs=1, accumulate=2, minibatch_group=1)
    assert "Attention forward and backward, float32, batch size 1" in said
    assert "2 per step, 1 at once" in said


def test_a_resumed_run_keeps_its_minibatch_groups(people, tmp_path, monkeypatch):
    monkeypatch.setitem(presets.PRESETS, "demo", replace(TINY, training=replace(TINY.training, minibatch_group=None)))
    out = tmp_path / "run"
    run(people, out, batch_size=4, accumulate=2, max_steps=1, eval_pairs=1)  # groups of two
    run(people, out, batch_size=4, max_steps=2, eval_pairs=1, resume=True)
    assert steps_of(out) == [1, 2]
    with pytest.raises(UserError, match=r"minibatch_group = 2, not 1 \(it must divide what a process sees at once\)"):
        run(people, out, batch_size=4, accumulate=4, max_steps=3, eval_pairs=1, resume=True)
    with pytest.raises(UserError, match="minibatch_group = 2, not 4"):
        run(people, out, batch_size=4, minibatch_group=4, max_steps=3, eval_pairs=1, resume=True)


def test_refusals_say_what_to_do(people, tmp_path):
    out = tmp_path / "run"
    with pytest.raises(UserError, match="no checkpoint"):
        run(people, out, resume=True)
    run(people, out, max_steps=1, eval_pairs=1)
    with pytest.raises(UserError, match="already holds a run; add --resume"):
        run(people, out)
    with pytest.raises(UserError, match="trained with attention = GPA8_4_16, not NO"):
        run(people, out, resume=True, attention="no")
    with pytest.raises(UserError, match="trained with batch_size = 2, not 3"):
        run(people, out, resume=True, batch_size=3)
    with pytest.raises(UserError, match="trained with seed = 0, not 1"):
        run(people, out, resume=True, seed=1)
    with pytest.raises(UserError, match="trained with precision = float32, not bfloat16"):
        run(people, out, resume=True, precision="bfloat16")
    with pytest.raises(UserError, match="trained with preset = demo, not deepfashion256; give the options"):
        run(people, out, resume=True, preset="deepfashion256")
    with pytest.raises(UserError, match="--max-steps: expected at least 1, got 0"):
        run(people, tmp_path / "other", max_steps=0)


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


def test_resuming_from_an_older_version_is_refused(people, tmp_path):
    run(people, tmp_path / "run", max_steps=1, eval_pairs=1)
    path = tmp_path / "run" / "checkpoint.pt"
    state = load_checkpoint(path)
    del state["format"]
    torch.save(state, path)
    with pytest.raises(UserError, match=r"written by an older version of this program.*train anew"):
        run(people, tmp_path / "run", max_steps=2, resume=True)


def test_a_checkpoint_alone_says_what_the_model_was_trained_on(people, tmp_path):
    run(people, tmp_path / "run", max_steps=1, eval_pairs=1, licence="MIT")
    (tmp_path / "run" / "model.safetensors").unlink()
    info = load_generator(tmp_path / "run", torch.device("cpu")).info
    assert (info.data, info.licence) == ("6 pairs of people", "MIT")


def test_resuming_on_fewer_pairs_is_refused(people, tmp_path):
    run(people, tmp_path / "run", max_steps=1, eval_pairs=1)
    table = next(people.glob("fas*pairs-train.csv"))
    table.write_text("\n".join(table.read_text().splitlines()[:-1]))
    with pytest.raises(UserError, match="expected the 6 pairs that the run was started with, got 5; give the --data"):
        run(people, tmp_path / "run", max_steps=2, resume=True)


def test_a_run_goes_on_without_pictures_that_were_left_out_only_if_that_is_said(people, tmp_path):
    out = tmp_path / "run"
    run(people, out, max_steps=2, eval_pairs=1)
    weights = load_checkpoint(out / "checkpoint.pt")["generator"]
    (people / "left_out.txt").write_text("train0_0.jpg\n")
    with pytest.raises(
        UserError, match=r"expected the 6 pairs .*, got 4 \(.*left_out.txt has changed since\).*--changed-data"
    ):
        run(people, out, max_steps=4, eval_pairs=1, resume=True)
    said = said_by(people, out, max_steps=2, eval_pairs=1, resume=True, changed_data=True)
    assert "(6 pairs then, 4 now): going on with them, and the result is not that of an uninterrupted run" in said
    assert_equal_states(load_checkpoint(out / "checkpoint.pt")["generator"], weights)
    run(people, out, max_steps=4, eval_pairs=1, resume=True)  # from now on these are its data
    assert steps_of(out) == [1, 2, 3, 4]


def test_a_picture_that_breaks_during_training_saves_a_checkpoint_and_names_the_file(people, tmp_path, monkeypatch):
    decode, reads = FolderStore.decode, []

    def break_at_the_thirtieth(self, name):
        reads.append(name)
        if len(reads) == 30:
            raise DataError(f"data: {self.folder / name} cannot be read as a picture")
        return decode(self, name)

    with monkeypatch.context() as broken:
        broken.setattr(FolderStore, "decode", break_at_the_thirtieth)
        with pytest.raises(
            UserError, match=r"train/train\d_\d.jpg cannot be read.*put right, --resume goes on .*--changed-data"
        ):
            run(people, tmp_path / "run", eval_pairs=1)
    step = load_checkpoint(tmp_path / "run" / "checkpoint.pt")["step"]
    assert 3 < step < 6  # not the one that is due after three steps
    run(people, tmp_path / "run", eval_pairs=1, resume=True)
    run(people, tmp_path / "whole", eval_pairs=1)
    states = [load_checkpoint(tmp_path / name / "checkpoint.pt") for name in ("run", "whole")]
    assert_equal_states(*states)


def test_a_full_disk_during_training_is_a_message_and_keeps_the_last_checkpoint(people, tmp_path, monkeypatch):
    def full_disk(state, file):
        file.write(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    out = tmp_path / "run"
    run(people, out, max_steps=2, eval_pairs=1)
    with monkeypatch.context() as broken:
        broken.setattr(torch, "save", full_disk)
        with pytest.raises(UserError, match=r"checkpoint.pt cannot be written \(No space left on device\).*Free some"):
            run(people, out, max_steps=4, eval_pairs=1, resume=True)
    assert not list(out.glob("*.partial"))
    assert load_checkpoint(out / "checkpoint.pt")["step"] == 2
    run(people, out, max_steps=4, eval_pairs=1, resume=True)
    assert steps_of(out) == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried"),
            "memory is full: --accumulate N works every batch off in N",
        ),
        (
            OSError(errno.ENOSPC, "No space left on device"),
            "the run's folder: No space left on device; free some space",
        ),
    ],
)
def test_full_memory_and_a_full_disk_say_what_to_do(people, tmp_path, monkeypatch, error, message):
    def fail(*arguments, **weights):
        raise error

    monkeypatch.setattr(train, "reconstruction_loss", fail)
    with pytest.raises(UserError, match=message):
        train.train_or_say_why_not(Options(data=people, out=tmp_path / "run", device="cpu"), Console(quiet=True))


def test_tensorboard_gets_losses_rates_speed_and_samples_and_hides_what_was_interrupted(people, tmp_path):
    out = tmp_path / "run"
    run(people, out, max_steps=4, eval_pairs=1)
    board = Board(out, 4)  # a run that went on to step 6, but was killed before its checkpoint
    for step in (5, 6):
        board.scalars(step, 9.0, {"per": 99.0}, {})
    board.close()
    run(people, out, max_steps=6, eval_pairs=1, resume=True)
    events = EventAccumulator(str(out / "tensorboard"), size_guidance={"images": 0}).Reload()
    tags = events.Tags()
    assert {"loss/per", "loss/self", "loss/gan", "loss/disc", "loss/r1"} <= set(tags["scalars"])
    assert {"learning rate/generator", "learning rate/discriminator", "steps per second"} <= set(tags["scalars"])
    logged = {line["step"]: line["per"] for line in lines_of(out) if "per" in line}
    shown = {event.step: event.value for event in events.Scalars("loss/per")}
    assert shown == pytest.approx(logged)
    assert [event.step for event in events.Images("samples")] == [2, 4, 6]
