"""A tiny folder in the PATN layout: stick figures in one colour each, drawn around known joints."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image, ImageDraw

from examples.pose_morph.data.pose import BONES

STANDING = torch.tensor(
    [
        [20, 10], [20, 18], [14, 18], [11, 27], [10, 36], [26, 18], [29, 27], [30, 36], [16, 38],
        [15, 48], [15, 58], [24, 38], [25, 48], [25, 58], [18, 8], [22, 8], [16, 9], [24, 9],
    ],
    dtype=torch.float32,
)  # fmt: skip
"""A person who stands facing us in a picture of 64x40, as (x, y)."""


@pytest.fixture
def standing() -> torch.Tensor:
    """The standing pose, (18, 2)."""
    return STANDING.clone()


def draw_person(keypoints: torch.Tensor, colour: tuple[int, int, int]) -> Image.Image:
    """Draw thick bones on grey."""
    picture = Image.new("RGB", (40, 64), (200, 200, 200))
    draw = ImageDraw.Draw(picture)
    for a, b in BONES:
        draw.line([*keypoints[a].tolist(), *keypoints[b].tolist()], fill=colour, width=5)
    return picture


def write_people(root: Path, *, train: int = 3, test: int = 2) -> Path:
    """Write ``train`` and ``test`` people, two poses each, and return the folder."""
    generator = torch.Generator().manual_seed(0)
    for phase, people in (("train", train), ("test", test)):
        (root / phase).mkdir(parents=True)
        rows, pairs = ["name:keypoints_y:keypoints_x"], ["from,to"]
        for person in range(people):
            colour = tuple(torch.randint(0, 255, (3,), generator=generator).tolist())
            names = [f"{phase}{person}_{pose}.jpg" for pose in range(2)]
            for name in names:
                joints = (STANDING + 2 * torch.randn(18, 2, generator=generator)).round().clamp(min=0)
                draw_person(joints, colour).save(root / phase / name)
                x, y = joints.int().t().tolist()
                rows.append(f"{name}: {json.dumps(y)}: {json.dumps(x)}")
            pairs += [f"{names[0]},{names[1]}", f"{names[1]},{names[0]}"]
        (root / f"fasion-resize-annotation-{phase}.csv").write_text("\n".join(rows) + "\n")
        (root / f"fasion-resize-pairs-{phase}.csv").write_text("\n".join(pairs) + "\n")
    return root


@pytest.fixture
def people(tmp_path: Path) -> Path:
    """A folder with three people to learn and two held out."""
    return write_people(tmp_path / "people")
