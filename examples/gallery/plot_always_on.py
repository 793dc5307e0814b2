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
from gpa_nd import Partition, testing
from gpa_nd.always import AlwaysOn, GlobalElements, GridNeighbourhood
from gpa_nd.ops import Downsampler, GridDownsampler
from gpa_nd.partitioners import GridPartitioner

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
CELL = 4 * CELLS + 5


def box(axis: Axes, number: int, per_row: int, colour: str) -> None:
    """Outline one of the squares that the picture is divided into."""
    size = SIZE // per_row
    corner = (number % per_row * size, number // per_row * size)
    axis.add_patch(Rectangle(corner, size, size, fill=False, edgecolor=colour, linewidth=2))


def draw(axis: Axes, keys: torch.Tensor, title: str) -> None:
    """The picture, the cell, and its relevant keys: κ selected ones and those that are always on."""
    axis.imshow(0.6 + 0.4 * colours[0, 0], extent=(0, SIZE, SIZE, 0))
    for place, key in enumerate(keys.tolist()):
        if key >= 0:
            box(axis, key, SIZE // FACTOR, "#d55e00" if place < KAPPA else "#e69f00")
    box(axis, CELL, CELLS, "#0072b2")
    axis.set(title=f"{title} (orange: selected, yellow: on)", xticks=[], yticks=[])


figure, axes = plt.subplots(1, 2, figsize=(9, 4.7), layout="constrained")
for axis, (title, gpa) in zip(axes, {"selected alone": plain, "with what is on": attention}.items(), strict=True):
    layout = gpa.layout((SIZE, SIZE), (SIZE, SIZE))
    relevant = gpa_nd.select_keys(tokens, tokens, layout, kappa=KAPPA, **settings)
    print(f"{title}: relevant keys {tuple(relevant.shape)}")
    draw(axis, relevant[0, 0, CELL], title)
plt.show()

# %%
# A rule of your own
# ------------------
#
# On a graph :class:`~gpa_nd.always.GraphNeighbourhood` does the same with the groups that are joined to a cell by an
# edge. A rule of your own is one method, :meth:`AlwaysOn.keys <gpa_nd.always.AlwaysOn.keys>`, that returns a table of
# coarse keys for each cell. This one looks along the row and the column of blocks in which a cell begins, as axial
# attention does. :func:`~gpa_nd.testing.assert_always_on` tells whether a rule keeps to the law of such tables, and
# whether cells indeed attend to what it names.


class RowAndColumn(AlwaysOn):
    """The blocks in the row and in the column of each cell's first pixel."""

    def keys(
        self, cells: Partition, query_shape: tuple[int, ...], key_downsampler: Downsampler, key_shape: tuple[int, ...]
    ) -> torch.Tensor:
        """(m, rows + columns − 1): the row of blocks, and the others of the column."""
        rows, columns = key_downsampler.coarse_shape(key_shape)
        first_pixels = cells.order[cells.offsets[:-1]]
        own = key_downsampler.groups(key_shape).labels[first_pixels][:, None]
        row = own // columns * columns + torch.arange(columns)
        column = own % columns + torch.arange(rows) * columns
        return torch.cat([row, column[column != own].view(len(cells), rows - 1)], dim=1)


testing.assert_always_on(RowAndColumn(), GridPartitioner(3), GridDownsampler(2), shape=(12, 18))

crossed = gpa_nd.image(FACTOR, (CELLS, CELLS), KAPPA, always=[RowAndColumn()], **settings)
layout = crossed.layout((SIZE, SIZE), (SIZE, SIZE))
relevant = gpa_nd.select_keys(tokens, tokens, layout, kappa=KAPPA, **settings)

figure, axis = plt.subplots(figsize=(4.7, 4.7), layout="constrained")
draw(axis, relevant[0, 0, CELL], "a rule of one's own")
plt.show()
