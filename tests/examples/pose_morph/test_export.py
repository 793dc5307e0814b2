"""The export command: from a run to a model that can be passed on."""

import io
import json
import subprocess
import sys

import pytest
import torch
from rich.console import Console

from examples.pose_morph.errors import UserError
from examples.pose_morph.export import Options, export
from examples.pose_morph.networks.settings_json import to_json
from examples.pose_morph.networks.trained import load_generator
from examples.pose_morph.training.checkpoint import save_checkpoint


@pytest.fixture
def run(tmp_path, tiny_generator):
    """A run's folder with a checkpoint and scores."""
    folder = tmp_path / "run"
    ema = {f"module.{name}": value for name, value in tiny_generator.state_dict().items()}
    identity = {"preset": "demo", "seed": 0, "model": to_json(tiny_generator.settings)}
    save_checkpoint(folder / "checkpoint.pt", {"ema": ema, "step": 4, "settings": json.dumps(identity)})
    (folder / "metrics.json").write_text(json.dumps({"model": {"l1": 0.25}, "steps": 4}))
    return folder


def test_an_exported_run_is_a_model_with_its_card_and_scores(run, tmp_path, tiny_generator):
    out = tmp_path / "out"
    assert export(Options(run, out, data="stick figures", licence="CC0-1.0"), Console(quiet=True)) == 0
    assert sorted(path.name for path in out.iterdir()) == ["README.md", "metrics.json", "model.safetensors"]
    loaded = load_generator(out, torch.device("cpu"))
    assert (loaded.info.steps, loaded.info.data, loaded.info.licence) == (4, "stick figures", "CC0-1.0")
    expected = tiny_generator.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in loaded.generator.state_dict().items())
    assert "| `l1` | 0.25 |" in (out / "README.md").read_text()


def test_exporting_again_keeps_what_the_model_says_of_its_data(run, tmp_path):
    export(Options(run, tmp_path / "one", data="stick figures", licence="CC0-1.0"), Console(quiet=True))
    export(Options(tmp_path / "one", tmp_path / "two"), Console(quiet=True))
    card = (tmp_path / "two" / "README.md").read_text()
    assert "stick figures" in card
    assert "CC0-1.0" in card
    assert (tmp_path / "two" / "metrics.json").exists()


def test_an_unknown_licence_is_said(run, tmp_path):
    console = Console(file=io.StringIO())
    export(Options(run, tmp_path / "out"), console)
    assert "licence is unknown" in console.file.getvalue()


def test_nothing_is_written_over_unless_asked(run, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "README.md").write_text("mine")
    with pytest.raises(UserError, match=r"README\.md is already there \(1 file\(s\) would be written over\)"):
        export(Options(run, out), Console(quiet=True))
    assert [path.name for path in out.iterdir()] == ["README.md"]
    (out / "README.md").rename(out / "metrics.json")
    with pytest.raises(UserError, match=r"metrics\.json is already there"):
        export(Options(run, out), Console(quiet=True))
    assert (out / "metrics.json").read_text() == "mine"
    export(Options(run, out, overwrite=True), Console(quiet=True))
    assert (out / "model.safetensors").exists()
    with pytest.raises(UserError, match="out: expected a folder"):
        export(Options(run, run / "checkpoint.pt"), Console(quiet=True))


def test_the_command_says_what_is_wrong_without_a_traceback(tmp_path):
    command = [sys.executable, "-m", "examples.pose_morph.export", "--run", str(tmp_path / "[none]"), "--out", "x"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert "[none]; give the folder of a run" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
