"""A source that is read once, and several pictures of one person."""

import pytest
import torch

from examples.pose_morph.networks.attention_names import with_attention
from examples.pose_morph.networks.generator import Generator, draw_pose
from examples.pose_morph.networks.source_features import SourceFeatures, join_sources, repeat_source


@pytest.fixture
def inputs(tiny_generator, standing):
    """Two pictures and poses of one person, and a pose to take."""
    joints = [(standing + shift) / 2.5 for shift in (0.0, 2.0, 4.0)]
    return torch.rand(2, 1, 3, 32, 16), [draw_pose(points[None], tiny_generator.settings) for points in joints]


@pytest.fixture(params=["gpa", "full", "no", "performer"])
def generator(request, tiny_generator):
    """The tiny generator with other attention at its large level."""
    torch.manual_seed(0)
    return Generator(with_attention(tiny_generator.settings, request.param)).eval()


def test_a_source_that_is_read_once_serves_many_poses(generator, inputs):
    (image, _), (own, first, second) = inputs
    source = generator.read_source(image, own)
    expected = [generator(image, own, pose) for pose in (first, second)]
    assert torch.equal(generator.draw(source, first), expected[0])
    poses = type(first)(*(torch.cat(maps) for maps in zip(first, second, strict=True)))
    drawn = generator.draw(repeat_source(source, 2), poses)
    torch.testing.assert_close(drawn, torch.cat(expected), atol=1e-5, rtol=1e-4)


def test_a_picture_joined_with_itself_changes_nothing_under_dense_attention(tiny_generator, inputs):
    generator = Generator(with_attention(tiny_generator.settings, "full")).eval()
    (image, _), (own, other, _) = inputs
    source = generator.read_source(image, own)
    twice = join_sources([source, source])
    torch.testing.assert_close(generator.draw(twice, other), generator.draw(source, other), atol=1e-5, rtol=1e-4)


def test_every_one_of_joined_pictures_is_seen_and_their_order_does_not_matter(generator, inputs):
    images, poses = inputs
    read = [generator.read_source(image, pose) for image, pose in zip(images, poses[:2], strict=True)]
    together = generator.draw(join_sources(read), poses[2])
    for source in read:
        assert not torch.allclose(together, generator.draw(source, poses[2]), atol=1e-3)
    torch.testing.assert_close(generator.draw(join_sources(read[::-1]), poses[2]), together, atol=1e-4, rtol=1e-3)


def test_levels_without_attention_stay_without():
    one = SourceFeatures(torch.zeros(1, 2), (torch.zeros(1, 3, 4, 2), None))
    joined = join_sources([one, one, one])
    assert joined.offered[0].shape == (1, 3, 4, 6)
    assert joined.offered[1] is None
    assert repeat_source(joined, 5).offered[1] is None
