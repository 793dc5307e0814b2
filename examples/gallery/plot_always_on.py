"""
Always on: neighbours and sinks
===============================

What a cell always attends to stands beside the κ groups that it selects, in the same softmax.
"""

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from skimage import data

import gpa_nd
from gpa_nd.always import GlobalElements, GridNeighbourhood

# %%
# A neighbourhood that needs not be chosen
# ----------------------------------------
#
# In most pictures the nearest pixels matter to all. :class:`~gpa_nd.always.GridNeighbourhood` puts the groups that
# reach within so many pixels of a cell on, so that κ is left for what is far away.
# :class:`~gpa_nd.always.GlobalElements` puts the groups of some elements on for everybody: here the four corners;
# in a stream, its first tokens (attention sinks). No group is counted twice: what is on is not selected.

SIZE, FACTOR, CELLS, KAPPA = 192, 8, 12, 6
corners = torch.tensor([0, SIZE - 1, SIZE * (SIZE - 1), SIZE * SIZE - 1])
settings = {"affinity": "euclidean", "scale": 5.0}
plain = gpa_nd.image(FACTOR, (CELLS, CELLS), KAPPA, **settings)
attention = gpa_nd.image(
    FACTOR, (CELLS, CELLS), KAPPA, always=[GridNeighbourhood(FACTOR), GlobalElements(corners)], **settings
)

photo = torch.tensor(data.astronaut()).permute(2, 0, 1)[None] / 255
photo = F.interpolate(photo, (SIZE, SIZE), mode="area")
features = F.unfold(F.pad(photo, (2, 2, 2, 2), mode="reflect"), kernel_size=5).mT.reshape(1, 1, SIZE, SIZE, -1)
colours = photo.permute(0, 2, 3, 1)[:, None]

# %%
# Relevant keys of a cell are the selected ones, best first, and then those that are always on.

tokens = features.flatten(2, 3)
figure, axes = plt.subplots(1, 2, figsize=(9, 4.7), layout="constrained")


def box(axis: Axes, number: int, per_row: int, colour: str) -> None:
    """Outline one of the squares that the picture is divided into."""
    size = SIZE // per_row
    corner = (number % per_row * size, number // per_row * size)
    axis.add_patch(Rectangle(corner, size, size, fill=False, edgecolor=colour, linewidth=2))


for axis, (title, gpa) in zip(axes, {"selected alone": plain, "with what is on": attention}.items(), strict=True):
    layout = gpa.layout((SIZE, SIZE), (SIZE, SIZE))
    relevant = gpa_nd.select_keys(tokens, tokens, layout, kappa=KAPPA, **settings)
    print(f"{title}: relevant keys {tuple(relevant.shape)}")
    cell = 4 * CELLS + 5
    axis.imshow(0.6 + 0.4 * colours[0, 0], extent=(0, SIZE, SIZE, 0))
    for place, key in enumerate(relevant[0, 0, cell].tolist()):
        if key >= 0:
            box(axis, key, SIZE // FACTOR, "#d55e00" if place < KAPPA else "#e69f00")
    box(axis, cell, CELLS, "#0072b2")
    axis.set(title=f"{title} (orange: selected, yellow: on)", xticks=[], yticks=[])
plt.show()

# %%
# On a graph :class:`~gpa_nd.always.GraphNeighbourhood` does the same with the groups that are joined to a cell by an
# edge. A rule of your own is one method, :meth:`AlwaysOn.keys <gpa_nd.always.AlwaysOn.keys>`, that returns a table of
# coarse keys for each cell.
