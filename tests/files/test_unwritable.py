"""A full disk and a folder that nobody may write to are errors that name the file, and what was there stays whole."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks import files as results
from examples.pose_morph.atomic import append_line, write_json, write_text
from examples.pose_morph.data.left_out import add_left_out
from examples.pose_morph.errors import UserError
from examples.pose_morph.generation.animation import write_animation
from examples.pose_morph.networks.generator import Generator
from examples.pose_morph.networks.settings import Full, Level, ModelSettings
from examples.pose_morph.networks.trained import ModelInfo, save_model
from examples.pose_morph.pictures.png import write_png
from examples.pose_morph.prepare.picture_file import write_picture
from examples.pose_morph.study.answer_file import AnswerFile
from examples.pose_morph.study.events import Joined
from examples.pose_morph.training.checkpoint import save_checkpoint
from examples.pose_morph.training.run_log import RunLog
from gpa_nd.engine.fused import tuned
from tests.examples.pose_morph.study.conftest import make_design

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="a disk is mounted, as only Linux does it")

DISK = 128 << 10
"""Bytes of the disk; what is written the second time is larger."""


def noise(size: int) -> Image.Image:
    """A picture that cannot be packed."""
    pixels = np.random.default_rng(0).integers(0, 256, (size, size, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def checkpoint(path: Path, size: int) -> None:
    save_checkpoint(path, {"settings": "{}", "weights": torch.rand(size, size, 3)})


def model(path: Path, size: int) -> None:
    torch.manual_seed(0)
    save_model(
        path.parent, Generator(ModelSettings((8, 8), (Level(size // 8, 3, Full()),))), info=ModelInfo("demo", 1, 0)
    )


def animation(path: Path, size: int) -> None:
    write_animation(path, [noise(size)] * 3, 5)


def log(path: Path, size: int) -> None:
    log = RunLog(path, 1)
    log.add({"x" * size**2: 1.0})
    log.write(1, 1.0)


def lines(path: Path, size: int) -> None:
    append_line(path, "x" * size**2)


def answers(path: Path, size: int) -> None:
    file = AnswerFile(path, make_design())
    if size > 16:
        file.append(Joined("x" * size**2, 1.0, 8, 2))
    file.close()


def keep(path: Path, size: int) -> None:
    tuned.keep(path, f"GPU {size}", {f"choice {number}": {"tiles": 1} for number in range(size**2 // 20)})


WRITERS: dict[str, Callable[[Path, int], Any]] = {
    "checkpoint.pt": checkpoint,
    "model.safetensors": model,
    "picture.png": lambda path, size: write_png(path, noise(size)),
    "picture.jpg": lambda path, size: write_picture(path, noise(size)),
    "animation.gif": animation,
    "animation.mp4": animation,
    "table.csv": lambda path, size: write_text(path, "x" * size**2),
    "scores.json": lambda path, size: write_json(path, {"x": "x" * size**2}),
    "left_out.txt": lambda path, size: add_left_out(path.parent, ["x" * size**2]),
    "log.jsonl": log,
    "lines.jsonl": lines,
    "answers.jsonl": answers,
    "tuned.json": keep,
    "results.json": lambda path, size: results.write_json(path, {"x": "x" * size**2}),
}
"""What writes each file; the second argument says how large it becomes."""

ADDED_TO = ("log.jsonl", "lines.jsonl")
"""Half a line may stand at the end of these, which their readers leave out."""


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small disk of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "none", folder], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"a disk can be mounted by root alone: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.mark.parametrize("name", WRITERS)
def test_a_full_disk_is_an_error_that_names_the_file_and_leaves_the_old_one(name, disk):
    path, write = disk / name, WRITERS[name]
    write(path, 16)
    before = path.read_bytes()
    with pytest.raises((UserError, OSError), match=rf"{name}.*No space left|No space left.*{name}"):
        write(path, 400)
    assert path.read_bytes()[: len(before)] == before
    if name not in ADDED_TO:
        assert path.read_bytes() == before
        assert [file.name for file in disk.iterdir() if file.name not in (name, "README.md")] == []


@pytest.mark.parametrize("name", WRITERS)
def test_a_folder_that_may_not_be_written_to_is_an_error_that_names_the_file(name, disk):
    path, write = disk / name, WRITERS[name]
    write(path, 16)
    before = path.read_bytes()
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    with pytest.raises((UserError, OSError), match=rf"{name}.*Read-only|Read-only.*{name}"):
        write(path, 16)
    assert path.read_bytes() == before


@pytest.mark.parametrize("name", WRITERS)
def test_a_file_where_a_folder_should_be_is_an_error_that_names_it(name, tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises((UserError, OSError), match=r"file/|file'"):
        WRITERS[name](tmp_path / "file" / name, 16)
    assert (tmp_path / "file").read_text() == "mine"
