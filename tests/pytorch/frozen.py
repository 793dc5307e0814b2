"""Weights, inputs and outputs of every module with parameters, frozen in a file: names, shapes and formulas of today.

``python -m tests.pytorch.frozen`` makes the file anew, where a change of them is meant; CHANGELOG.md then says how old
state dicts are loaded.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import gpa_nd
from examples.pose_morph.networks.discriminator import Discriminator
from examples.pose_morph.networks.generator import Generator, draw_pose
from examples.pose_morph.networks.settings import Full, Grid, Level, ModelSettings
from gpa_nd.nn import CopyAttention, GatedCoarse
from gpa_nd.pyg import GraphAttention, PartitionedGPSConv

FILE = Path(__file__).with_name("frozen.safetensors")
IMAGE = gpa_nd.image(downsample=2, cells=2, kappa=2)
NODES = gpa_nd.audio(downsample=2, cells=3, kappa=2).layout((18,), (18,))
SMALL = ModelSettings(
    size=(32, 16),
    levels=(Level(4, 5, Grid(downsample=2, cells=(4, 2), kappa=4)), Level(6, 7, Full())),
    limb_coordinates=True,
    copy_pixels=True,
)


class OverNodes(nn.Module):
    """A layer for graphs, of one graph whose nodes stand in a row."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        if isinstance(self.layer, GraphAttention):
            return self.layer(x, NODES)
        return self.layer(x, torch.empty(2, 0, dtype=torch.int64), layout=NODES)


class FromJoints(nn.Module):
    """The generator, from where the joints of two poses are."""

    def __init__(self) -> None:
        super().__init__()
        self.generator = Generator(SMALL)

    def forward(self, image: Tensor, *joints: Tensor) -> Tensor:
        return self.generator(image, *(draw_pose(x, SMALL) for x in joints))


def modules() -> dict[str, tuple[nn.Module, tuple[Tensor, ...]]]:
    """Every module by name, and inputs for it, both drawn anew."""
    picture = torch.randn(2, 4, 6, 8)
    joints = torch.rand(2, 2, 18, 2) * 16
    return {
        "CopyAttention": (CopyAttention(4, 3, 4, IMAGE, heads=2, key_channels=6), (picture, torch.randn(2, 3, 6, 8))),
        "GatedCoarse": (GatedCoarse(IMAGE, 5), tuple(torch.randn(3, 2, 2, 6, 8, 5))),
        "GraphAttention": (OverNodes(GraphAttention(6, heads=2, kappa=2)), (torch.randn(18, 6),)),
        "PartitionedGPSConv": (OverNodes(PartitionedGPSConv(6, None, heads=2, kappa=2)), (torch.randn(18, 6),)),
        "Generator": (FromJoints(), (torch.randn(2, 3, 32, 16), *joints)),
        "Discriminator": (Discriminator(SMALL), (torch.randn(1, 3, 32, 16), torch.rand(1, 18, 32, 16))),
    }


def freeze() -> None:
    """Write the file."""
    torch.manual_seed(0)
    tensors: dict[str, Tensor] = {}
    for name, (module, inputs) in modules().items():
        for x in module.parameters():  # some begin as zeros, which would hide what becomes of them
            nn.init.normal_(x)
        tensors |= {f"{name}/weight/{key}": x for key, x in module.state_dict().items()}
        tensors |= {f"{name}/input/{place}": x.contiguous() for place, x in enumerate(inputs)}
        with torch.no_grad():
            tensors[f"{name}/output"] = module.eval()(*inputs).contiguous()
    save_file(tensors, FILE)


def frozen(name: str) -> tuple[dict[str, Tensor], tuple[Tensor, ...], Tensor]:
    """The state dict, the inputs and the output that were frozen under this name."""
    tensors = {key.removeprefix(f"{name}/"): x for key, x in load_file(FILE).items() if key.startswith(f"{name}/")}
    weights = {key.removeprefix("weight/"): x for key, x in tensors.items() if key.startswith("weight/")}
    count = sum(key.startswith("input/") for key in tensors)
    return weights, tuple(tensors[f"input/{place}"] for place in range(count)), tensors["output"]


if __name__ == "__main__":
    freeze()
