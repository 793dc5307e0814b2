"""A tiny folder in every layout: it trains, its model is scored, and it draws a person in another's pose."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from rich.console import Console

from examples.pose_morph import generate as generation
from examples.pose_morph import presets
from examples.pose_morph.data.profiles import find_profile
from examples.pose_morph.evaluate import evaluate
from examples.pose_morph.evaluation.options import Options as EvaluateOptions
from examples.pose_morph.generation.options import Options as GenerateOptions
from examples.pose_morph.networks.settings import Full, Grid, Level, ModelSettings
from examples.pose_morph.presets import Preset, TrainingSettings
from examples.pose_morph.train import train
from examples.pose_morph.training.options import Options as TrainOptions
from tests.examples.pose_morph.conftest import (
    write_cfld,
    write_frames,
    write_gfla,
    write_nted,
    write_people,
    write_single,
)


def tiny(size: tuple[int, int], cells: tuple[int, int]) -> Preset:
    """A preset that trains in a second."""
    levels = (Level(4, 4, Grid(downsample=2, cells=cells, kappa=4)), Level(6, 6, Full()))
    return Preset(
        ModelSettings(size, levels, limb_coordinates=True, copy_pixels=True, sharpness=80.0),
        TrainingSettings(steps=2, batch_size=2, r1_every=2, sample_every=2, checkpoint_every=2, log_every=1),
    )


SMALL, FASHION = tiny((32, 24), (4, 3)), tiny((256, 176), (16, 11))
"""The second at the size of the database that `write_nted` writes."""


def person_of_table(picture: str, table: str) -> Callable[[Path], tuple[Path, Path | None]]:
    """Where a held-out picture lies in a folder, and the table that has its joints."""
    return lambda root: (root / picture, root / table)
