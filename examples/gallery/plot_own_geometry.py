"""
Add your own geometry
=====================

A geometry is two functions that return a :class:`~gpa_nd.Partition`: which elements form a group, and which groups
form a cell. Here they are written for a hexagonal grid, which the library does not know. Nothing else has to change:
the laws can be tested, and attention runs on every backend.
"""

import matplotlib.pyplot as plt
import numpy as np
import torch
from scipy import ndimage
from skimage import data

from gpa_nd import GPA, Partition, select_keys, testing
from gpa_nd.ops import Downsampler
from gpa_nd.partitioners import Partitioner

# %%
# The structure
# -------------
#
# A hexagon is named by two *axial* coordinates. A hexagon and its six neighbours form a flower, and the centres of all
# flowers form a hexagonal grid again, √7 times as wide. So one function gives the groups of hexagons and the cells of
# groups.

BASIS = torch.tensor([[2.0, 1.0], [-1.0, 3.0]])  # from one centre to the next


def hexagon(radius: int) -> torch.Tensor:
    """Axial coordinates (n, 2) of all hexagons within ``radius`` steps of the centre."""
    q, r = torch.meshgrid(*[torch.arange(-radius, radius + 1)] * 2, indexing="ij")
    return torch.stack([q, r], -1)[(q + r).abs() <= radius]


def flowers(axial: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The flower of each hexagon (n,), and the axial coordinates of the centres (n', 2)."""
    q, r = (axial.double() @ BASIS.double().inverse()).T
    exact = torch.stack([q, r, -q - r], -1)
    near = exact.round()
    # The three add up to 0 before rounding; let the one that was rounded most make up for it.
    worst = (near - exact).abs().argmax(-1, keepdim=True)
    near.scatter_add_(-1, worst, -near.sum(-1, keepdim=True))
    centres, labels = near[:, :2].long().unique(dim=0, return_inverse=True)
    return labels, centres


class HexDownsampler(Downsampler):
    """Definition 1 on a hexagonal grid: the mean over each flower."""

    def __init__(self, axial: torch.Tensor) -> None:
        self.labels, self.centres = flowers(axial)

    def groups(self, shape: tuple[int, ...]) -> Partition:
        """One group per flower; those at the border have fewer hexagons."""
        return Partition.from_labels(self.labels)


class HexPartitioner(Partitioner):
    """Definition 3 on a hexagonal grid: a cell is a flower of flowers."""

    def __init__(self, downsampler: HexDownsampler) -> None:
        self.labels, self.centres = flowers(downsampler.centres)

    def cells(self, shape: tuple[int, ...]) -> Partition:
        """One cell per flower of coarse elements."""
        return Partition.from_labels(self.labels)


# %%
# The laws
# --------
#
# Groups and cells are partitions, and the elements under a cell are those of its groups (Definitions 3 to 5).

axial = hexagon(radius=30)
down = HexDownsampler(axial)
cut = HexPartitioner(down)
testing.assert_consistent(cut, down, shape=(len(axial),))
print(len(axial), "hexagons,", len(down.groups(())), "groups,", len(cut.cells(())), "cells")

# %%
# Attention
# ---------
#
# Keys and values are a photograph, seen through the hexagons; queries are the same photograph turned by 40°. The
# features are colours at three blurs, which a turn does not change.

height = axial[:, 1] * 3**0.5 / 2
width = axial[:, 0] + axial[:, 1] / 2
cat = data.chelsea()[:, 70:370] / 255


def seen(turn: float) -> torch.Tensor:
    """Colours at three blurs (n, 9) of the photograph, turned by some degrees."""
    cos, sin = np.cos(np.deg2rad(turn)), np.sin(np.deg2rad(turn))
    scale = cat.shape[0] / 2 / 31
    rows = (height * cos - width * sin) * scale + cat.shape[0] / 2
    columns = (height * sin + width * cos) * scale + cat.shape[1] / 2
    blurred = [ndimage.gaussian_filter(cat, (s, s, 0)) for s in (3, 9, 18)]
    planes = np.moveaxis(np.concatenate(blurred, -1), -1, 0)
    places = [rows, columns]
    sampled = [ndimage.map_coordinates(x, places, order=1, mode="nearest") for x in planes]
    return torch.tensor(np.stack(sampled, -1))


keys, queries = seen(0), seen(40)
q, k, v = queries[None, None], keys[None, None], keys[None, None, :, :3]
gpa = GPA(cut, down, kappa=7, affinity="euclidean", scale=2000.0)
out = gpa(q, k, v)
print("result", tuple(out.shape))

# %%
# What was computed
# -----------------
#
# Above, groups and cells; neighbours differ in colour, and at the border flowers are cut off. Below, the lit cell of
# queries on the left chose the seven lit groups of keys in the middle. On the right, every query has copied its colour
# from the keys that its cell chose.

layout = gpa.layout((len(axial),), (len(axial),))
eye = ((width + 2) ** 2 + (height + 12) ** 2).argmin()
cell = int(layout.fine_cells.labels[eye])
relevant = select_keys(q, k, layout, kappa=7, affinity="euclidean", scale=2000.0)
chosen = relevant[0, 0, cell]
in_cell = layout.fine_cells.labels == cell
in_keys = torch.isin(layout.key_groups.labels, chosen)


def paint(axis, title, colours, lit=None):
    """Draw one colour per hexagon, pale where it is not lit."""
    colours = np.asarray(colours, dtype=float)[:, :3]
    if lit is not None:
        colours = np.where(lit[:, None], colours, 0.65 + 0.35 * colours)
    axis.scatter(width, height, s=22, marker="h", c=colours.clip(0, 1), linewidths=0)
    axis.set(title=title, aspect="equal")
    axis.invert_yaxis()
    axis.axis("off")


three = np.array([[0.0, 0.45, 0.7], [0.9, 0.6, 0.0], [0.8, 0.85, 0.9]])
group_hues = three[(down.centres[:, 0] - down.centres[:, 1]) % 3]
cell_hues = three[(cut.centres[:, 0] - cut.centres[:, 1]) % 3]
figure, axes = plt.subplots(2, 3, figsize=(12, 8), layout="constrained")
paint(axes[0, 0], "groups (Definition 1)", group_hues[layout.query_groups.labels])
paint(axes[0, 1], "cells (Definition 3)", cell_hues[layout.fine_cells.labels])
paint(axes[0, 2], "keys and values", keys)
paint(axes[1, 0], "queries, one cell lit", queries, in_cell.numpy())
paint(axes[1, 1], "the keys which that cell chose", keys, in_keys.numpy())
paint(axes[1, 2], "result", out[0, 0])
plt.show()
