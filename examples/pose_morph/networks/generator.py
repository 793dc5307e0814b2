"""The paper's generator (Fig. 4 and 12): two UNets, and attention that copies from one decoder to the other."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from examples.pose_morph.data.pose import JOINTS, heatmaps
from examples.pose_morph.networks import limb_coordinates
from examples.pose_morph.networks.attention import make_attention
from examples.pose_morph.networks.settings import Level, ModelSettings
from examples.pose_morph.networks.source_features import SourceFeatures
from examples.pose_morph.networks.stylegan2 import upsample_rgb
from examples.pose_morph.networks.unet import IMAGE, DecoderBlock, Encoder, ToRGB
from gpa_nd.nn import CopyAttention


class Pose(NamedTuple):
    """What the networks see of a pose: heatmaps (B1 or B2 in the paper) and, if the preset asks, limb coordinates."""

    heatmaps: Float[Tensor, "b 18 h w"]
    coordinates: Float[Tensor, "b c h w"] | None


def draw_pose(keypoints: Float[Tensor, "b 18 2"], settings: ModelSettings) -> Pose:
    """Draw a pose as the networks of ``settings`` see it."""
    coordinates = limb_coordinates.limb_coordinates(keypoints, settings.size) if settings.limb_coordinates else None
    return Pose(heatmaps(keypoints, settings.size), coordinates)


def _known(pose: Pose) -> list[Tensor]:
    return [maps for maps in pose if maps is not None]


def shrink(x: Float[Tensor, "b c h w"], size: tuple[int, int]) -> Float[Tensor, "b c h2 w2"]:
    """Average ``x`` over whole blocks of pixels down to ``size``."""
    block = x.shape[-2] // size[0]
    return x if block == 1 else F.avg_pool2d(x, block)


def key_channels(level: Level, settings: ModelSettings) -> int:
    """Return the channels of queries and keys at ``level``: learned ones, and the place on the body if it is joined."""
    return (settings.key_channels or level.channels) + (limb_coordinates.CHANNELS if settings.limb_coordinates else 0)


class Generator(nn.Module):
    """G(M1, B1, B2): the person of picture M1, who stands in pose B1, standing in pose B2."""

    def __init__(self, settings: ModelSettings) -> None:
        """Build both UNets from the levels of ``settings`` (largest first)."""
        super().__init__()
        self.settings = settings
        levels = settings.levels
        encoder = tuple(level.encoder_channels for level in levels)
        style = 2 * encoder[-1]
        pose = len(JOINTS) + (limb_coordinates.CHANNELS if settings.limb_coordinates else 0)
        self.source_encoder = Encoder(IMAGE + pose, encoder)
        self.target_encoder = Encoder(pose, encoder)
        self.source_decoder, self.target_decoder, self.to_rgb = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        below: int | None = None
        for level, size in zip(reversed(levels), reversed(settings.sizes), strict=True):
            skip = level.encoder_channels
            copy = self._copy_attention(level, size)
            if copy is not None:  # the source decoder goes as far as somebody reads from it
                self.source_decoder.append(DecoderBlock(below, skip, level.channels, encoder[-1]))
            self.target_decoder.append(DecoderBlock(below, skip, level.channels, style, copy))
            copies = copy is not None and settings.copy_pixels
            self.to_rgb.append(ToRGB(level.channels, style, copies=copies))
            below = level.channels

    def _copy_attention(self, level: Level, size: tuple[int, int]) -> CopyAttention | None:
        settings, place = self.settings, limb_coordinates.CHANNELS if self.settings.limb_coordinates else 0
        key = key_channels(level, settings)
        attention = make_attention(level.attention, size=size, key_channels=key, sharpness=settings.sharpness)
        if attention is None:
            return None
        pixels = IMAGE if settings.copy_pixels else 0
        target, source = level.channels + place, level.channels + place + pixels
        copy = CopyAttention(target, source, level.channels, attention, key_channels=key)
        with torch.no_grad():
            for layer in (copy.query, copy.key, copy.value):
                layer.bias.zero_()
            if place:
                # Query and key begin as the place on the body, plus a little of the learned features.
                for layer in (copy.query, copy.key):
                    layer.weight[:place] = 0.0
                    layer.weight[:, level.channels : level.channels + place] = torch.eye(key, place)
                    layer.weight[place:, : level.channels] *= 0.1
            if pixels:  # the first values begin as the source's pixels
                copy.value.weight[:pixels] = 0.0
                copy.value.weight[:pixels, -pixels:] = torch.eye(pixels)
        return copy

    def forward(
        self, image: Float[Tensor, "b 3 h w"], source_pose: Pose, target_pose: Pose
    ) -> Float[Tensor, "b 3 h w"]:
        """Return the picture, in about [-1, 1] as the input; all three inputs have the size of the settings."""
        return self.draw(self.read_source(image, source_pose), target_pose)

    def read_source(self, image: Float[Tensor, "b 3 h w"], pose: Pose) -> SourceFeatures:
        """Return what the target UNet sees of the source; it serves any number of target poses."""
        if image.shape[-2:] != self.settings.size:
            raise ValueError(f"image: expected size {self.settings.size}, got {tuple(image.shape[-2:])}")
        skips = self.source_encoder(torch.cat([image, *_known(pose)], dim=1))
        style = skips[-1].mean(dim=(2, 3))
        features, offered = None, []
        for depth, block in enumerate(self.target_decoder):
            if block.copy is None:
                offered.append(None)
                continue
            features, _ = self.source_decoder[depth](features, skips[-1 - depth], style, None, None)
            offered.append(self._offer(features, image, pose))
        return SourceFeatures(style, tuple(offered))

    def draw(self, source: SourceFeatures, target_pose: Pose) -> Float[Tensor, "b 3 h w"]:
        """Return the picture of the source's person in the target pose."""
        skips = self.target_encoder(torch.cat(_known(target_pose), dim=1))
        style = torch.cat([source.style, skips[-1].mean(dim=(2, 3))], dim=1)
        features = rgb = None
        for depth, (block, to_rgb) in enumerate(zip(self.target_decoder, self.to_rgb, strict=True)):
            skip, place = skips[-1 - depth], None
            if block.copy is not None and target_pose.coordinates is not None:
                place = shrink(target_pose.coordinates, skip.shape[-2:])
            features, copied = block(features, skip, style, source.offered[depth], place)
            rgb = to_rgb(None if rgb is None else upsample_rgb(rgb), features, style, copied)
        return rgb

    def _offer(self, source: Tensor, image: Tensor, pose: Pose) -> Float[Tensor, "b c h w"]:
        """Return what keys and values are made of at a level: features, then places on the body, then pixels."""
        parts, size = [source], source.shape[-2:]
        if pose.coordinates is not None:
            parts.append(shrink(pose.coordinates, size))
        if self.settings.copy_pixels:
            parts.append(shrink(image, size))
        return torch.cat(parts, dim=1)
