"""Kill -9 again and again, at any moment: no checkpoint is lost, and the run ends as if nothing had happened."""

import json
import os
import subprocess
import sys
from pathlib import Path

import torch

from examples.pose_morph import train
from examples.pose_morph.training.checkpoint import load_checkpoint

NURSERY = """
# Imports once, then forks a training run for every kill, so that a life takes a fraction of a second.
import json, os, random, signal, sys, time, traceback
from pathlib import Path
import torch._dynamo  # what making an optimiser would import in every life
from rich.console import Console
from examples.pose_morph import presets, train
from examples.pose_morph.networks.settings import Full, Grid, Level, ModelSettings
from examples.pose_morph.presets import Preset, TrainingSettings
from examples.pose_morph.training.checkpoint import load_checkpoint
from examples.pose_morph.training.options import Options

people, out, kills = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
presets.PRESETS["demo"] = Preset(
    ModelSettings(size=(32, 20), levels=(Level(3, 3, Grid(downsample=2, cells=(2, 2), kappa=2)), Level(4, 4, Full()))),
    TrainingSettings(steps=4 * kills, batch_size=2, r1_every=2, log_every=3, sample_every=60, checkpoint_every=2),
)
train.make_extractor = lambda *given: lambda image: [image]  # loading the real one would take most of a life
chance = random.Random(0)
hears, speaks = os.pipe()
os.set_blocking(hears, False)
set_learning_rates = train.set_learning_rates
train.set_learning_rates = lambda *given: (os.write(speaks, b"."), set_learning_rates(*given))[1]  # a step begins


def live(folder, resume):
    # Fork a run; the child never returns.
    child = os.fork()
    if child == 0:
        code = 1
        try:
            options = Options(data=people, out=folder, device="cpu", eval_pairs=1, resume=resume)
            code = train.train(options, Console(quiet=True))
        except BaseException:
            traceback.print_exc()
        os._exit(code)
    return child


def await_steps(count):
    while count > 0:
        try:
            count -= len(os.read(hears, 1000))
        except BlockingIOError:
            time.sleep(0.001)


def step_of(folder):
    path = folder / "checkpoint.pt"
    return load_checkpoint(path)["step"] if path.exists() else -1


began = time.monotonic()
whole = live(out / "whole", False)
await_steps(1)
start_up = time.monotonic() - began
assert os.waitpid(whole, 0)[1] == 0
steps = [-1]
for kill in range(kills):
    child = live(out / "killed", steps[-1] >= 0)
    if kill % 5 == 0:  # somewhere before the loop
        time.sleep(chance.uniform(0.0, start_up))
    else:
        await_steps(chance.randint(1, 4))
        time.sleep(chance.uniform(0.0, 0.03))
    os.kill(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    assert os.WIFSIGNALED(status), f"the run ended by itself with {status} after {kill} kills, at {steps}"
    steps.append(step_of(out / "killed"))
    assert steps[-1] >= steps[-2], steps
    os.write(speaks, b".")  # so that there is something to read; it takes what is left along
    await_steps(1)
print(json.dumps(steps))
assert os.waitpid(live(out / "killed", True), 0)[1] == 0
"""


def lines_of(out: Path) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name != "seconds"} for line in lines]


def flat(state: object, place: str = "") -> dict[str, object]:
    """A nested state as one dictionary."""
    if isinstance(state, dict):
        return {name: leaf for key, value in state.items() for name, leaf in flat(value, f"{place}/{key}").items()}
    if isinstance(state, (list, tuple)):
        return flat(dict(enumerate(state)), place)
    return {place: state}


def test_kills_lose_nothing(people, tmp_path, cases):
    (tmp_path / "nursery.py").write_text(NURSERY)
    kills = cases(20, 200)
    paths = {"PYTHONPATH": str(Path(train.__file__).parents[2]), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(tmp_path / "nursery.py"), str(people), str(tmp_path), str(kills)],
        capture_output=True, text=True, timeout=100 + 10 * kills, env={**os.environ, **paths},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    steps = json.loads(done.stdout)
    assert len(set(steps)) > kills // 5, steps  # the kills met the run at work
    assert lines_of(tmp_path / "killed") == lines_of(tmp_path / "whole")
    whole, killed = (flat(load_checkpoint(tmp_path / name / "checkpoint.pt")) for name in ("whole", "killed"))
    assert whole.keys() == killed.keys()
    for name, value in whole.items():
        if name == "/seconds":
            continue
        same = torch.equal(value, killed[name]) if isinstance(value, torch.Tensor) else value == killed[name]
        assert same, name
