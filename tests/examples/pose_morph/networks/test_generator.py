"""Generator and discriminator: shapes, gradients, and what attention brings."""

from dataclasses import replace

import pytest
import torch

from examples.pose_morph.networks.attention_names import with_attention
from examples.pose_morph.networks.discriminator import Discriminator
from examples.pose_morph.networks.generator import Generator, draw_pose
from examples.pose_morph.networks.limb_coordinates import MEMBERSHIP, PARTS
from examples.pose_morph.networks.settings import Full, Grid, Level, ModelSettings
from examples.pose_morph.networks.unet import DecoderBlock
from examples.pose_morph.presets import DEMO
from examples.pose_morph.training.losses import r1_penalty

TINY = ModelSettings(
    size=(32, 16),
    levels=(Level(4, 5, Grid(downsample=2, cells=(4, 2), kappa=4)), Level(6, 7, Full())),
    limb_coordinates=True,
    copy_pixels=True,
    sharpness=80.0,
)
PLAIN = replace(TINY, limb_coordinates=False, copy_pixels=False, sharpness=0.0)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def inputs(settings: ModelSettings, standing: torch.Tensor, batch: int = 2):
    """Random pictures and two poses that fit into them."""
    joints = standing / torch.tensor([40.0, 64.0]) * torch.tensor([settings.size[1], settings.size[0]])
    moved = joints + torch.tensor([1.0, -1.0])
    image = torch.rand(batch, 3, *settings.size) * 2 - 1
    return image, *(draw_pose(x.expand(batch, -1, -1), settings) for x in (joints, moved))


@pytest.mark.parametrize("settings", [TINY, PLAIN])
@pytest.mark.parametrize("attention", ["gpa", "full", "no", "nystromformer", "performer"])
def test_the_picture_has_its_shape_and_every_weight_learns(settings, attention, standing):
    settings = with_attention(settings, attention)
    generator = Generator(settings)
    image, first, second = inputs(settings, standing)
    out = generator(image, first, second)
    assert out.shape == (2, 3, 32, 16)
    (out * torch.randn_like(out)).sum().backward()
    assert not [name for name, p in generator.named_parameters() if p.grad is None or p.grad.abs().max() == 0]


@pytest.mark.parametrize("settings", [TINY, PLAIN])
def test_gpa_with_every_key_selected_is_full_attention(settings, standing):
    everything = Level(4, 5, Grid(downsample=2, cells=(4, 2), kappa=16 * 8))
    settings = replace(settings, levels=(everything, settings.levels[1]))
    gpa, full = Generator(settings), Generator(with_attention(settings, "full"))
    full.load_state_dict(gpa.state_dict())
    arguments = inputs(settings, standing)
    torch.testing.assert_close(gpa(*arguments), full(*arguments), atol=1e-5, rtol=1e-4)


def test_the_picture_depends_on_all_three_inputs(standing):
    generator = Generator(TINY)
    image, first, second = inputs(TINY, standing)
    out = generator(image, first, second)
    assert not torch.allclose(out, generator(-image, first, second), atol=1e-3)
    assert not torch.allclose(out, generator(image, second, second), atol=1e-3)
    assert not torch.allclose(out, generator(image, first, first), atol=1e-3)


def test_untrained_limb_coordinates_copy_a_person_into_the_same_pose(standing):
    """With equal poses the attended pixels are nearly the picture, before a single step of training."""
    settings = with_attention(DEMO.model, "full")
    generator = Generator(settings)
    joints = (2 * standing + 0.5)[None]
    pose = draw_pose(joints, settings)
    stripes = torch.sin(torch.arange(128.0) / 5)[:, None].expand(1, 3, 128, 80).contiguous()
    seen = {}
    copy = generator.target_decoder[-1].copy
    copy.register_forward_hook(lambda module, arguments, out: seen.update(out=out))
    with torch.no_grad():
        generator(stripes, pose, pose)
    channels = copy.query.in_features
    copied = seen["out"][:, channels : channels + 3]
    body = pose.coordinates[:, : len(PARTS)].sum(dim=1) > 0.9 * MEMBERSHIP
    error = (copied - stripes).abs().mean(dim=1)[body].mean()
    trivial = (stripes - stripes.mean()).abs().mean(dim=1)[body].mean()
    assert error < 0.3 * trivial


def test_a_decoder_block_joins_the_level_below_with_what_its_encoder_passes_across():
    block = DecoderBlock(below=4, skip=3, channels=5, style_channels=6)
    below, skip, style = torch.randn(1, 4, 4, 4), torch.randn(1, 3, 8, 8), torch.randn(1, 6)
    out, copied = block(below, skip, style, None, None)
    assert out.shape == (1, 5, 8, 8)
    assert copied is None
    for changed in ((-below, skip, style), (below, -skip, style), (below, skip, -style)):
        assert not torch.allclose(out, block(*changed, None, None)[0], atol=1e-2)


def test_styles_are_the_means_of_the_encoders_last_layers(standing):
    generator, means, styles = Generator(TINY), {}, {}
    for name in ("source", "target"):
        getattr(generator, f"{name}_encoder").register_forward_hook(
            lambda module, arguments, out, name=name: means.update({name: out[-1].mean(dim=(2, 3))})
        )
        for block in getattr(generator, f"{name}_decoder"):
            block.register_forward_pre_hook(
                lambda module, arguments, name=name: styles.setdefault(name, []).append(arguments[2])
            )
    generator(*inputs(TINY, standing))
    assert len(styles["source"]) == len(styles["target"]) == 2
    assert all(torch.equal(style, means["source"]) for style in styles["source"])
    both = torch.cat([means["source"], means["target"]], dim=1)
    assert all(torch.equal(style, both) for style in styles["target"])


@pytest.mark.parametrize("settings", [TINY, PLAIN])
def test_keys_and_values_are_made_of_the_source_decoders_features(settings, standing):
    generator, decoded, offered = Generator(settings), [], []
    for source, target in zip(generator.source_decoder, generator.target_decoder, strict=True):
        source.register_forward_hook(lambda module, arguments, out: decoded.append(out[0]))
        target.copy.register_forward_pre_hook(lambda module, arguments: offered.append(arguments[1]))
    image, first, second = inputs(settings, standing)
    generator(image, first, second)
    assert len(decoded) == len(offered) == 2
    for features, source in zip(decoded, offered, strict=True):
        assert torch.equal(source[:, : features.shape[1]], features)
    if settings.limb_coordinates:  # beside them the source's places and pixels
        assert torch.equal(offered[-1][:, features.shape[1] :], torch.cat([first.coordinates, image], dim=1))


def test_a_picture_of_another_size_is_named(standing):
    _, first, second = inputs(TINY, standing)
    with pytest.raises(ValueError, match=r"image: expected size \(32, 16\), got \(32, 32\)"):
        Generator(TINY)(torch.rand(2, 3, 32, 32), first, second)


def test_discriminator_scores_pairs_and_r1_reaches_its_weights(standing):
    discriminator = Discriminator(TINY)
    image, first, second = inputs(TINY, standing, batch=4)
    scores = discriminator(image, first.heatmaps)
    assert scores.shape == (4,)
    assert not torch.allclose(scores, discriminator(image, second.heatmaps))
    penalty = r1_penalty(discriminator, image, first.heatmaps)
    penalty.backward()
    assert penalty > 0
    grown = [name for name, p in discriminator.named_parameters() if p.grad is not None and p.grad.abs().max() > 0]
    assert {"encoder.stem.weight", "conv.weight", "hidden.weight", "score.weight"} <= set(grown)
