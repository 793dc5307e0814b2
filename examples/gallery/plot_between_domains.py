"""
From a picture to a recording
=============================

Queries and keys may live on different structures. Here the pixels of a picture learn where in a recording to listen.
"""

import math

import matplotlib.pyplot as plt
import torch
from torch import nn

from gpa_nd import GPA
from gpa_nd.nn import CopyAttention
from gpa_nd.ops import GridDownsampler
from gpa_nd.partitioners import GridPartitioner

torch.manual_seed(0)

# %%
# The task
# --------
#
# A recording of 2,048 samples is wound up into a picture of 48 × 64 pixels: along a spiral and its mirror image, each
# pixel shows the sample of its moment. Samples carry a time code, and so do pixels, but in another language: both codes
# are mixed by random matrices. The network must learn to translate, from nothing but the wanted picture.

HEIGHT, WIDTH, SAMPLES = 48, 64, 2048

time = torch.linspace(0, 1, SAMPLES)
recording = torch.sin(16 * math.pi * time**2) * (0.4 + 0.6 * torch.cos(3 * math.pi * time) ** 2)

y, x = torch.meshgrid(torch.linspace(-1, 1, HEIGHT), torch.linspace(-1.3, 1.3, WIDTH), indexing="ij")
turns = 1.6 * (x**2 + y**2).sqrt() + torch.atan2(y, x).abs() / math.pi
moment = (turns - turns.min()) / (turns.max() - turns.min())
wanted = recording[(moment * (SAMPLES - 1)).long()]


def time_code(moments: torch.Tensor) -> torch.Tensor:
    """(12, …) sines and cosines of moments in 0 … 1, mixed as nobody else mixes them."""
    angles = torch.stack([moments * math.pi * 2**i for i in range(6)])
    return torch.einsum("ij,j...->i...", torch.randn(12, 12) / 12**0.5, torch.cat([angles.sin(), angles.cos()]))


pixels = time_code(moment)[None]
sounds = torch.cat([time_code(time), recording[None]])[None]
print("target (batch, channels, height, width):", tuple(pixels.shape))
print("source (batch, channels, time):         ", tuple(sounds.shape))

# %%
# Attention from a grid of two axes to one of one axis
# ----------------------------------------------------
#
# Queries are grouped by 4 × 4 pixels, keys by 16 samples: the factors have nothing to do with each other. Each of 6 × 8
# cells of pixels keeps 6 of the 128 groups of samples.

gpa = GPA(GridPartitioner((6, 8)), GridDownsampler((4, 4)), key_downsampler=GridDownsampler((16,)), kappa=6, scale=1.0)


class Listener(nn.Module):
    """Each pixel copies from the sounds that it attends to."""

    def __init__(self) -> None:
        super().__init__()
        self.copy = CopyAttention(12, 13, 8, gpa, key_channels=32)
        self.paint = nn.Conv2d(8, 1, 1)

    def forward(self, target: torch.Tensor, source: torch.Tensor) -> torch.Tensor:
        """(1, channels, height, width) and (1, channels, time) to (height, width)."""
        copied = self.copy(target, source)[:, 12:]  # concatenated after the target's channels
        return self.paint(copied)[0, 0]


listener = Listener()
optimizer = torch.optim.Adam(listener.parameters(), lr=1e-2)
shown, losses = {}, []
for step in range(301):
    painted = listener(pixels, sounds)
    loss = (painted - wanted).square().mean()
    losses.append(loss.item() / wanted.var().item())
    if step in (0, 60, 300):
        shown[step] = painted.detach()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
print(f"unexplained share of the picture: {losses[0]:.2f} at first, {losses[-1]:.3f} after {len(losses) - 1} steps")

# %%
# What it paints, and where it listens
# ------------------------------------

figure, axes = plt.subplots(1, 4, figsize=(13, 3), layout="constrained")
pictures = {"wanted": wanted, **{f"after {step} steps": picture for step, picture in shown.items()}}
for axis, (title, picture) in zip(axes, pictures.items(), strict=True):
    axis.imshow(picture, vmin=-1, vmax=1, cmap="RdBu")
    axis.set(title=title, xticks=[], yticks=[])
plt.show()
