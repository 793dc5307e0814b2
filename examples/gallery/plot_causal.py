"""
Not looking ahead
=================

Causal attention, strictly: what comes after a moment sways nothing at or before it, the choice of keys included.
"""

import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.cbook import get_sample_data
from matplotlib.colors import ListedColormap
from matplotlib.patches import Patch
from scipy.signal import lfilter

import gpa_nd
from gpa_nd import GPA
from gpa_nd.ops import GridDownsampler
from gpa_nd.partitioners import GridPartitioner

torch.manual_seed(0)

# %%
# What a cell may select
# ----------------------
#
# ``causal=True`` hides from every query the keys after it. That alone would not do: if the later queries of a cell
# helped to choose the keys of its first one, the future would leak through the choice. So
#
# - a cell selects only among groups that end before it begins (grey);
# - the groups that overlap the cell are always on, and masked key by key (orange);
# - keys are ranked for a cell by the queries of the cell before it, which it may know.
#
# Below, each of 12 cells of 16 queries selects κ = 3 of 48 groups of 4 keys. Twelve is their number, not their size:
# a stream that grows must compute ``cells`` from its length, see :doc:`/visibility`. There is no cache of keys, so that
# decoding step by step is not supported.

attention = gpa_nd.audio(downsample=4, cells=12, kappa=3, causal=True)
layout = attention.layout((192,), (192,))
q, k, v = torch.randn(3, 1, 1, 192, 16)
relevant = gpa_nd.select_keys(q, k, layout, kappa=3)[0, 0]
print("relevant keys", tuple(relevant.shape), "of which the last", layout.always.shape[1], "are always on")

groups = torch.arange(48)
start, stop = layout.key_ranges[:, :1], layout.key_ranges[:, 1:]
picture = ((start <= groups) & (groups < stop)).int()
for cell in range(12):
    selected, always = relevant[cell, :3], layout.always[cell]
    picture[cell, selected[selected >= 0]] = 2
    picture[cell, always[always >= 0]] = 3

names = ["hidden", "may be selected", "selected", "always on"]
colours = ["white", "#cccccc", "#0072b2", "#d55e00"]
figure, axis = plt.subplots(figsize=(10, 3.4), layout="constrained")
axis.pcolormesh(picture.flip(0), cmap=ListedColormap(colours), vmin=-0.5, vmax=3.5, edgecolors="#eeeeee", linewidth=0.5)
axis.set(xlabel="group of keys", ylabel="cell", yticks=[0.5, 11.5], yticklabels=["last", "first"])
handles = [Patch(facecolor=colour, edgecolor="grey", label=name) for name, colour in zip(names, colours, strict=True)]
axis.legend(handles=handles, loc="upper right")
plt.show()

# %%
# The future may be anything
# --------------------------
#
# Not a bit of what is heard up to moment 99 changes, whatever comes later, even if it is not a number.

out = attention(q, k, v)
q[:, :, 100:], k[:, :, 100:], v[:, :, 100:] = torch.nan, -9.0, torch.inf
print("unchanged:", out[:, :, :100].equal(attention(q, k, v)[:, :, :100]))

# %%
# A recording while it is made
# ----------------------------
#
# The voltage of a nerve cell, which matplotlib brings along, is heard through noise, which is to be taken out at once.
# Queries and keys are the last 64 samples, of which the latest count most; what a sample becomes is the mean of
# those so far whose past looks alike. Here nobody knows in advance what a spike looks like, and cells are small: 4
# samples, since the queries before a cell must choose for it.

with get_sample_data("membrane.dat") as file:
    voltage = torch.tensor(np.frombuffer(file.read(), dtype=np.float32))
noise = 0.5 * voltage.std()
noisy = voltage + noise * torch.randn(len(voltage))
weight = torch.exp(-torch.arange(64).flip(0) / 16)
past = F.pad(noisy[None], (63, 0), mode="replicate")[0].unfold(0, 64, 1) * weight / weight.norm() / noise


def cleaned(causal: bool) -> torch.Tensor:
    """(time,) each sample as the mean of those that look alike."""
    gpa = gpa_nd.audio(4, len(noisy) // 4, kappa=64, causal=causal, affinity="euclidean", scale=1.0)
    return gpa(past[None, None], past[None, None], noisy[None, None, :, None])[0, 0, :, 0]


def smoothed(share: float) -> torch.Tensor:
    """(time,) the usual way: a share of each sample, and for the rest what was there before."""
    return torch.tensor(lfilter([share], [1, share - 1], noisy - noisy[0]), dtype=torch.float32) + noisy[0]


def decibels(signal: torch.Tensor) -> float:
    """How strong the recording is against what is wrong."""
    return float(10 * (voltage.var() / (signal - voltage).square().mean()).log10())


best = max((smoothed(share) for share in (0.1, 0.2, 0.3, 0.4, 0.5, 0.6)), key=decibels)
signals = {"with noise": noisy, "smoothed, as well as can be": best, "GPA, causal": cleaned(True)}
for name, signal in {**signals, "GPA that looks ahead": cleaned(False)}.items():
    print(f"{name}: {decibels(signal):.1f} dB")

figure, axes = plt.subplots(3, 1, figsize=(10, 5), layout="constrained", sharex=True, sharey=True)
for axis, (name, signal) in zip(axes, signals.items(), strict=True):
    axis.plot(signal[5000:6500], color="#d55e00", linewidth=0.8)
    axis.plot(voltage[5000:6500], color="black", linewidth=0.6)
    axis.set_title(f"{name}: {decibels(signal):.1f} dB", loc="left")
    axis.margins(x=0)
axes[2].set_xlabel("sample; black: without noise")
plt.show()

# %%
# Along one axis of several
# -------------------------
#
# On a grid, say which axes are causal. In video it is time. Where groups and cells hold a single frame, no group is
# always on: those of the same frame end in time, and a cell's queries may rank for themselves. With groups or cells of
# several frames, all groups of these frames are always on, which costs more.

for downsample, cells in (((1, 4, 4), (8, 4, 4)), ((2, 4, 4), (4, 4, 4))):
    video = gpa_nd.video(downsample, cells, kappa=4, causal=(True, False, False))
    layout = video.layout((8, 32, 32), (8, 32, 32))
    always = 0 if layout.always is None else layout.always.shape[1]
    print(f"groups of {downsample}, {cells} cells: {always} of {len(layout.key_groups)} groups are always on")

# %%
# Between two structures
# ----------------------
#
# ``causal=True`` needs queries and keys of one length along the axis. Where they differ, take the layout,
# :func:`gpa_nd.causal` with the position of each query and each key, and :func:`gpa_nd.gpa_attention` on flat tokens.
# Here frames look at a recording: at what was heard until then, the sample of the same moment included, since equal
# positions see each other. Positions are integers. Of moments in seconds, ranks do.

gpa = GPA(GridPartitioner((10, 2, 2)), GridDownsampler((1, 4, 4)), key_downsampler=GridDownsampler(16), kappa=8)
frames, samples = torch.arange(10) / 25, torch.arange(4000) / 10000  # when they are, in seconds
rank = torch.cat([frames.repeat_interleave(16 * 16), samples]).unique(return_inverse=True)[1]
layout = gpa.layout((10, 16, 16), (4000,))
layout = gpa_nd.causal(layout, query_positions=rank[:2560], key_positions=rank[2560:])

q, (k, v) = torch.randn(1, 1, 2560, 16), torch.randn(2, 1, 1, 4000, 16)
video = gpa_nd.gpa_attention(q, k, v, layout, kappa=8).unflatten(2, (10, 16, 16))
k[:, :, samples > frames[5]] = torch.nan
again = gpa_nd.gpa_attention(q, k, v, layout, kappa=8).unflatten(2, (10, 16, 16))
print("frames that stay as they are:", [i for i in range(10) if again[:, :, i].equal(video[:, :, i])])
