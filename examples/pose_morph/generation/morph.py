"""Draw people in poses."""

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from examples.pose_morph.data.pixels import to_image
from examples.pose_morph.data.pose_data import fit, region_of
from examples.pose_morph.generation.people import Person
from examples.pose_morph.networks.generator import Generator, draw_pose
from examples.pose_morph.networks.source_features import SourceFeatures, join_sources, repeat_source

POSES_AT_ONCE = 4


def read_sources(generator: Generator, people: Sequence[Person]) -> SourceFeatures:
    """Let the source UNet read pictures of one person; several are joined, see `join_sources`."""
    device = next(generator.parameters()).device
    features = []
    with torch.inference_mode():
        for person in people:
            image, keypoints = fit(person.picture, person.keypoints, generator.settings.size)
            pose = draw_pose(keypoints[None].to(device), generator.settings)
            features.append(generator.read_source(to_image(image)[None].to(device), pose))
        return join_sources(features)


def draw_poses(
    generator: Generator, source: SourceFeatures, poses: Float[Tensor, "p 18 2"]
) -> Iterator[Float[Tensor, "3 h w"]]:
    """Yield the person in every pose (joints in the networks' frame), a few at a time."""
    device = source.style.device
    for some in poses.split(POSES_AT_ONCE):
        with torch.inference_mode():
            drawn = generator.draw(repeat_source(source, len(some)), draw_pose(some.to(device), generator.settings))
        yield from drawn.cpu()


def without_padding(picture: Image.Image, original: tuple[int, int]) -> Image.Image:
    """Cut off what `fit` padded a picture of ``original`` height and width with."""
    top, left, height, width, _ = region_of(original, (picture.height, picture.width))
    return picture.crop((left, top, left + width, top + height))
