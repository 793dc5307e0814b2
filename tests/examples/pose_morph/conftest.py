"""Tiny folders in every layout: stick figures in one colour each, drawn around known joints."""

import json
from functools import partial
from io import BytesIO
from pathlib import Path

import av
import lmdb
import pytest
import torch
from PIL import Image, ImageDraw

from examples.pose_morph.data.pose import BONES
from examples.pose_morph.networks.generator import Generator
from examples.pose_morph.networks.settings import Full, Grid, Level, ModelSettings

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


@pytest.fixture
def tiny_generator() -> Generator:
    """An untrained generator of pictures of 32x16, with GPA at the large level."""
    levels = (Level(4, 5, Grid(downsample=2, cells=(4, 2), kappa=4)), Level(6, 7, Full()))
    settings = ModelSettings((32, 16), levels, limb_coordinates=True, copy_pixels=True, sharpness=80.0)
    torch.manual_seed(0)
    return Generator(settings).eval()


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


def write_table(path: Path, rows: dict[str, torch.Tensor]) -> None:
    """Write an annotation: joints (x, y) by name, NaN where not known."""
    lines = ["name:keypoints_y:keypoints_x"]
    for name, joints in rows.items():
        x, y = joints.nan_to_num(-1).round().int().t().tolist()
        lines.append(f"{name}: {json.dumps(y)}: {json.dumps(x)}")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")


def person_with_marks(
    size: tuple[int, int], frame: tuple[int, int], generator: torch.Generator
) -> tuple[Image.Image, torch.Tensor]:
    """Draw a person in a picture of ``size``, its right wrist marked red; return it with the joints in ``frame``.

    Sizes are height and width. The joints are whole numbers of the frame, as tables have them.
    """
    joints = (STANDING + 2 * torch.randn(18, 2, generator=generator)).clamp(min=0)
    joints = (joints * torch.tensor([frame[1] / 40, frame[0] / 64])).round()
    height, width = 4 * size[0], 4 * size[1]  # Pillow draws at whole pixels: draw large, then shrink
    drawn = (joints + 0.5) * torch.tensor([width / frame[1], height / frame[0]]) - 0.5
    colour = (0, *torch.randint(0, 200, (2,), generator=generator).tolist())
    picture = Image.new("RGB", (width, height), (200, 200, 200))
    draw = ImageDraw.Draw(picture)
    for a, b in BONES:
        draw.line([*drawn[a].tolist(), *drawn[b].tolist()], fill=colour, width=height // 16)
    draw.circle(tuple(drawn[WRIST].tolist()), height / 32, fill=(255, 0, 0))
    return picture.reduce(4), joints


WRIST = 4
"""The joint that `person_with_marks` marks."""


def write_gfla(
    root: Path, *, people: int = 2, size: tuple[int, int] = (512, 352), folder: str = "{phase}", name: str = "fasion-"
) -> Path:
    """Write the layout of GFLA: pictures of ``size``, keypoints in a frame of 256x176; two poses per person."""
    generator = torch.Generator().manual_seed(1)
    for number, phase in enumerate(("train", "test")):
        where = root / folder.format(phase=phase)
        where.mkdir(parents=True)
        rows, pairs = {}, ["from,to"]
        for person in range(people):
            names = [f"fashionWOMENTeesid{number:04}{person:04}01_{pose}.jpg" for pose in ("1front", "2back")]
            for each in names:
                picture, rows[each] = person_with_marks(size, (256, 176), generator)
                picture.save(where / each, quality=95, subsampling=0)
            pairs += [f"{names[0]},{names[1]}", f"{names[1]},{names[0]}"]
        write_table(root / f"{name}annotation-{phase}.csv", rows)
        (root / f"{name}pairs-{phase}.csv").write_text("\n".join(pairs) + "\n")
    return root


def write_cfld(root: Path, *, people: int = 2, size: tuple[int, int] = (512, 352)) -> Path:
    """Write the layout of CFLD: that of GFLA with ``{phase}_highres`` and ``fashion-resize-`` tables."""
    return write_gfla(root, people=people, size=size, folder="{phase}_highres", name="fashion-resize-")


def write_nted(root: Path, *, people: int = 2, sizes: tuple[tuple[int, int], ...] = ((256, 176),)) -> Path:
    """Write the layout of NTED: databases of the given sizes, pairs, and keypoints 40 columns to the right."""
    pictures: dict[tuple[int, int], dict[str, bytes]] = {size: {} for size in sizes}
    for number, phase in enumerate(("train", "test")):
        lines = []
        for person in range(people):
            names = [f"img/WOMEN/Tees/id_{number:04}{person:04}/01_{pose}.jpg" for pose in ("1_front", "2_back")]
            for each in names:
                seed = 10 * person + number + 100 * int("back" in each)
                for size in sizes:
                    generator = torch.Generator().manual_seed(seed)
                    picture, joints = person_with_marks(size, (256, 176), generator)
                    encoded = BytesIO()
                    picture.save(encoded, "PNG")
                    pictures[size][each.replace(".jpg", ".png")] = encoded.getvalue()
                joints[0] = torch.nan  # a nose that was not found
                text = "\n".join(f"{x + 40:.0f} {y:.0f}" if x == x else "-1 -1" for x, y in joints.tolist())
                pose = (root / each.replace("img/", "pose/")).with_suffix(".txt")
                pose.parent.mkdir(parents=True, exist_ok=True)
                pose.write_text(text + "\n")
            lines += [",".join(names), ",".join(names[::-1])]
        (root / f"{phase}_pairs.txt").write_text("\n".join(lines) + "\n")
    for size, values in pictures.items():
        with (
            lmdb.open(str(root / f"{size[0]}-{size[1]}"), map_size=2**24) as database,
            database.begin(write=True) as all_,
        ):
            all_.put(b"length", str(len(values)).encode())
            for key, value in values.items():
                all_.put(key.encode(), value)
    return root


def write_video(path: Path, pictures: list[Image.Image], codec: str = "mpeg4", **options: str) -> None:
    """Encode pictures, whose sides must be even, as a video."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=10, options=options)
        stream.width, stream.height = pictures[0].size
        stream.pix_fmt = "yuv420p"
        stream.bit_rate = 4_000_000
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_image(picture)))
        container.mux(stream.encode(None))


def write_frames(root: Path, *, video: bool = False, videos: int = 2, frames: int = 3) -> Path:
    """Write the layout of FOMM, in folders of PNG files or, with ``video``, in MP4 files; 64x48."""
    generator = torch.Generator().manual_seed(2)
    for phase in ("train", "test"):
        (root / phase).mkdir(parents=True)
        for number in range(videos):
            clip = root / phase / f"dancer{number}"
            drawn = [person_with_marks((64, 48), (64, 48), generator) for _ in range(frames)]
            if video:
                write_video(clip.with_suffix(".mp4"), [picture for picture, _ in drawn])
                names = [f"{frame:03}" for frame in range(frames)]
            else:
                clip.mkdir()
                names = [f"{frame:03}.png" for frame in range(frames)]
                for name, (picture, _) in zip(names, drawn, strict=True):
                    picture.save(clip / name)
            table = {name: joints for name, (_, joints) in zip(names, drawn, strict=True)}
            write_table(root / phase / f"dancer{number}.csv", table)
    return root


def write_single(root: Path, *, pictures: int = 6, phases: bool = False) -> Path:
    """Write pictures, 64x40, without pairs: in train and test with ``phases``, otherwise in the folder itself."""
    generator = torch.Generator().manual_seed(3)
    rows = {}
    for number in range(pictures):
        name = f"photo{number}.png"
        where = root / ("test" if number % 3 == 2 else "train") if phases else root
        where.mkdir(parents=True, exist_ok=True)
        picture, rows[name] = person_with_marks((64, 40), (64, 40), generator)
        picture.save(where / name)
    write_table(root / "keypoints.csv", rows)
    return root


WRITERS = {
    "patn": write_people,
    "gfla": write_gfla,
    "cfld": write_cfld,
    "nted": write_nted,
    "frames": write_frames,
    "frames, video files": partial(write_frames, video=True),
    "single": write_single,
    "single, with phases": partial(write_single, phases=True),
}
"""What writes each layout, by the profile's name and, after a comma, its variant."""


@pytest.fixture(params=WRITERS)
def layout(request: pytest.FixtureRequest) -> str:
    """Every layout in turn, unless a test names its own."""
    return request.param


@pytest.fixture
def root(tmp_path: Path, layout: str) -> Path:
    """A tiny folder in the layout."""
    return WRITERS[layout](tmp_path / "data")
