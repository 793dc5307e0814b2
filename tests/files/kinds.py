"""Every kind of file that a program here reads and that may come from elsewhere: how it is made, and what reads it."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from torch.optim.swa_utils import AveragedModel

from benchmarks.gpu.__main__ import found_before
from examples.pose_morph.data.profiles import read_data
from examples.pose_morph.data.rest_points import read_rest_points
from examples.pose_morph.errors import UserError
from examples.pose_morph.experiments.distortion_report import NUMBERS
from examples.pose_morph.experiments.jobs import last_entry
from examples.pose_morph.experiments.run_results import read_result, read_shown
from examples.pose_morph.networks.discriminator import Discriminator
from examples.pose_morph.networks.generator import Generator
from examples.pose_morph.networks.model_card import write_model_card
from examples.pose_morph.networks.settings import Grid, Level, ModelSettings
from examples.pose_morph.networks.settings_json import to_json
from examples.pose_morph.networks.trained import ModelInfo, load_generator, save_model
from examples.pose_morph.presets import TrainingSettings
from examples.pose_morph.scores.weights import load_weights
from examples.pose_morph.study.answer_file import read_ledger
from examples.pose_morph.study.events import Answered, Asked, Finished, Joined, Shown, to_record
from examples.pose_morph.study.rates import summarise
from examples.pose_morph.training.checkpoint import save_checkpoint
from examples.pose_morph.training.optimizers import make_optimizers
from examples.pose_morph.training.resume import check_settings, kept_group, open_run, random_state, restore
from examples.pose_morph.training.run_log import RunLog
from gpa_nd.engine.fused import tuned
from tests.examples.pose_morph.conftest import WRITERS, write_people
from tests.examples.pose_morph.study.conftest import make_design
from tests.files.damage import ODD_VALUES, edited, edited_json, edited_lines, edited_safetensors, rewritten_zip

CPU = torch.device("cpu")
SETTINGS = ModelSettings((8, 8), (Level(3, 3, Grid(2, (2, 2), 2)),))
TRAINING = TrainingSettings(steps=10, batch_size=2, minibatch_group=1)
IDENTITY = {"preset": "demo", "seed": 0, "model": to_json(SETTINGS), "training": asdict(TRAINING)}

ODD_TENSORS = (torch.zeros(0), torch.zeros(3, 5, 7), torch.tensor(float("nan")), torch.zeros(3, dtype=torch.complex64),
    torch.tensor(["a" == "b"]), torch.zeros(1).expand(2**20, 2**20), torch.eye(3).to_sparse())  # fmt: skip


@dataclass(frozen=True)
class Kind:
    """A kind of file.

    Attributes:
        name: What it is.
        write: Makes a folder with such a file, and what belongs to it; returns the file.
        read: What the program does with it; returns its content as something to compare.
        errors: What it raises for a file that it cannot use; nothing where it does without.
        edit: Changes the file in a way that leaves it one of its format.
        sealed: Whether damage cannot go unnoticed: what is read from a damaged file is what was written.
    """

    name: str
    write: Callable[[Path], Path]
    read: Callable[[Path], Any]
    errors: tuple[type[Exception], ...] = (UserError,)
    edit: Callable[[bytes, Random], bytes] | None = None
    sealed: bool = False


def parts() -> dict[str, Any]:
    """All that a checkpoint fills."""
    torch.manual_seed(0)
    generator, discriminator = Generator(SETTINGS), Discriminator(SETTINGS)
    optimizers = make_optimizers(generator, discriminator, TRAINING)
    ema = AveragedModel(generator, use_buffers=True)
    log = RunLog(Path("log.jsonl"), 1)
    names = ("generator", "ema", "discriminator", "optimizer_g", "optimizer_d", "log")
    return dict(zip(names, (generator, ema, discriminator, *optimizers, log), strict=True))


def state() -> dict[str, Any]:
    """The content of a checkpoint after a step."""
    made = parts()
    for name in ("generator", "discriminator"):
        for parameter in made[name].parameters():
            parameter.grad = torch.ones_like(parameter)
    for name in ("optimizer_g", "optimizer_d"):
        made[name].step()
    made["log"].add({"per": 1.0})
    return {
        **{name: part.state_dict() for name, part in made.items()},
        "step": 1, "discriminator_steps": 1, "seconds": 1.5, "settings": json.dumps(IDENTITY),
        "data": {"pairs": 4, "digest": 5}, "trained_on": {"data": "people", "licence": "none"},
        "random": random_state(),
    }  # fmt: skip


def write_checkpoint(folder: Path) -> Path:
    save_checkpoint(folder / "checkpoint.pt", state())
    return folder / "checkpoint.pt"


def edited_checkpoint(content: bytes, chance: Random) -> bytes:
    """Half of the time another archive, otherwise another content in a sound archive."""
    if chance.random() < 0.5:
        return rewritten_zip(content, chance)
    written = io.BytesIO()
    torch.save(edited(torch.load(io.BytesIO(content), weights_only=True), chance, (*ODD_VALUES, *ODD_TENSORS)), written)
    return written.getvalue()


def resume(path: Path) -> dict[str, Any]:
    """What `train` does to go on."""
    saved = open_run(path.parent, resume=True)
    kept_group(saved)
    check_settings(path.parent, saved, IDENTITY)
    made = parts()
    counts = restore(made, saved, path)
    return {**{name: part.state_dict() for name, part in made.items()}, "counts": counts}


def write_model(folder: Path) -> Path:
    torch.manual_seed(0)
    save_model(folder, Generator(SETTINGS), info=ModelInfo("demo", 7, 3))
    return folder / "model.safetensors"


def read_model(path: Path) -> tuple[Any, ...]:
    model = load_generator(path, CPU)
    return model.generator.state_dict(), model.settings, model.info


def read_model_of_run(path: Path) -> tuple[Any, ...]:
    return read_model(path.parent)


def write_weights(folder: Path, *, zipped: bool) -> Path:
    torch.manual_seed(0)
    path = folder / "weights.pth"
    torch.save(torch.nn.Linear(20, 30).state_dict(), path, _use_new_zipfile_serialization=zipped)
    return path


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    network = torch.nn.Linear(20, 30)
    load_weights(network, path, option="--weights", expected="the weights of a layer")
    return network.state_dict()


def read_folder(path: Path) -> None:
    """Read all data of the folder that holds ``path``."""
    root = next(parent for parent in path.parents if parent.name == "data")
    data = read_data(root, "train", (16, 16))
    for number in range(len(data)):
        data[number]


def write_text(folder: Path, *, name: str, text: str) -> Path:
    (folder / name).write_text(text)
    return folder / name


def write_left_out(folder: Path) -> Path:
    write_people(folder / "data")
    return write_text(folder / "data", name="left_out.txt", text="# blurred\ntrain/train0_0.jpg\ntest1_1.jpg  # cut\n")


def write_rest_points(folder: Path) -> Path:
    from PIL import Image

    (folder / "rest").mkdir()
    Image.fromarray(np.arange(300, dtype=np.uint8).reshape(10, 10, 3)).save(folder / "rest" / "a.png")
    return folder / "rest" / "a.png"


def write_answers(folder: Path) -> Path:
    design = make_design()
    events = [Joined("ann", 1.0, 8, 2)]
    for number, exhibit in enumerate(design.exhibits):
        name = f"q{number}"
        events += [Asked("ann", 2.0, name, number), Shown("ann", 3.0, name)]
        events += [Answered("ann", 4.0, name, "real", 0.7, number, exhibit.truth, exhibit.golden)]
    events += [Finished("ann", 5.0, 1, 2, True)]
    lines = [design.to_record(), *map(to_record, events)]
    return write_text(folder, name="results.jsonl", text="".join(json.dumps(line) + "\n" for line in lines))


def read_answers(path: Path) -> None:
    ledger, _, _ = read_ledger(path)
    summarise(ledger, now=10.0)


def write_tuned(folder: Path) -> Path:
    tuned.keep(
        folder / "tuned.json", "H100", {"select_tile(7)": {"blocks": 5, "tiles": 2}, "tile_of(64)": {"keys": 16}}
    )
    return folder / "tuned.json"


def read_log(path: Path) -> None:
    RunLog(path, 1).go_on_after(2)


METRICS = {"model": {"l1": 0.1, "ssim": 0.5}, "settings": IDENTITY, "data": {"train": {"pairs": 4}}, "steps": 3}
LOG = "".join(json.dumps({"step": step, "seconds": 0.1, "per": 0.5}) + "\n" for step in range(1, 4))
"""What a run writes."""


def read_card(path: Path) -> None:
    write_model_card(path.parent, Generator(SETTINGS), vars(ModelInfo("demo", 7, 3)))


RESULT = {
    "options": {"attention": "gpa", "seed": 0},
    "scores": {"loss": 1.0, "perceptual": 0.5, "l1": 0.1, "ssim_gaussian": 0.9},
    "bytes": {"attention": 1000, "step": 2000},
    "steps": 5,
    "parameters": 100,
    "data": {"train": {"pairs": 4}},
}


def write_shown(folder: Path) -> Path:
    pictures = np.arange(2 * 3 * 4 * 4, dtype=np.uint8).reshape(2, 3, 4, 4)
    np.savez_compressed(folder / "shown.npz", source=pictures, truth=pictures, result=pictures)
    return folder / "shown.npz"


def data_file(folder: Path, *, profile: str, pattern: str) -> Path:
    """Write a data folder in a layout; the first file of the pattern is the one to damage."""
    WRITERS[profile](folder / "data")
    return next(path for path in sorted((folder / "data").rglob(pattern)) if path.stat().st_size)


def data(name: str, profile: str, pattern: str) -> Kind:
    return Kind(name, partial(data_file, profile=profile, pattern=pattern), read_folder)


def text(name: str, file: str, content: Any, read: Callable[[Path], Any], **more: Any) -> Kind:
    """A kind of JSON, or of JSON lines where the content is a text."""
    if isinstance(content, str):
        return Kind(name, partial(write_text, name=file, text=content), read, edit=edited_lines, **more)
    return Kind(name, partial(write_text, name=file, text=json.dumps(content)), read, edit=edited_json, **more)


FOUND = {"machine": {"device": "H100"}, "check": [{"row": "image", "dtype": "float32", "faults": []}]}
"""What checking the kernels leaves."""

KINDS = [
    Kind("checkpoint", write_checkpoint, resume, edit=edited_checkpoint, sealed=True),
    Kind("checkpoint as a model", write_checkpoint, read_model_of_run, edit=edited_checkpoint, sealed=True),
    Kind("model", write_model, read_model, edit=edited_safetensors, sealed=True),
    Kind("weights", partial(write_weights, zipped=True), read_weights, edit=rewritten_zip, sealed=True),
    Kind("weights in the old format", partial(write_weights, zipped=False), read_weights),
    Kind("tuned configurations", write_tuned, tuned.kept, (ValueError,), edit=edited_json),
    text("what was found on a GPU", "H100.json", FOUND, found_before, errors=(ValueError,)),
    text("log of a run", "log.jsonl", LOG, read_log, errors=()),
    text("log of a run, while it runs", "log.jsonl", LOG, partial(last_entry, key="step"), errors=()),
    text("metrics for a model card", "metrics.json", METRICS, read_card, errors=()),
    text("metrics of an experiment", "metrics.json", METRICS, partial(read_result, numbers=["model.l1", "model.ssim"])),
    text("result of an experiment", "result.json", RESULT, partial(read_result, numbers=NUMBERS)),
    Kind("pictures of an experiment", write_shown, read_shown, edit=rewritten_zip),
    Kind("answers of a study", write_answers, read_answers, edit=edited_lines),
    data("pairs", "patn", "*pairs-train.csv"),
    data("keypoints", "patn", "*annotation-train.csv"),
    data("picture", "patn", "train/*.jpg"),
    data("picture, PNG", "single", "*.png"),
    data("keypoints without pairs", "single", "*.csv"),
    data("database", "nted", "data.mdb"),
    data("pairs of a database", "nted", "train_pairs.txt"),
    data("pose of a database", "nted", "pose/**/*.txt"),
    data("video", "frames, video files", "train/*.mp4"),
    Kind("left_out.txt", write_left_out, read_folder),
    Kind("rest points", write_rest_points, lambda path: read_rest_points(path.parents[1], "a.jpg")),
]
