"""The weights that are reported are those that the generator copies with."""

from dataclasses import replace

import pytest
import torch

from examples.pose_morph.errors import UserError
from examples.pose_morph.networks.attention import CosineAttention
from examples.pose_morph.networks.attention_names import with_attention
from examples.pose_morph.networks.copy_weights import find_level, recorded
from examples.pose_morph.networks.generator import Generator, draw_pose
from examples.pose_morph.networks.settings import Full, Grid, Level, ModelSettings

SMALL = ModelSettings(
    size=(32, 16),
    levels=(Level(4, 5, Grid(downsample=2, cells=(4, 2), kappa=3)), Level(6, 7, Full())),
    limb_coordinates=True,
    sharpness=8.0,
)


def levels_of(settings: ModelSettings, standing: torch.Tensor):
    """The attention of every level in one call, with the values and the result of each."""
    torch.manual_seed(0)
    generator = Generator(settings)
    joints = torch.stack([standing, standing + 2]) * torch.tensor([16 / 40, 32 / 64])
    poses = (draw_pose(points, settings) for points in (joints, joints.flip(0)))
    seen = []
    for block in generator.target_decoder:
        if block.copy is not None:
            module = block.copy.attention
            module = module.attention if isinstance(module, CosineAttention) else module
            module.register_forward_hook(lambda module, arguments, out: seen.append((arguments[2], out)))
    with torch.no_grad(), recorded(generator) as levels:
        generator(torch.rand(2, 3, 32, 16), *poses)
    return levels, seen


@pytest.mark.parametrize("sharpness", [0.0, 8.0])
@pytest.mark.parametrize("attention", ["gpa", "full"])
def test_weights_times_values_are_what_is_copied(attention, sharpness, standing):
    levels, seen = levels_of(with_attention(replace(SMALL, sharpness=sharpness), attention), standing)
    assert [(level.name, level.kind) for level in levels] == [("16x8", "full"), ("32x16", attention)]
    for level, (values, out) in zip(levels, seen, strict=True):
        queries = torch.randperm(level.size[0] * level.size[1])[:50]
        copied = level.weights(queries) @ values.flatten(2, 3)[:, 0]
        torch.testing.assert_close(copied, out.flatten(2, 3)[:, 0, queries], atol=1e-5, rtol=1e-4)


def test_selected_are_the_keys_under_the_relevant_coarse_keys(standing):
    small, large = levels_of(replace(SMALL, sharpness=2000.0), standing)[0]
    assert small.selected(torch.arange(5)).all()
    queries = torch.arange(0, 512, 7)
    selected = large.selected(queries)
    assert (selected.sum(-1) == 3 * 4).all()  # kappa groups of 2x2
    answered = large.weights(queries) > 0
    assert (answered <= selected).all()
    assert answered.sum() < selected.sum()  # a softmax so sharp rounds some of their weights to zero


def test_nothing_is_recorded_afterwards(standing):
    levels, _ = levels_of(SMALL, standing)
    generator = Generator(SMALL)
    with recorded(generator):
        pass
    assert not any(module._forward_pre_hooks for module in generator.modules())
    assert len(levels) == 2


@pytest.mark.parametrize("attention", ["performer", "nystromformer"])
def test_an_approximation_without_weights_is_named(attention, standing):
    small, large = levels_of(with_attention(SMALL, attention), standing)[0]
    assert (small.has_weights, large.has_weights) == (True, False)
    with pytest.raises(UserError, match=r"the attention at 32x16 is \w+, which has no weights of single keys"):
        large.weights(torch.arange(3))


def test_a_level_is_found_by_its_resolution(standing):
    levels, _ = levels_of(SMALL, standing)
    assert find_level(levels, "last") is levels[1]
    assert find_level(levels, "16x8") is levels[0]
    with pytest.raises(UserError, match=r"layer: expected last or one of 16x8, 32x16, .* got 8x8"):
        find_level(levels, "8x8")
