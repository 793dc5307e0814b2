"""The paper's presets against its tables 2, 3 and 4, written out here."""

from dataclasses import replace

import pytest
import torch

from examples.pose_morph.dry_run import dry_run
from examples.pose_morph.networks.attention import FullAttention
from examples.pose_morph.networks.attention_names import attention_name, with_attention
from examples.pose_morph.networks.discriminator import Discriminator
from examples.pose_morph.networks.generator import Generator
from examples.pose_morph.networks.settings import Grid
from examples.pose_morph.presets import DEEPFASHION256, HIGHRES512, PRESETS
from gpa_nd import GPA
from gpa_nd.nn import CopyAttention

# Spatial size, channels, attention type, GPA downsampling d; layer 1 first, as printed.
TABLE_2 = """
8×8 640 full -
16×16 640 full -
32×32 640 full -
64×64 640 full -
128×128 320 GPA 2
256×256 160 GPA 4
"""
TABLE_3 = """
256×256 160
128×128 320
64×64 640
32×32 640
16×16 640
8×8 640
"""
TABLE_4 = """
16×8 768 full -
32×16 768 full -
64×32 768 full -
128×64 512 GPA 2
256×128 256 GPA 4
512×256 128 GPA 8
"""


def rows(table: str) -> list[list[str]]:
    return [line.split() for line in table.strip().splitlines()]


def build(preset):
    with torch.device("meta"):
        return Generator(preset.model), Discriminator(preset.model)


@pytest.mark.parametrize(
    ("preset", "table", "cells", "kappa"),
    [(DEEPFASHION256, TABLE_2, (32, 32), 12), (HIGHRES512, TABLE_4, (64, 32), 4)],
    ids=["table 2", "table 4"],
)
def test_decoders_have_the_channels_sizes_and_attention_of_the_paper(preset, table, cells, kappa):
    generator, _ = build(preset)
    decoders = zip(
        rows(table), reversed(preset.model.sizes), generator.source_decoder, generator.target_decoder, strict=True
    )
    for (size, channels, kind, factor), level_size, source, target in decoders:
        assert size == "{}×{}".format(*level_size)
        assert source.merge.bias.numel() == target.merge.bias.numel() == int(channels)
        assert isinstance(target.copy, CopyAttention)
        assert target.copy.query.in_features == target.copy.value.out_features == int(channels)
        attention = target.copy.attention
        if kind == "full":
            assert isinstance(attention, FullAttention)
        else:
            assert isinstance(attention, GPA)
            layout = attention.layout(level_size, level_size)
            assert attention.kappa == kappa
            assert attention.partitioner.cells_per_axis == cells
            assert attention.downsampler.factor == int(factor)
            assert len(layout.fine_cells) == cells[0] * cells[1]


def test_encoder_and_discriminator_have_the_channels_of_table_3():
    generator, discriminator = build(DEEPFASHION256)
    sizes = ["{}×{}".format(*size) for size in DEEPFASHION256.model.sizes]
    assert [row[0] for row in rows(TABLE_3)] == sizes
    channels = [int(row[1]) for row in rows(TABLE_3)]
    for encoder in (generator.source_encoder, generator.target_encoder, discriminator.encoder):
        found = [*(block.conv.bias.numel() for block in encoder.blocks), encoder.last.bias.numel()]
        assert found == channels
    image = torch.empty(1, 21, 256, 256, device="meta")
    assert [f"{x.shape[2]}×{x.shape[3]}" for x in discriminator.encoder(image)] == sizes


def test_presets_bear_the_papers_names():
    names = {name: attention_name(preset.model) for name, preset in PRESETS.items()}
    assert names["deepfashion256"] == "GPA1024_12_64"
    assert names["highres512"] == "GPA2048_4_64"
    for preset in PRESETS.values():
        assert with_attention(preset.model, attention_name(preset.model)) == preset.model


def test_the_no_ablation_keeps_attention_where_the_paper_keeps_it():
    with torch.device("meta"):
        generator = Generator(with_attention(DEEPFASHION256.model, "no"))
    assert [block.copy is not None for block in generator.target_decoder] == [True] * 4 + [False] * 2


@pytest.mark.parametrize("preset", [DEEPFASHION256, HIGHRES512], ids=["table 2", "table 4"])
def test_the_papers_networks_run_forward_and_backward(preset):
    """Every weight, level and factor d of the paper, on a picture of a sixteenth of its area.

    At the paper's size a pass takes a minute or more on one core: ``python -m examples.pose_morph.plan --dry-run cpu``.
    """
    height, width = (side // 4 for side in preset.model.size)
    levels = tuple(
        replace(level, attention=replace(kind, cells=(kind.cells[0] // 4, kind.cells[1] // 4)))
        if isinstance(kind := level.attention, Grid)
        else level
        for level in preset.model.levels
    )
    taken = dry_run(replace(preset.model, size=(height, width), levels=levels), 1, torch.device("cpu"))
    assert taken.seconds > 0
