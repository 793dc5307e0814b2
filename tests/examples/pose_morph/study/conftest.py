"""Folders of small pictures, each in a colour of its own, and a study over them."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from examples.pose_morph.study.design import Exhibit, StudyDesign
from examples.pose_morph.study.exhibition import Exhibition, gather
from examples.pose_morph.study.sitting import Sitting
from tests.examples.pose_morph.study.serving import Serving


def write_pictures(
    folder: Path, count: int, *, hue: int, size: tuple[int, int] = (24, 32), suffix: str = ".png"
) -> Path:
    """Write pictures with a gradient; ``size`` is (width, height)."""
    folder.mkdir(parents=True)
    gradient = Image.linear_gradient("L").resize(size)
    for number in range(count):
        flat = [Image.new("L", size, value) for value in (hue, (7 * number) % 256)]
        Image.merge("RGB", (gradient, *flat)).save(folder / f"{hue}_{number:03d}{suffix}")
    return folder


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Twenty real and ten generated pictures."""
    return write_pictures(tmp_path / "real", 20, hue=200), write_pictures(tmp_path / "generated", 10, hue=40)


def make_design(count: int = 4, golden: int = 2, **changes: Any) -> StudyDesign:
    """A design without picture files."""
    exhibits = [
        Exhibit(f"{truth}{number}", truth, False, "") for truth in ("real", "generated") for number in range(count)
    ]
    exhibits += [Exhibit(f"golden{number}", ("real", "generated")[number % 2], True, "") for number in range(golden)]
    values: dict[str, Any] = {
        "seed": 0, "answers": 3, "pictures_each": 2 * count, "golden_pass": 0.6, "warning": 2.0, "visible": 4.0,
        "frame": (32, 24), "exhibits": tuple(exhibits),
    }  # fmt: skip
    return StudyDesign(**{**values, **changes})


@pytest.fixture
def make_sitting(tmp_path: Path, folders: tuple[Path, Path]) -> Callable[..., Sitting]:
    """Open a sitting over the folders; a second call with the same arguments goes on with the same file."""

    def make(count: int = 3, golden: int = 2, **changes: Any) -> Sitting:
        shown: Exhibition = gather(*folders, count=count, golden_count=golden)
        design = make_design(count, golden, frame=shown.frame, exhibits=shown.exhibits, **changes)
        return Sitting(design, shown, tmp_path / "results.jsonl")

    return make


@pytest.fixture
def serve(make_sitting: Callable[..., Sitting]) -> Iterator[Serving]:
    """Serve a sitting."""
    serving = Serving(make_sitting)
    yield serving
    serving.stop()
