"""Several processes over gloo: the loss curve of one, and one signal or error that stops all."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from examples.pose_morph import presets, train
from examples.pose_morph.networks.settings import Full, Grid, Level, ModelSettings
from examples.pose_morph.presets import Preset, TrainingSettings
from examples.pose_morph.training.checkpoint import load_checkpoint
from examples.pose_morph.training.options import Options

TINY = Preset(
    ModelSettings(
        size=(32, 16),
        levels=(Level(4, 4, Grid(downsample=2, cells=(4, 2), kappa=4)), Level(6, 6, Full())),
        limb_coordinates=True,
        copy_pixels=True,
        sharpness=80.0,
    ),
    TrainingSettings(
        steps=6, batch_size=4, minibatch_group=2, r1_every=2, log_every=1, sample_every=50, checkpoint_every=1000
    ),
)

SCRIPT = """
import os
from pathlib import Path
from examples.pose_morph import presets, train
from examples.pose_morph.networks.settings import *
from examples.pose_morph.presets import *
presets.PRESETS["demo"] = {preset!r}
(Path(__file__).parent / ("process" + os.environ["RANK"])).write_text(str(os.getpid()))
train.main()
"""


def start(people: Path, out: Path, preset: Preset, *options: str) -> subprocess.Popen:
    """Start two processes under torchrun."""
    script = people.parent / "script.py"
    script.write_text(SCRIPT.format(preset=preset))
    paths = [str(Path(train.__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)),
            *("--data", str(people), "--out", str(out), "--device", "cpu", "--eval-pairs", "1", *options),
        ],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths)), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def lines_of(out: Path) -> list[dict[str, float]]:
    if not (out / "log.jsonl").exists():
        return []
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name != "seconds"} for line in lines]


@pytest.fixture
def alone(people, tmp_path, monkeypatch):
    """The run of one process."""
    monkeypatch.setitem(presets.PRESETS, "demo", TINY)
    train.train(Options(data=people, out=tmp_path / "alone", device="cpu", eval_pairs=1), Console(quiet=True))
    return tmp_path / "alone"


def test_two_processes_give_the_loss_curve_of_one(people, tmp_path, alone):
    out = tmp_path / "together"
    process = start(people, out, TINY, "--workers", "1")
    said = process.communicate(timeout=120)[0]
    assert process.returncode == 0, said
    assert "on 2 x cpu" in said
    assert "Warning" not in said
    assert said.count("held-out pairs scored") == 1  # process 1 keeps quiet
    one, two = lines_of(alone), lines_of(out)
    assert len(one) == len(two) == 6
    for ours, theirs in zip(one, two, strict=True):
        assert {"per", "self", "gan", "disc"} <= ours.keys()
        assert theirs == pytest.approx(ours, rel=1e-4)
    metrics = [json.loads((run / "metrics.json").read_text()) for run in (alone, out)]
    assert metrics[1]["model"] == pytest.approx(metrics[0]["model"], rel=1e-3)
    assert metrics[1]["processes"] == 2
    assert metrics[1]["settings"] == metrics[0]["settings"]  # either can go on with the other's checkpoint


def test_a_signal_to_one_process_stops_both(people, tmp_path):
    out = tmp_path / "run"
    process = start(people, out, replace(TINY, training=replace(TINY.training, steps=1_000_000)))
    deadline = time.monotonic() + 90
    while not lines_of(out):
        assert time.monotonic() < deadline
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.05)
    os.kill(int((tmp_path / "process1").read_text()), signal.SIGTERM)
    said = process.communicate(timeout=60)[0]
    step = load_checkpoint(out / "checkpoint.pt")["step"]
    assert step >= 1
    assert f"stopped at step {step}; to go on: torchrun --nproc-per-node 2 -m examples.pose_morph.train --data" in said
    assert lines_of(out)[-1]["step"] == step
    assert 'Traceback (most recent call last):\n  File "' + str(tmp_path) not in said


AGREE = """
from examples.pose_morph.errors import UserError
from examples.pose_morph.training.process_group import join_processes
processes = join_processes("cpu")
said = [processes.agree(None), processes.agree(15 if processes.rank == 1 else None), processes.agree(None)]
try:
    processes.agree(2, UserError("picture.jpg cannot be read") if processes.rank == 1 else None)
except UserError as error:
    print(said, error)
processes.leave()
"""


def test_a_signal_or_an_error_of_one_process_is_known_to_all(tmp_path):
    (tmp_path / "agree.py").write_text(AGREE)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {
        **os.environ, "PYTHONPATH": str(Path(train.__file__).parents[2]),
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2",
    }  # fmt: skip
    processes = [
        subprocess.Popen(
            [sys.executable, str(tmp_path / "agree.py")], stdout=subprocess.PIPE, text=True,
            env={**environment, "RANK": rank, "LOCAL_RANK": rank},
        )
        for rank in "01"
    ]  # fmt: skip
    for process in processes:
        assert process.communicate(timeout=60)[0] == "[None, 15, None] picture.jpg cannot be read\n"
