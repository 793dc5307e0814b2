"""
One graph looks at another
==========================

The same hills are surveyed twice, each time at other points, and the points are joined to a graph. Each node of one
graph asks the nodes of the other where it is, and knows nothing of itself but the terrain around it.
"""

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.cbook import get_sample_data
from matplotlib.image import AxesImage
from scipy import sparse
from scipy.ndimage import map_coordinates
from scipy.spatial import Delaunay, KDTree
from torch import Tensor

import gpa_nd
from gpa_nd import GPA
from gpa_nd.diagnostics import captured_mass
from gpa_nd.ops import GraphDownsampler
from gpa_nd.partitioners import GraphPartitioner

# %%
# Two surveys
# -----------
#
# The heights are those of the hills at Jacksboro, Tennessee, 32 by 30 kilometres, which matplotlib brings along. Points
# are drawn at random, 6,000 for the one and 6,500 for the other survey, and joined by Delaunay's triangles.

heights = get_sample_data("jacksboro_fault_dem.npz")["elevation"].astype(float)
KILOMETRES = np.array([0.0926, 0.0744])  # from one row to the next, and from one column


def survey(points: int, seed: int) -> tuple[Tensor, Tensor, np.ndarray]:
    """Where nodes are (n, 2), in kilometres, the edges between them (2, e), and how high they are (n,)."""
    places = np.random.default_rng(seed).uniform(0, np.array(heights.shape) - 1, (points, 2))
    triangles = Delaunay(places).simplices
    edges = np.sort(np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]]), axis=1)
    edges = torch.tensor(np.unique(edges, axis=0).T, dtype=torch.long)
    return torch.tensor(places * KILOMETRES, dtype=torch.float32), edges, map_coordinates(heights, places.T, order=1)


def terrain(edges: Tensor, height: np.ndarray) -> Tensor:
    """(n, 10) the mean height, and how much it varies, within walks of 4, 12, 36, 108 and 324 steps along edges."""
    n = len(height)
    joined = sparse.coo_matrix((np.ones(edges.shape[1]), edges.numpy()), (n, n))
    joined = (joined + joined.T + sparse.eye(n)).tocsr()
    walk = sparse.diags(1 / np.asarray(joined.sum(1)).ravel()) @ joined
    moments, features = np.stack([height, height**2], 1), []
    for step in range(1, 325):
        moments = walk @ moments
        if step in (4, 12, 36, 108, 324):
            mean, square = moments.T
            features += [mean, np.log1p(np.sqrt(np.maximum(square - mean**2, 0)))]
    return torch.tensor(np.stack(features, 1), dtype=torch.float32)


(places, edges, height), (key_places, key_edges, key_height) = survey(6000, seed=0), survey(6500, seed=1)
q, k = terrain(edges, height), terrain(key_edges, key_height)
q, k = (q - k.mean(0)) / k.std(0), (k - k.mean(0)) / k.std(0)

# %%
# Attention
# ---------
#
# Nodes are grouped along the edges of their own graph: queries by up to 8 nodes, and those groups into 400 cells; keys
# by up to 4. Values are where the nodes are. So each query gets the mean of the places that look like its own.

groups = GraphDownsampler.from_edges(edges, len(q), 8)
key_groups = GraphDownsampler.from_edges(key_edges, len(k), 4)
cells = GraphPartitioner.from_edges(edges, groups, 400)
settings = {"kappa": 8, "affinity": "euclidean", "scale": 100.0}
gpa = GPA(cells, groups, key_downsampler=key_groups, **settings)
answers = gpa(q[None, None], k[None, None], key_places[None, None])[0, 0]

layout = gpa.layout((len(q),), (len(k),))
relevant = gpa_nd.select_keys(q[None, None], k[None, None], layout, **settings)
print(layout)
print(captured_mass(q[None, None], k[None, None], layout, relevant, affinity="euclidean", scale=100.0))

dense = (-100 * torch.cdist(q, k).square()).softmax(1) @ key_places
for name, found in {"GPA": answers, "dense attention": dense}.items():
    away = (found - places).norm(dim=1)
    print(f"{name}: half of the nodes are at most {away.median():.1f} km off, nine in ten {away.quantile(0.9):.1f} km")

# %%
# Cells, and what one of them chose
# ---------------------------------
#
# In these maps each point has the colour of the node next to it.

south, east = np.mgrid[0:31.7:320j, 0:29.9:300j]
nearest = {len(nodes): KDTree(nodes).query(np.stack([south, east], -1))[1] for nodes in (places, key_places)}


def draw(axis: Axes, colours: np.ndarray | Tensor, title: str, **style: object) -> AxesImage:
    """A map of what the nodes of one of the graphs are told."""
    axis.set(title=title, xticks=[], yticks=[])
    return axis.imshow(np.asarray(colours)[nearest[len(colours)]], **style)


def lit(values: np.ndarray, nodes: Tensor, colour: tuple[float, float, float]) -> np.ndarray:
    """(n, 3) heights as a relief in grey, and some nodes in a colour."""
    shades = 0.25 + 0.75 * (values - heights.min()) / np.ptp(heights)
    return np.where(nodes[:, None], colour, shades[:, None])


cell = int(layout.fine_cells.labels[(places - torch.tensor([12.0, 21.0])).norm(dim=1).argmin()])
asking = layout.fine_cells.labels == cell
chosen = torch.isin(layout.key_groups.labels, relevant[0, 0, cell])
hues = plt.get_cmap("tab20")(np.random.default_rng(0).permutation(400) % 20)

figure, axes = plt.subplots(1, 3, figsize=(11.5, 4.6), layout="constrained")
draw(axes[0], hues[layout.fine_cells.labels], "400 cells of queries")
draw(axes[1], lit(height, asking, (0.0, 0.45, 0.7)), "heights, and one cell of queries")
draw(axes[2], lit(key_height, chosen, (0.84, 0.37, 0.0)), "the other survey, and the keys it chose")
plt.show()

# %%
# Where they believe to be
# ------------------------
#
# Each place has its colour. Most nodes know well where they are. Those that lie among hills like others do not, with
# dense attention neither: it is the features that cannot tell.


def hue(where: Tensor) -> np.ndarray:
    """(n, 3) a colour for each place (n, 2): redder to the south, bluer to the east."""
    down, right = (where / torch.tensor([32.0, 30.0])).clip(0, 1).T.numpy()
    return np.stack([down, 0.25 + 0.6 * (1 - down) * (1 - right), right], 1)


figure, axes = plt.subplots(1, 3, figsize=(11.5, 4.3), layout="constrained", width_ratios=[1, 1, 1.13])
draw(axes[0], hue(places), "where nodes are")
draw(axes[1], hue(answers), "where GPA says they are")
off = draw(axes[2], (answers - places).norm(dim=1), "kilometres between the two", cmap="magma_r", vmin=0, vmax=10)
figure.colorbar(off, ax=axes[2])
plt.show()
