"""The evaluation script: its file of scores, its pictures, and refusals before and during the work."""

import hashlib
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import lmdb
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from rich.console import Console

from examples.pose_morph.data.pixels import to_bytes
from examples.pose_morph.data.profiles import read_data
from examples.pose_morph.errors import UserError
from examples.pose_morph.evaluate import evaluate
from examples.pose_morph.evaluation import score_models
from examples.pose_morph.evaluation.candidates import copy_source
from examples.pose_morph.evaluation.held_out import take_held_out
from examples.pose_morph.evaluation.options import ALL, Options, place_of
from examples.pose_morph.evaluation.pairs import answers
from examples.pose_morph.networks.generator import Generator
from examples.pose_morph.networks.settings_json import to_json
from examples.pose_morph.presets import Full, Grid, Level, ModelSettings
from examples.pose_morph.scores.inception import InceptionV3
from examples.pose_morph.scores.protocols import DEFINITIONS, OFFLINE
from examples.pose_morph.scores.ssim import ssim_gaussian
from tests.examples.pose_morph.conftest import write_cfld, write_frames, write_gfla, write_nted, write_single
from tests.examples.pose_morph.scores.known_weights import known_weights

SETTINGS = ModelSettings((64, 64), (Level(4, 4, Grid(downsample=2, cells=(4, 4), kappa=4)), Level(6, 6, Full())))
CHEAP = ("l1", "ssim_gaussian")
"""Protocols without a network, where the test is about something else."""


def write_run(folder: Path, *, seed: int = 0, settings: ModelSettings = SETTINGS) -> Path:
    """Leave a checkpoint as training does; pictures of 64x40 are padded to the model's 64x64."""
    torch.manual_seed(seed)
    weights = {f"module.{name}": value for name, value in Generator(settings).state_dict().items()}
    identity = {"preset": "demo", "seed": seed, "model": to_json(settings), "training": {}}
    folder.mkdir(parents=True)
    saved = {"ema": {**weights, "n_averaged": torch.tensor(1)}, "settings": json.dumps(identity), "step": 3}
    torch.save(saved, folder / "checkpoint.pt")
    return folder


def score(*, said: Console | None = None, **options) -> dict:
    """Evaluate in this process and return the scores' file."""
    options = Options(device="cpu", **options)
    assert evaluate(options, said or Console(quiet=True)) == 0
    place = options.out or options.run[0] / "evaluation" / "metrics.json"
    return json.loads(place.read_text())


def test_every_protocol_is_defined_and_has_one_kind():
    assert set(ALL) == set(DEFINITIONS)
    assert set(OFFLINE) == set(ALL) - {"lpips_alex", "fid_gfla", "fid_tf2015"}


def test_scores_stand_under_their_protocols_with_what_they_depend_on(people, tmp_path):
    run = write_run(tmp_path / "run")
    report = score(run=(run,), data=people, copy_source=True)
    computed = set(OFFLINE) - {"ssim_uniform51"}
    for scores in report["results"].values():
        assert set(scores) == computed
    assert set(report["results"]) == {"run", "copy_source"}
    assert set(report["protocols"]) == computed
    assert report["not_computed"] == {
        "ssim_uniform51": "ssim_uniform51: expected pictures of at least 51 pixels on each side, got 64x40"
    }
    assert "4 generated and 6 real pictures" in report["warnings"][0]
    assert report["models"]["run"]["sha256"] == hashlib.sha256((run / "checkpoint.pt").read_bytes()).hexdigest()
    assert report["data"]["pairs"] == report["data"]["pairs_in_data"] == 4
    names = "".join(
        f"{a},{b}\n"
        for p in range(2)
        for a, b in ((f"test{p}_0.jpg", f"test{p}_1.jpg"), (f"test{p}_1.jpg", f"test{p}_0.jpg"))
    )
    assert report["data"]["names_sha256"] == hashlib.sha256(names.encode()).hexdigest()
    assert report["real"]["pictures"] == 6
    assert "BOX" in report["resizing"]
    assert "PNG" in report["generated_pictures"]
    assert report["weights"]["efficientnet-lite0"]["sha256"].startswith("57934424")
    assert report["versions"]["torch"] == torch.__version__


def test_only_the_picture_inside_its_padding_is_scored(people, tmp_path):
    """Copying the source scores as the stored files do, though the model pads them to a square."""
    report = score(run=(write_run(tmp_path / "run"),), data=people, copy_source=True, protocols=CHEAP)
    data = read_data(people, "test", (64, 40))
    pictures = [data[number].image for number in range(len(data))]
    expected = np.mean([ssim_gaussian(pictures[a], pictures[b]) for a, b in data.pairs.tolist()])
    assert report["results"]["copy_source"]["ssim_gaussian"] == pytest.approx(expected)


def test_saved_pictures_score_the_same_from_their_folder(people, tmp_path):
    run, made = write_run(tmp_path / "run"), tmp_path / "made"
    names = (*CHEAP, "perceptual_efficientnet_lite0", "frechet_efficientnet_lite0")
    first = score(run=(run,), data=people, protocols=names, save_pictures=made)
    assert sorted(path.name for path in made.iterdir())[0] == "test0_0___test0_1.png"
    with Image.open(made / "test0_0___test0_1.png") as picture:
        assert picture.size == (40, 64)
    second = score(
        generated=made, truth=people / "test", real=people / "train", protocols=names, out=tmp_path / "again.json"
    )
    assert second["results"]["generated"] == pytest.approx(first["results"]["run"], rel=1e-5)
    assert second["data"]["formats"] == {"generated": ["png"], "truth": ["jpg"]}


def test_folders_leave_out_what_they_cannot_say(people, tmp_path):
    made = tmp_path / "made"
    made.mkdir()
    for path in (people / "test").iterdir():
        with Image.open(path) as picture:
            picture.save(made / f"{path.stem}.png")
    report = score(generated=made, truth=people / "test", out=tmp_path / "metrics.json")
    assert report["results"]["generated"]["ssim_gaussian"] == 1.0
    assert report["results"]["generated"]["l1"] == 0.0
    assert set(report["not_computed"]) == {"l1_person", "frechet_efficientnet_lite0", "ssim_uniform51"}
    for name, why in (("l1_person", "without keypoints"), ("frechet_efficientnet_lite0", "give --real FOLDER")):
        with pytest.raises(UserError, match=f"--protocols: {name} cannot be computed: .*{why}"):
            score(generated=made, truth=people / "test", out=tmp_path / "other.json", protocols=(name,))
    assert not (tmp_path / "other.json").exists()


def test_fid_runs_with_weights_that_fit_and_its_file_is_hashed(people, tmp_path, monkeypatch):
    def few_features(network, image):  # 2048 take seconds
        assert image.shape[1:] == (3, 299, 299)
        return F.adaptive_avg_pool2d(image, 2).flatten(1)

    monkeypatch.setattr(InceptionV3, "forward", few_features)
    weights = tmp_path / "inception.pth"
    torch.save(known_weights(InceptionV3("torchvision").state_dict()), weights)
    report = score(run=(write_run(tmp_path / "run"),), data=people, protocols=("fid_gfla",), inception_weights=weights)
    assert report["results"]["run"].keys() == {"fid_gfla"}
    assert report["results"]["run"]["fid_gfla"] > 0
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    assert report["weights"] == {"inception": {"file": "inception.pth", "sha256": digest}}
    assert "align_corners off" in report["protocols"]["fid_gfla"]
    assert "4 generated and 6 real pictures" in report["warnings"][0]


def test_protocols_without_their_weights_are_refused_all_at_once(people, tmp_path):
    with pytest.raises(UserError) as caught:
        score(
            run=(write_run(tmp_path / "run"),),
            data=people,
            protocols=("offline", "lpips_alex", "fid_gfla", "fid_tf2015"),
            alexnet_weights=tmp_path / "absent.pth",
        )
    lines = str(caught.value).splitlines()
    assert len(lines) == 5
    assert "lpips_alex needs --alexnet-weights FILE" in lines[1]
    assert f"there is no file {tmp_path / 'absent.pth'}" in lines[1]
    for line, option in zip(lines[2:], ("--lpips", "--inception", "--inception2015"), strict=True):
        assert f"{option}-weights FILE" in line
    assert not (tmp_path / "run" / "evaluation").exists()


def test_a_named_protocol_that_the_pictures_are_too_small_for_is_an_error(people, tmp_path):
    run = write_run(tmp_path / "run")
    with pytest.raises(UserError, match="ssim_uniform51: expected pictures of at least 51 pixels"):
        score(run=(run,), data=people, protocols=("ssim_uniform51", "l1"))
    assert not (run / "evaluation").exists()


def test_one_pair_has_scores_but_no_frechet_distance(people, tmp_path):
    run = write_run(tmp_path / "run")
    names = ("l1", "frechet_efficientnet_lite0")
    with pytest.raises(UserError, match="a Fréchet distance needs at least 2 pictures on each side, got 1 and 6"):
        score(run=(run,), data=people, pairs=1, protocols=names)
    assert not (run / "evaluation").exists()
    report = score(run=(run,), data=people, pairs=1)
    assert "l1" in report["results"]["run"]
    assert "frechet_efficientnet_lite0" not in report["results"]["run"]
    assert "got 1 and 6" in report["not_computed"]["frechet_efficientnet_lite0"]
    assert not report["warnings"]


def test_models_whose_sizes_have_other_pairs_are_not_compared(tmp_path):
    """A data set with a database per size, of which one lacks a picture."""
    data = write_nted(tmp_path / "data", sizes=((64, 44), (128, 88)))
    with lmdb.open(str(data / "128-88"), map_size=2**24) as database, database.begin(write=True) as all_:
        lost = next(key for key, _ in all_.cursor() if key.startswith(b"img") and b"00010000" in key)
        all_.delete(lost)
    sizes = (64, 64), (128, 128)
    runs = [write_run(tmp_path / str(size[0]), settings=replace(SETTINGS, size=size)) for size in sizes]
    with pytest.raises(
        UserError, match=r"other test pairs for pictures of \(128, 128\) \(height, width\) than for \(64, 64\)"
    ):
        score(run=tuple(runs), data=data, protocols=CHEAP, out=tmp_path / "out.json")
    assert not (tmp_path / "out.json").exists()


def test_several_runs_stand_side_by_side(people, tmp_path):
    small = ModelSettings(size=(32, 16), levels=SETTINGS.levels)
    runs = (write_run(tmp_path / "one"), write_run(tmp_path / "two", seed=1, settings=small))
    report = score(
        run=runs,
        data=people,
        grid=2,
        pairs=3,
        protocols=CHEAP,
        out=tmp_path / "out.json",
        save_pictures=tmp_path / "made",
    )
    assert set(report["results"]) == {"one", "two"}
    assert report["results"]["one"] != report["results"]["two"]
    assert report["data"]["pairs"] == 3
    assert report["data"]["pairs_in_data"] == 4
    with Image.open(tmp_path / "comparison.png") as sheet:
        assert sheet.size == (5 * (64 * 3 + 6) + 6, 2 * 24 + 2 * (64 * 3 + 6))
        sheet.load()
    assert {path.name: len(list(path.iterdir())) for path in (tmp_path / "made").iterdir()} == {"one": 3, "two": 3}


def test_models_of_different_sizes_are_said_and_warned_about(people, tmp_path):
    small = ModelSettings(size=(32, 16), levels=SETTINGS.levels)
    runs = (write_run(tmp_path / "one"), write_run(tmp_path / "two", seed=1, settings=small))
    said = Console(record=True, width=200)
    report = score(run=runs, data=people, protocols=CHEAP, out=tmp_path / "out.json", said=said, copy_source=True)
    warning = "scores of different sizes do not compare: one at 64x64, two at 32x16, copy_source at 64x64"
    assert report["warnings"] == [f"{warning} (height x width)"]
    text = said.export_text()
    assert warning in text
    assert "┃  64x64 ┃  32x16 ┃" in text
    assert not score(run=runs[:1], data=people, protocols=CHEAP)["warnings"]


def test_earlier_scores_are_written_over_only_when_asked(people, tmp_path):
    run = write_run(tmp_path / "run")
    options = {"run": (run,), "data": people, "protocols": CHEAP}
    score(**options, grid=1)
    place, sheet = run / "evaluation" / "metrics.json", run / "evaluation" / "comparison.png"
    place.write_text("mine")
    with pytest.raises(UserError, match=r"metrics\.json is already there .* add --overwrite"):
        score(**options)
    assert place.read_text() == "mine"
    assert sheet.exists()
    assert score(**options, overwrite=True)["results"]
    assert not sheet.exists()  # it belonged to the scores that are gone
    with pytest.raises(UserError, match="is already there"):
        score(**options, grid=1)


def test_scores_of_several_models_go_below_runs_and_are_said(people, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    runs = (write_run(tmp_path / "one"), write_run(tmp_path / "two", seed=1))
    said = Console(record=True, width=200)
    options = Options(run=runs, data=people, protocols=CHEAP, device="cpu", grid=1)
    assert evaluate(options, said) == 0
    place = Path("runs") / "pose_morph" / "evaluation"
    assert {path.name for path in place.iterdir()} == {"metrics.json", "comparison.png"}
    assert f"4 pairs scored: {place / 'metrics.json'}" in said.export_text()
    assert place_of(Options(model=(Path("a.safetensors"),))) == place / "metrics.json"
    assert place_of(Options(generated=Path("a"), truth=Path("b"))) == place / "metrics.json"


def test_a_place_that_cannot_be_written_to_is_said_before_the_work(people, tmp_path, monkeypatch):
    monkeypatch.setattr("examples.pose_morph.evaluate.load_candidates", lambda *_: pytest.fail("work was begun"))
    (tmp_path / "file").write_text("")
    for out, message in ((tmp_path / "file" / "metrics.json", "is a file"), (tmp_path, "already there")):
        with pytest.raises(UserError, match=message):
            score(run=(tmp_path / "run",), data=people, out=out)


def test_without_training_pictures_the_frechet_distance_is_left_out(people, tmp_path):
    (people / "fasion-resize-pairs-train.csv").unlink()
    run = write_run(tmp_path / "run")
    report = score(run=(run,), data=people)
    assert "frechet_efficientnet_lite0" not in report["results"]["run"]
    assert "fasion-resize-pairs-train.csv" in report["not_computed"]["frechet_efficientnet_lite0"]
    with pytest.raises(UserError, match="frechet_efficientnet_lite0 cannot be computed"):
        score(run=(run,), overwrite=True, data=people, protocols=("frechet_efficientnet_lite0",))


def test_pairs_that_are_left_out_are_in_the_file(people, tmp_path):
    (people / "test" / "test0_0.jpg").unlink()
    report = score(run=(write_run(tmp_path / "run"),), data=people, protocols=CHEAP)
    assert report["data"]["pairs"] == 2
    assert "1 picture(s) of the pairs are not in the folder: test0_0.jpg" in report["data"]["left_out"][0]


R, G, W = (Path("r"),), Path("g"), Path("w")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "expected --run FOLDER or --model FILE, or --generated FOLDER with --truth FOLDER"),
        ({"run": R, "generated": G, "truth": W}, "expected --run FOLDER"),
        ({"generated": G}, "--generated and --truth: expected both folders, got one"),
        ({"run": R, "pairs": 0}, "--pairs: expected at least 1, got 0"),
        ({"run": R, "batch_size": 0}, "--batch-size: expected at least 1, got 0"),
        ({"generated": G, "truth": W, "grid": 3}, "--grid: goes with --run or --model, not with --generated"),
        ({"run": R}, "model: there is no r"),
    ],
)
def test_options_that_cannot_work_are_refused(people, options, message):
    with pytest.raises(UserError, match=message):
        evaluate(Options(**{"data": people, "protocols": CHEAP, "device": "cpu", **options}), Console(quiet=True))


def test_a_data_folder_that_is_not_there_is_named(tmp_path):
    run = write_run(tmp_path / "run")
    with pytest.raises(UserError, match="data: there is no folder nowhere"):
        score(run=(run,), data=Path("nowhere"), protocols=CHEAP)
    with pytest.raises(UserError, match="--real: there is no folder nowhere"):
        score(run=(run,), protocols=("frechet_efficientnet_lite0",), real=Path("nowhere"))


LAYOUTS = {"gfla": write_gfla, "cfld": write_cfld, "nted": write_nted, "frames": write_frames, "single": write_single}


@pytest.mark.parametrize("profile", ["auto", *LAYOUTS])
def test_every_data_profile_is_scored(tmp_path, profile):
    data = LAYOUTS.get(profile, write_single)(tmp_path / "data")
    run = write_run(tmp_path / "run")
    report = score(
        run=(run,), data=data, profile=profile, pairs=1, grid=1, protocols=CHEAP, save_pictures=tmp_path / "made"
    )
    assert report["results"]["run"]["l1"] > 0
    assert ("tau" in report["task"]) == (profile in ("auto", "single"))
    assert len(list((tmp_path / "made").glob("*.png"))) == 1


def test_models_of_one_name_are_told_apart_by_their_paths(people, tmp_path):
    runs = (write_run(tmp_path / "a" / "run"), write_run(tmp_path / "b" / "run", seed=1))
    report = score(run=runs, data=people, protocols=CHEAP, out=tmp_path / "out.json")
    assert set(report["results"]) == {str(run) for run in runs}
    with pytest.raises(UserError, match="expected different models"):
        score(run=(runs[0], runs[0]), data=people, protocols=CHEAP, out=tmp_path / "other.json")


def test_pictures_without_pairs_are_scored_on_their_tau(people):
    """Each tau hangs on the picture's number, not on the batch that it comes in."""
    data = read_data(people, "test", (64, 64))
    alone = torch.arange(4)
    unpaired = replace(data, pairs=torch.stack([alone, alone], dim=1), paired=False)
    together = take_held_out(unpaired, alone)
    assert torch.equal(take_held_out(unpaired, alone[2:3]).target[0], together.target[2])
    assert not torch.equal(together.source, together.target)
    found = next(answers(copy_source((64, 64)), unpaired, alone, batch_size=4, device=torch.device("cpu")))
    assert torch.equal(found[2].scored.truth, to_bytes(together.target)[2])
    assert torch.equal(found[2].scored.keypoints, together.target_keypoints[2])


def test_pictures_are_not_mixed_into_a_folder_that_has_some(people, tmp_path):
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "old.png").write_text("")
    with pytest.raises(UserError, match=r"--save-pictures: expected a new or empty folder"):
        score(run=(write_run(tmp_path / "run"),), data=people, save_pictures=tmp_path / "made")


def test_a_run_that_stops_half_way_writes_no_scores(people, tmp_path, monkeypatch):
    def stop(*arguments, **settings):
        raise KeyboardInterrupt

    run = write_run(tmp_path / "run")
    monkeypatch.setattr(score_models.Tally, "result", stop)
    with pytest.raises(KeyboardInterrupt):
        score(run=(run,), data=people, protocols=CHEAP)
    assert not (run / "evaluation").exists()


def test_the_command_says_what_is_wrong_without_a_traceback(tmp_path):
    command = [sys.executable, "-m", "examples.pose_morph.evaluate", "--generated", "nowhere", "--truth", str(tmp_path)]
    done = subprocess.run([*command, "--protocols", "l1"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert done.stdout.startswith("--truth: expected pictures")
    assert "Traceback" not in done.stdout + done.stderr
