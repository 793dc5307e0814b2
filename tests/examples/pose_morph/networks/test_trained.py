"""Models on disk: weights bit for bit, what the header and the card say, and files that cannot be loaded."""

import json

import pytest
import safetensors.torch
import torch

from examples.pose_morph.errors import UserError
from examples.pose_morph.evaluation.held_out import TASKS
from examples.pose_morph.networks.generator import draw_pose
from examples.pose_morph.networks.settings_json import to_json
from examples.pose_morph.networks.trained import CHECKSUM, ModelInfo, checksum_of, load_generator, save_model
from examples.pose_morph.training.checkpoint import save_checkpoint

CPU = torch.device("cpu")
INFO = ModelInfo("demo", steps=7, seed=3, data="stick | figures", licence="CC0-1.0")


def header_of(path) -> dict[str, str]:
    with safetensors.safe_open(path, framework="pt") as file:
        return file.metadata()


def write_weights(path, weights, **header: str) -> None:
    header.pop(CHECKSUM, None)
    safetensors.torch.save_file(weights, path, metadata={**header, CHECKSUM: checksum_of(header, weights)})


def test_a_model_comes_back_bit_for_bit(tmp_path, tiny_generator, standing):
    generator = tiny_generator.to(memory_format=torch.channels_last)
    save_model(tmp_path / "run", generator, info=INFO)
    for path in (tmp_path / "run", tmp_path / "run" / "model.safetensors"):
        loaded = load_generator(path, CPU)
        assert loaded.settings == generator.settings
        assert loaded.info == INFO
        assert not loaded.generator.training
        before, after = generator.state_dict(), loaded.generator.state_dict()
        assert before.keys() == after.keys()
        assert all(torch.equal(before[name], after[name]) for name in before)
    pose = draw_pose(standing[None] / 2.5, generator.settings)
    image = torch.rand(1, 3, 32, 16)
    assert torch.equal(loaded.generator(image, pose, pose), generator(image, pose, pose))


def test_loading_leaves_the_random_numbers_alone(tmp_path, tiny_generator):
    save_model(tmp_path, tiny_generator, info=INFO)
    state = torch.get_rng_state()
    load_generator(tmp_path, CPU)
    assert torch.equal(torch.get_rng_state(), state)


def test_the_header_says_what_the_model_is(tmp_path, tiny_generator):
    save_model(tmp_path, tiny_generator, info=INFO)
    header = header_of(tmp_path / "model.safetensors")
    assert (header["format"], header["format_version"]) == ("gpa_nd.pose_morph", "1")
    assert (header["preset"], header["steps"], header["seed"]) == ("demo", "7", "3")
    assert (header["data"], header["licence"]) == ("stick | figures", "CC0-1.0")
    assert json.loads(header["settings"]) == to_json(tiny_generator.settings)


def test_the_card_says_how_it_was_trained_how_good_it_is_and_what_it_is_not_for(tmp_path, tiny_generator):
    metrics = {"model": {"ssim_gaussian": 0.51234, "odd": float("nan"), "text": "x"}, "steps": 6, "pairs": 4}
    (tmp_path / "metrics.json").write_text(json.dumps(metrics))
    save_model(tmp_path, tiny_generator, info=INFO)
    card = (tmp_path / "README.md").read_text()
    assert "| trained on | stick \\| figures |" in card
    assert "| licence of that data | CC0-1.0 |" in card
    assert "32x16 (height x width)" in card
    assert f"{sum(p.numel() for p in tiny_generator.parameters()):,}" in card
    assert "After 6 steps, over 4 held-out pairs" in card
    (tmp_path / "metrics.json").write_text(json.dumps({**metrics, "task": TASKS[False]}))
    save_model(tmp_path, tiny_generator, info=INFO)
    assert "After 6 steps, over 4 held-out pictures" in (tmp_path / "README.md").read_text()
    assert "| `ssim_gaussian` | 0.5123 |" in card
    assert "`odd`" not in card
    assert "DeepFakes" in card
    assert "python -m examples.pose_morph.generate --model" in card
    assert str(tmp_path) not in card  # where it lay when it was written is nobody's business


def test_a_card_without_scores_says_so(tmp_path, tiny_generator):
    save_model(tmp_path, tiny_generator, info=INFO)
    assert "None were computed" in (tmp_path / "README.md").read_text()
    (tmp_path / "metrics.json").write_text('{"model": [')
    save_model(tmp_path, tiny_generator, info=INFO)
    assert "None were computed" in (tmp_path / "README.md").read_text()


def test_a_checkpoint_gives_its_averaged_generator(tmp_path, tiny_generator):
    averaged = {f"module.{name}": value + 1 for name, value in tiny_generator.state_dict().items()}
    identity = {"preset": "demo", "seed": 5, "model": to_json(tiny_generator.settings)}
    state = {"ema": {"n_averaged": torch.tensor(9), **averaged}, "step": 9, "settings": json.dumps(identity)}
    save_checkpoint(tmp_path / "checkpoint.pt", {**state, "generator": tiny_generator.state_dict()})
    loaded = load_generator(tmp_path, CPU)
    assert (loaded.info.preset, loaded.info.steps, loaded.info.seed) == ("demo", 9, 5)
    for name, value in tiny_generator.state_dict().items():
        assert torch.equal(loaded.generator.state_dict()[name], value + 1)

    with pytest.raises(UserError, match=r"checkpoint\.pt is a checkpoint; give its folder"):
        load_generator(tmp_path / "checkpoint.pt", CPU)
    save_checkpoint(tmp_path / "checkpoint.pt", {"step": 9})
    with pytest.raises(UserError, match=r"checkpoint\.pt is no checkpoint of this program"):
        load_generator(tmp_path, CPU)
    save_checkpoint(tmp_path / "checkpoint.pt", {**state, "settings": json.dumps({**identity, "model": {"depth": 1}})})
    with pytest.raises(UserError, match=r"no checkpoint of this version .*ModelSettings has no depth"):
        load_generator(tmp_path, CPU)


def test_what_is_no_model_is_named_with_what_to_do(tmp_path, tiny_generator):
    with pytest.raises(UserError, match=r"there is no .*nowhere; give the folder of a run"):
        load_generator(tmp_path / "nowhere", CPU)
    with pytest.raises(UserError, match=r"holds neither model\.safetensors nor checkpoint\.pt"):
        load_generator(tmp_path, CPU)

    path = tmp_path / "model.safetensors"
    weights = {"weight": torch.zeros(2)}
    write_weights(path, weights, format="pt")
    with pytest.raises(UserError, match="is no model of this program"):
        load_generator(path, CPU)
    write_weights(path, weights)
    with pytest.raises(UserError, match="is no model of this program"):
        load_generator(path, CPU)
    write_weights(path, weights, format="gpa_nd.pose_morph", format_version="2")
    with pytest.raises(UserError, match="has format version 2, and this program reads 1"):
        load_generator(path, CPU)
    write_weights(path, weights, format="gpa_nd.pose_morph", format_version="1")
    with pytest.raises(UserError, match=r"header of .* cannot be understood \(settings is missing\)"):
        load_generator(path, CPU)


def test_a_model_that_was_cut_short_or_changed_is_refused(tmp_path, tiny_generator):
    save_model(tmp_path, tiny_generator, info=INFO)
    path = tmp_path / "model.safetensors"
    whole, header = path.read_bytes(), header_of(path)
    for kept in (0, 5, 300, len(whole) - 1):
        path.write_bytes(whole[:kept])
        with pytest.raises(UserError, match="is no whole safetensors file"):
            load_generator(path, CPU)

    path.write_bytes(whole)
    weights = safetensors.torch.load_file(path)
    name = next(iter(weights))
    write_weights(path, {**weights, name: torch.zeros(1)}, **header)
    with pytest.raises(UserError, match=r"weights of .* do not fit its settings \(size mismatch"):
        load_generator(path, CPU)
    del weights[name]
    write_weights(path, weights, **header)
    with pytest.raises(UserError, match=r"do not fit its settings \(Missing key"):
        load_generator(path, CPU)
    settings = {**json.loads(header["settings"]), "size": "large"}
    write_weights(path, weights, **{**header, "settings": json.dumps(settings)})
    with pytest.raises(UserError, match=r"settings\.size: expected a list, got 'large'"):
        load_generator(path, CPU)


def test_settings_that_cannot_be_built_are_refused(tmp_path, tiny_generator):
    save_model(tmp_path, tiny_generator, info=INFO)
    path = tmp_path / "model.safetensors"
    header = header_of(path)
    header["settings"] = header["settings"].replace('"kappa": 4', '"kappa": 0')
    write_weights(path, safetensors.torch.load_file(path), **header)
    with pytest.raises(UserError, match=r"nothing can be built from the settings of .*kappa"):
        load_generator(path, CPU)


def test_a_write_that_breaks_leaves_the_old_model(tmp_path, tiny_generator, monkeypatch):
    save_model(tmp_path, tiny_generator, info=INFO)
    before = (tmp_path / "model.safetensors").read_bytes()

    def full_disk(descriptor):
        raise OSError("no space left")

    monkeypatch.setattr("os.fsync", full_disk)
    with pytest.raises((OSError, UserError), match="no space left"):
        save_model(tmp_path, tiny_generator, info=ModelInfo("demo", steps=8, seed=3))
    assert (tmp_path / "model.safetensors").read_bytes() == before
