"""The generate command: what it leaves, whose pose and size results have, and what it refuses."""

import io
import subprocess
import sys

import av
import pytest
import torch
from PIL import Image, ImageDraw
from rich.console import Console

from examples.pose_morph.data.pixels import to_image
from examples.pose_morph.data.pose_data import fit
from examples.pose_morph.errors import UserError
from examples.pose_morph.generate import generate
from examples.pose_morph.generation import detection, morph, people
from examples.pose_morph.generation.options import Options
from examples.pose_morph.networks.attention_names import with_attention
from examples.pose_morph.networks.generator import Generator, draw_pose
from examples.pose_morph.networks.trained import ModelInfo, save_model
from examples.pose_morph.pictures.sheet import to_picture
from tests.examples.pose_morph.conftest import write_gfla, write_table

INFO = ModelInfo("tiny", steps=0, seed=0)


@pytest.fixture
def place(tmp_path, tiny_generator, standing):
    """A folder with a model and three pictures of 40x64, 30x30 and 64x40 with their joints."""
    save_model(tmp_path / "model", tiny_generator, info=INFO)
    joints = {}
    for name, size, colour in (("a.png", (40, 64), "red"), ("b.jpg", (30, 30), "green"), ("c.png", (64, 40), "blue")):
        picture = Image.new("RGB", size, "white")
        ImageDraw.Draw(picture).ellipse([5, 5, 25, 25], fill=colour)
        picture.save(tmp_path / name)
        joints[name] = (standing * torch.tensor([size[0] / 40, size[1] / 64])).round()
    write_table(tmp_path / "joints.csv", joints)
    return tmp_path


def run(place, **options) -> str:
    """Generate in this process; return what is said."""
    given = {"model": place / "model", "source": (place / "a.png",), "device": "cpu", **options}
    console = Console(file=io.StringIO(), width=200)
    assert generate(Options(**given), console) == 0
    return console.file.getvalue()


def pixels(path) -> tuple:
    with Image.open(path) as picture:
        return picture.size, picture.tobytes()


def test_every_source_takes_every_pose(place):
    said = run(place, source=(place / "a.png", place / "b.jpg"), pose=place / "joints.csv", out=place / "out")
    names = sorted(path.name for path in (place / "out").iterdir())
    assert names == ["a__a.png", "a__b.png", "a__c.png", "b__a.png", "b__b.png", "b__c.png", "sheet.png"]
    assert len({pixels(place / "out" / name)[1] for name in names}) == 7
    assert "6 pictures and a sheet of them" in said
    with Image.open(place / "out" / "sheet.png") as sheet:  # a skeleton and a picture in each cell, six times enlarged
        assert sheet.size == (4 * (6 * 16 + 6) + 6, 2 * 24 + 4 * (6 * 32 + 6))


def test_a_result_is_what_the_generator_draws(place, tiny_generator, standing):
    run(place, pose_from=(place / "c.png",), out=place / "out", size="model")
    with Image.open(place / "a.png") as source, Image.open(place / "c.png") as target:
        image, own = fit(source, standing, (32, 16))
        _, pose = fit(target, (standing * torch.tensor([64 / 40, 40 / 64])).round(), (32, 16))
    poses = [draw_pose(points[None], tiny_generator.settings) for points in (own, pose)]
    with torch.no_grad():
        expected = to_picture(tiny_generator(to_image(image)[None], *poses)[0])
    with Image.open(place / "out" / "a__c.png") as drawn:
        difference = torch.tensor(list(drawn.tobytes())) - torch.tensor(list(expected.tobytes()))
    assert difference.abs().max() <= 1


@pytest.mark.parametrize(("name", "native"), [("a.png", (16, 26)), ("b.jpg", (16, 16)), ("c.png", (16, 10))])
def test_native_results_have_the_sources_shape_and_lie_inside_the_models(place, name, native):
    run(place, source=(place / name,), pose_from=(place / "a.png",), out=place / "native")
    run(place, source=(place / name,), pose_from=(place / "a.png",), out=place / "model", size="model", overwrite=True)
    result = f"{name[0]}__a.png"
    with Image.open(place / "native" / result) as cut, Image.open(place / "model" / result) as whole:
        assert (cut.size, whole.size) == (native, (16, 32))
        top = (32 - native[1]) // 2
        assert whole.crop((0, top, 16, top + native[1])).tobytes() == cut.tobytes()


@pytest.mark.parametrize("ending", ["gif", "mp4"])
def test_two_poses_and_some_between_make_an_animation(place, ending):
    film = place / f"film.{ending}"
    run(place, pose=place / "joints.csv", pose_names=("a.png", "c.png"), between=3, animate=film, size="model")
    with av.open(str(film)) as video:
        frames = [frame.to_image() for frame in video.decode(video=0)]
    assert len(frames) == 5
    assert {frame.size for frame in frames} == {(16, 32)}
    assert sorted(path.name for path in place.iterdir()) == sorted(
        ["a.png", "b.jpg", "c.png", "joints.csv", "model", film.name]
    )


def test_frames_are_numbered_and_each_source_has_its_animation(place):
    run(
        place, source=(place / "a.png", place / "b.jpg"), pose_sequence=place / "joints.csv", between=1,
        animate=place / "film.gif", out=place / "out",
    )  # fmt: skip
    assert (place / "film-a.gif").exists()
    assert (place / "film-b.gif").exists()
    names = sorted(path.name for path in (place / "out").iterdir())[:5]
    assert names == [f"a__0000{number}_{name}.png" for number, name in enumerate(("a", "a+1", "b", "b+1", "c"))]


def test_sources_together_draw_one_person_once_per_pose(place, tiny_generator):
    sources = (place / "a.png", place / "b.jpg")
    run(place, source=sources, pose_from=(place / "c.png",), together=True, out=place / "out")
    assert sorted(path.name for path in (place / "out").iterdir()) == ["a+b__c.png", "sheet.png"]
    run(place, pose_from=(place / "c.png",), out=place / "one")
    assert pixels(place / "one" / "a__c.png")[0] == pixels(place / "out" / "a+b__c.png")[0]
    assert pixels(place / "one" / "a__c.png")[1] != pixels(place / "out" / "a+b__c.png")[1]

    with Image.open(place / "out" / "sheet.png") as sheet:  # both sources stand at the head of the row
        assert sheet.size == (3 * (6 * 16 + 6) + 6, 2 * 24 + 2 * (6 * 32 + 6))
        first, second = (sheet.crop((left, 246, left + 96, 438)).tobytes() for left in (6, 108))
    with Image.open(place / "one" / "sheet.png") as sheet:
        assert sheet.crop((6, 246, 102, 438)).tobytes() == first != second

    low_rank = Generator(with_attention(tiny_generator.settings, "nystromformer"))
    save_model(place / "model", low_rank, info=INFO)
    with pytest.raises(UserError, match="--together: Nyströmformer's attention takes one source"):
        run(place, source=sources, pose_from=(place / "c.png",), together=True, out=place / "out")


def test_a_fitted_pose_is_drawn_at_the_sources_size(place, standing):
    """The pose of the source, twice as large and elsewhere, is the source's own pose again."""
    write_table(place / "poses.csv", {"large": 2 * standing - 20, "own": standing})
    options = {"pose": place / "poses.csv", "pose_frame": (64, 40)}
    run(place, **options, fit_pose=True, out=place / "fitted")
    run(place, **options, out=place / "plain")
    close = torch.tensor(list(pixels(place / "fitted" / "a__large.png")[1]), dtype=torch.float)
    own = torch.tensor(list(pixels(place / "plain" / "a__own.png")[1]), dtype=torch.float)
    far = torch.tensor(list(pixels(place / "plain" / "a__large.png")[1]), dtype=torch.float)
    assert (close - own).abs().mean() < 0.2 * (far - own).abs().mean()


def test_a_fitted_sequence_keeps_its_steps_and_single_poses_do_not(place, standing):
    """Two frames one step apart: alone, each is moved onto the source, and nothing is left of the step."""
    write_table(place / "walk.csv", {"1": 2 * standing, "2": 2 * standing + torch.tensor([16.0, 0.0])})
    for kind, folder in (("pose_sequence", "walk"), ("pose", "single")):
        run(place, **{kind: place / "walk.csv"}, pose_frame=(128, 80), fit_pose=True, out=place / folder)
    walked = [pixels(place / "walk" / f"a__{name}.png")[1] for name in ("00000_1", "00001_2")]
    single = [pixels(place / "single" / f"a__{name}.png")[1] for name in ("1", "2")]
    assert walked[0] != walked[1]
    assert single[0] == single[1]


def test_pictures_that_are_larger_than_their_tables_frame(place):
    """GFLA's 512x352 with joints in 256x176: halved pictures, whose own pixels the joints are in, give the same."""
    gfla = write_gfla(place / "gfla") / "test"
    source, target = sorted(gfla.glob("*.jpg"))[:2]
    frames = {"source_frame": (256, 176), "pose_frame": (256, 176)}
    run(place, source=(source,), pose_from=(target,), out=place / "framed", size="model", **frames)
    small = place / "small" / "pictures"
    small.mkdir(parents=True)
    (small.parent / "table.csv").write_bytes((gfla.parent / "fasion-annotation-test.csv").read_bytes())
    for path in (source, target):
        with Image.open(path) as picture:
            picture.reduce(2).save(small / path.name, quality=100, subsampling=0)
    both = (small / source.name,), (small / target.name,)
    run(place, source=both[0], pose_from=both[1], out=place / "same", size="model")
    run(place, source=(source,), pose_from=(target,), out=place / "wrong", size="model")
    name = f"{source.stem}__{target.stem}.png"
    framed, same, wrong = (
        torch.tensor(list(pixels(place / folder / name)[1]), dtype=torch.float)
        for folder in ("framed", "same", "wrong")
    )
    assert (framed - same).abs().mean() < 0.1 * (framed - wrong).abs().mean()


def test_a_painting_is_a_source_like_any_other(place, standing):
    """Fig. 10: a source of another domain; brush strokes in a palette file, with joints that are partly unknown."""
    painting = Image.effect_noise((80, 128), 90).convert("RGB").quantize(12)
    painting.save(place / "portrait.gif")
    joints = standing * 2
    joints[[4, 10, 13]] = torch.nan
    write_table(place / "painting.csv", {"portrait.gif": joints})
    run(
        place, source=(place / "portrait.gif",), source_keypoints=place / "painting.csv",
        pose_from=(place / "b.jpg",), out=place / "out",
    )  # fmt: skip
    assert pixels(place / "out" / "portrait__b.png")[0] == (16, 26)


def test_results_do_not_depend_on_how_many_poses_are_drawn_at_once(place, monkeypatch):
    run(place, pose=place / "joints.csv", out=place / "four")
    monkeypatch.setattr(morph, "POSES_AT_ONCE", 1)
    run(place, pose=place / "joints.csv", out=place / "one")
    for name in ("a__a.png", "a__b.png", "a__c.png"):
        one, four = (torch.tensor(list(pixels(place / folder / name)[1])) for folder in ("one", "four"))
        assert (one - four).abs().max() <= 1


def test_nothing_is_written_over_unless_asked(place):
    options = {"pose_from": (place / "b.jpg",), "out": place / "out", "animate": place / "out" / "film.gif"}
    run(place, **options)
    (place / "out" / "a__b.png").write_text("mine")
    with pytest.raises(UserError, match=r"a__b\.png is already there \(3 file\(s\) would be written over\)"):
        run(place, **options)
    assert (place / "out" / "a__b.png").read_text() == "mine"
    run(place, **options, overwrite=True)
    assert pixels(place / "out" / "a__b.png")[0] == (16, 26)


def test_a_bad_file_of_a_folder_is_left_out_and_said_and_a_named_one_refused(place, standing):
    album = place / "album"
    album.mkdir()
    for name in ("a.png", "b.png", "c.png"):
        Image.new("RGB", (40, 64)).save(album / name)
    write_table(album / "joints.csv", {"a.png": standing, "b.png": standing, "c.png": standing * torch.nan})
    (album / "b.png").write_bytes(b"no picture")
    said = run(place, source=(album,), pose=place / "joints.csv", pose_names=("a.png",), out=place / "out")
    assert sorted(path.name for path in (place / "out").iterdir()) == ["a__a.png", "sheet.png"]
    assert f"2 of 3 pictures in {album} are left out:" in said
    assert "b.png cannot be read as a picture" in said
    assert f"no joint of {album / 'c.png'} is known" in said
    assert "doctor" not in said
    assert "1 picture and a sheet of them" in said
    said = run(place, pose_from=(album,), out=place / "from")
    assert f"2 of 3 pictures in {album} are left out:" in said
    said = run(place, pose_sequence=album, out=place / "sequence")
    assert f"1 of 3 frames of {album} are left out:" in said
    for name in ("b.png", "c.png"):
        with pytest.raises(UserError, match=name):
            run(place, source=(album / name,), pose=place / "joints.csv", out=place / "other")
    (album / "a.png").unlink()
    with pytest.raises(UserError, match=r"none of the 2 in .*album can be used\n.*b\.png cannot be read"):
        run(place, source=(album,), pose=place / "joints.csv", out=place / "other")


def test_poses_that_say_hardly_anything_are_named(place, standing):
    few, point = standing.clone(), torch.full((18, 2), 20.0)
    few[3:] = torch.nan
    write_table(place / "odd.csv", {"few": few, "point": point, "fine": standing})
    said = run(place, pose=place / "odd.csv", out=place / "out")
    assert "pose few: only 3 joints of 18 known" in said
    assert "pose point: all 18 known joints are on one point" in said
    assert "fine" not in said


def test_joints_outside_of_the_picture_are_said_or_refused(place, standing):
    partly, away = standing.clone(), standing + 500
    partly[4] = torch.tensor([200.0, 20.0])
    write_table(place / "far.csv", {"partly": partly, "away": away})
    said = run(place, pose=place / "far.csv", pose_names=("partly",), out=place / "out")
    assert "a: 1 joint(s) of 1 of 1 pose(s) lie outside of the picture" in said
    with pytest.raises(
        UserError, match=r"all joints of away lie outside of the picture of a.*--pose-frame.*--fit-pose"
    ):
        run(place, pose=place / "far.csv", out=place / "other")
    assert not (place / "other").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "expected one of --pose, --pose-from and --pose-sequence, got none"),
        ({"pose": "joints.csv", "pose_from": ("b.jpg",)}, "got --pose and --pose-from"),
        ({"pose_from": ("b.jpg",), "out": None}, "nothing to write"),
        ({"pose_from": ("b.jpg",), "pose_names": ("b.jpg",)}, "--pose-names: expected --pose"),
        ({"pose_sequence": ".", "pose_frame": (64, 40)}, "--pose-frame: expected"),
        ({"pose": "joints.csv", "source_frame": (0, 40)}, "--source-frame: expected .* got 0 40"),
        ({"pose": "joints.csv", "pose_frame": (0, 40)}, "--pose-frame: expected"),
        ({"pose": "joints.csv", "between": -1}, "--between: expected at least 0, got -1"),
        ({"pose": "joints.csv", "out": "a.png"}, "--out: expected a folder, and .*a.png is a file"),
        ({"pose": "joints.csv", "animate": "film.avi"}, r"ends in \.gif or \.mp4"),
        ({"pose": "joints.csv", "animate": "film.gif", "fps": 100.0}, "--fps: expected"),
        ({"pose": "joints.csv", "animate": "film.mp4", "fps": 0.001}, "--fps: expected"),
        ({"pose": "joints.csv", "source": ()}, "--source: expected at least one picture"),
        ({"pose": "joints.csv", "pose_names": ("x",)}, r"joints\.csv has no row x"),
        ({"pose": "joints.csv", "model": "nowhere"}, "model: there is no .*nowhere"),
        ({"pose": "joints.csv", "device": "tpu"}, "--device: expected"),
        ({"pose": "joints.csv", "source": ("lost.png",)}, "picture: there is no .*lost.png"),
    ],
)
def test_options_that_do_not_go_together_are_refused_and_leave_nothing(place, options, message):
    def located(name, value):
        if name in ("pose", "pose_sequence", "out", "animate", "model") and value is not None:
            return place / value
        return tuple(place / path for path in value) if name in ("pose_from", "source") else value

    before = sorted(place.rglob("*"))
    given = {"out": "results", **options}
    with pytest.raises(UserError, match=message):
        run(place, **{name: located(name, value) for name, value in given.items()})
    assert sorted(place.rglob("*")) == before


def test_a_source_without_joints_is_told_both_ways_to_give_them(place, monkeypatch):
    """Whatever is installed: the extractor cannot be imported here."""

    def not_installed():
        raise UserError("extracting keypoints needs MediaPipe: pip install …")

    monkeypatch.setattr(detection, "_detector", not_installed)
    assert people.detect_joints is detection.detect_joints
    (place / "album" / "photos").mkdir(parents=True)
    Image.new("RGB", (40, 64)).save(place / "album" / "photos" / "me.png")
    with pytest.raises(UserError, match=r"me\.png has no row.*--source-keypoints FILE\.csv.*needs MediaPipe"):
        run(place, source=(place / "album" / "photos" / "me.png",), pose=place / "joints.csv", out=place / "out")


def test_the_command_draws_and_says_where(place):
    command = [
        sys.executable, "-m", "examples.pose_morph.generate", "--model", str(place / "model"), "--source",
        str(place / "a.png"), str(place / "b.jpg"), "--pose-from", str(place / "c.png"), "--out", str(place / "out"),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 pictures and a sheet of them" in done.stdout
    assert len(list((place / "out").iterdir())) == 3
    again = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert again.returncode == 2
    assert "is already there" in again.stdout
    assert "Traceback" not in again.stdout + again.stderr
