"""Networks against their originals: names, shapes, and outputs that torchvision, pytorch-fid and lpips gave.

The expected numbers were computed once with torchvision 0.28, pytorch-fid 0.3 and lpips 0.1.4, from weights by formula.
"""

import hashlib
from pathlib import Path

import pytest
import torch

from examples.pose_morph.errors import UserError
from examples.pose_morph.scores.fid import InceptionFeatures
from examples.pose_morph.scores.inception import InceptionV3
from examples.pose_morph.scores.lpips import LPIPS, AlexNet, LinearLayers
from examples.pose_morph.scores.perceptual import VGG19, EfficientNetLite0, make_extractor
from examples.pose_morph.scores.undefined import UndefinedScore
from tests.examples.pose_morph.scores.known_weights import known_picture, known_weights

PICTURES = torch.stack([known_picture(), known_picture(step=91)])


def save(path: Path, state: dict[str, torch.Tensor]) -> Path:
    torch.save(state, path)
    return path


def inception_state(version: str = "torchvision") -> dict[str, torch.Tensor]:
    """The features' weights, and the classifiers that the published files hold beside them."""
    state = known_weights(InceptionV3(version).state_dict())
    return {**state, "fc.weight": torch.zeros(2, 2), "AuxLogits.conv0.conv.weight": torch.zeros(1)}


def lpips_files(folder: Path) -> tuple[Path, Path]:
    alexnet = known_weights(AlexNet().state_dict())
    linear = {name: value.abs() for name, value in known_weights(LinearLayers().state_dict()).items()}
    return (
        save(folder / "alexnet.pth", {**alexnet, "classifier.1.weight": torch.zeros(1)}),
        save(folder / "linear.pth", linear),
    )


def test_inception_has_torchvisions_names_shapes_and_count():
    network = InceptionV3("torchvision")
    names = sorted(f"{name}{tuple(value.shape)}" for name, value in network.state_dict().items())
    digest = hashlib.sha256("\n".join(names).encode()).hexdigest()
    assert digest == "b4d39a0db15a8af238a11c59e305890c7d80286f1cd8bc2bd9847bf9189f7d28"
    auxiliary, classifier = 98_560 + 2_459_136 + 769_000, 2_049_000
    assert sum(parameter.numel() for parameter in network.parameters()) == 27_161_264 - auxiliary - classifier


@pytest.mark.parametrize(
    ("version", "mean", "deviation"),
    [("torchvision", 0.34239301, 0.81248146), ("tf2015", 0.37433565, 0.90544510)],
)
def test_inception_features_are_the_originals(tmp_path, version, mean, deviation):
    features = InceptionFeatures(version, save(tmp_path / "inception.pth", inception_state(version)))
    with torch.no_grad():
        pooled = features(PICTURES)
    assert pooled.shape == (2, 2048)
    assert pooled.mean().item() == pytest.approx(mean, rel=1e-4)
    assert pooled.std().item() == pytest.approx(deviation, rel=1e-4)
    assert not any(parameter.requires_grad for parameter in features.parameters())
    assert not features.network.training


def test_weights_without_counters_fit(tmp_path):
    """Files from before PyTorch 0.4.1 have no num_batches_tracked."""
    state = {name: value for name, value in inception_state().items() if not name.endswith("num_batches_tracked")}
    network = InceptionFeatures("torchvision", save(tmp_path / "old.pth", state)).network
    assert torch.equal(network.Mixed_7c.branch1x1.bn.bias, state["Mixed_7c.branch1x1.bn.bias"])


def test_lpips_is_the_originals(tmp_path):
    a, b = (PICTURES.float() / 127.5 - 1).split(1)
    distance = LPIPS(*lpips_files(tmp_path))
    assert distance(a, b).item() == pytest.approx(0.30604520, rel=1e-4)
    assert distance(a, a).item() == 0.0
    assert distance(torch.cat([a, b]), torch.cat([b, a])).shape == (2,)
    with pytest.raises(UndefinedScore, match="lpips_alex: expected at least 31 pixels on each side, got 30x64"):
        distance(torch.zeros(1, 3, 30, 64), torch.zeros(1, 3, 30, 64))
    assert distance(torch.zeros(1, 3, 31, 31), torch.zeros(1, 3, 31, 31)).item() == 0.0


def test_lpips_linear_layers_have_the_files_names():
    shapes = {name: tuple(value.shape) for name, value in LinearLayers().state_dict().items()}
    channels = (64, 192, 384, 256, 256)
    assert shapes == {f"lin{index}.model.1.weight": (1, width, 1, 1) for index, width in enumerate(channels)}


def test_vgg_features_are_the_originals(tmp_path):
    state = known_weights(VGG19().state_dict())
    later = {"classifier.0.weight": torch.zeros(1), "features.34.bias": torch.zeros(512)}
    extractor = make_extractor("vgg19", save(tmp_path / "vgg19.pth", {**state, **later}))
    maps = extractor(PICTURES.float() / 127.5 - 1)
    assert [tuple(features.shape[1:]) for features in maps] == [
        (64, 64, 48), (128, 32, 24), (256, 16, 12), (512, 8, 6), (512, 4, 3),
    ]  # fmt: skip
    expected = [0.23612851, 0.03293305, 0.03266772, 0.03274620, 0.03230365]
    assert [features.mean().item() for features in maps] == pytest.approx(expected, rel=1e-4)
    assert not any(parameter.requires_grad for parameter in extractor.parameters())
    assert sum(parameter.numel() for parameter in extractor.parameters()) == 20_024_384 - 3 * (512 * 512 * 9 + 512)


def test_extractors_by_name(tmp_path):
    assert isinstance(make_extractor("efficientnet-lite0"), EfficientNetLite0)
    with pytest.raises(
        UserError, match=r"--feature-weights: vgg19 needs a file, torchvision's VGG-19 .* not downloaded"
    ):
        make_extractor("vgg19")
    with pytest.raises(UserError, match=r"efficientnet-lite0 brings its own weights; leave out some.pth"):
        make_extractor("efficientnet-lite0", Path("some.pth"))


def test_wrong_files_are_named_with_what_they_lack(tmp_path):
    with pytest.raises(UserError, match=r"--inception-weights: there is no file .*absent.pth; expected torchvision's"):
        InceptionFeatures("torchvision", tmp_path / "absent.pth")
    (tmp_path / "page.pth").write_text("<html>not found</html>")
    with pytest.raises(UserError, match=r"page.pth cannot be read as weights .*pt_inception-2015-12-05-6726825d.pth"):
        InceptionFeatures("tf2015", tmp_path / "page.pth")
    alexnet, linear = lpips_files(tmp_path)
    with pytest.raises(
        UserError, match=r"--lpips-weights: .* 5 of 5 entries are missing: lin0.model.1.weight.* belong"
    ):
        LPIPS(alexnet, alexnet)
    state = torch.load(alexnet, weights_only=True)
    del state["features.10.bias"]
    state["features.0.weight"] = torch.zeros(64, 1, 11, 11)
    with pytest.raises(UserError) as caught:
        LPIPS(save(tmp_path / "odd.pth", state), linear)
    assert "1 of 10 entries are missing: features.10.bias" in str(caught.value)
    assert "features.0.weight is (64, 1, 11, 11) and not (64, 3, 11, 11)" in str(caught.value)
    with pytest.raises(UserError, match="holds no table of names and tensors"):
        LPIPS(save(tmp_path / "run.pth", {"state_dict": state}), linear)
