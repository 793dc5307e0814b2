"""
A first look
============

Which keys does a cell of queries choose? Here a photograph attends to itself: each cell looks for places that look
like it.
"""

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from skimage import data

import gpa_nd

# %%
# Queries, keys and values
# ------------------------
#
# A query or key is the patch of 5 × 5 pixels around a pixel; the affinity of two patches is minus their squared
# distance. Values are the colours. Channels come last, as in :func:`torch.nn.functional.scaled_dot_product_attention`.

SIZE, FACTOR, CELLS, KAPPA, SCALE = 192, 6, 16, 12, 5.0

photo = torch.tensor(data.astronaut()).permute(2, 0, 1)[None] / 255
photo = F.interpolate(photo, (SIZE, SIZE), mode="area")
patches = F.unfold(F.pad(photo, (2, 2, 2, 2), mode="reflect"), kernel_size=5)
features = patches.mT.reshape(1, 1, SIZE, SIZE, -1)
colours = photo.permute(0, 2, 3, 1)[:, None]
print("queries and keys", tuple(features.shape), " values", tuple(colours.shape))

# %%
# Attention
# ---------
#
# Dense attention would compare 36,864 queries with 36,864 keys. Here each cell of 12 × 12 queries attends to the
# 12 × 6 × 6 = 432 pixels under the coarse keys that it chose.

gpa = gpa_nd.image(FACTOR, (CELLS, CELLS), KAPPA, affinity="euclidean", scale=SCALE)
out = gpa(features, features, colours)

# %%
# What three cells chose
# ----------------------
#
# Phase 1 alone is :func:`~gpa_nd.select_keys`. It returns coarse keys for every cell, best first.

layout = gpa.layout((SIZE, SIZE), (SIZE, SIZE))
tokens = features.flatten(2, 3)
settings = {"kappa": KAPPA, "affinity": "euclidean", "scale": SCALE}
relevant = gpa_nd.select_keys(tokens, tokens, layout, **settings)
print("relevant keys", tuple(relevant.shape))

picture = colours[0, 0].numpy()


def box(axis: Axes, number: int, per_row: int, colour: str) -> None:
    """Outline one of the squares that the picture is divided into."""
    size = SIZE // per_row
    corner = (number % per_row * size, number // per_row * size)
    axis.add_patch(Rectangle(corner, size, size, fill=False, edgecolor=colour, linewidth=2))


figure, axes = plt.subplots(1, 3, figsize=(12, 4.4), layout="constrained")
places = {"flag": (8, 1), "suit": (9, 4), "helmet": (11, 12)}
for axis, (name, (row, column)) in zip(axes, places.items(), strict=True):
    cell = row * CELLS + column
    chosen = relevant[0, 0, cell]
    lit = 0.7 + 0.3 * picture
    pixels = layout.members.table[chosen].flatten()
    lit.reshape(-1, 3)[pixels] = picture.reshape(-1, 3)[pixels]
    axis.imshow(lit, extent=(0, SIZE, SIZE, 0))
    for key in chosen.tolist():
        box(axis, key, SIZE // FACTOR, "#d55e00")
    box(axis, cell, CELLS, "#0072b2")
    axis.set(title=f"a cell on the {name} (blue), its keys", xticks=[], yticks=[])
plt.show()

# %%
# The result
# ----------
#
# Every pixel is now the mean of pixels whose patches look alike, wherever in the picture they are. Where a cell needs
# more kinds of keys than κ holds, detail is lost, and borders of cells show: κ and the number of cells decide that.

figure, axes = plt.subplots(1, 2, figsize=(9, 4.8), layout="constrained")
images = {"values": picture, "result": out[0, 0].numpy()}
for axis, (title, image) in zip(axes, images.items(), strict=True):
    axis.imshow(image.clip(0, 1))
    axis.set(title=title, xticks=[], yticks=[])
plt.show()
