"""The picture that the README opens with: both phases of Algorithm 1 on a photograph, for light and for dark pages.

Run by hand from the root of the repository: ``python -m docs.pictures.two_phases``. Nothing in it is drawn by hand: the
scores, the chosen keys, the weights and the result are what ``gpa_nd`` computes.
"""

from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from PIL import Image
from scipy import ndimage
from skimage import data, transform

import gpa_nd
from docs.pictures.ground import GROUNDS, Ground

SIZE, FACTOR, CELLS, KAPPA, SCALE = 256, 8, 16, 6, 3.0
QUERY = (197, 153)  # row and column of the query whose weights are shown
QUERY_COLOUR, KEY_COLOUR = "#0072b2", "#d55e00"  # told apart by colour-blind eyes, too
STATIC = Path(__file__).parents[1] / "_static"


@dataclass
class Found:
    """What ``gpa_nd`` computes on the photograph.

    Attributes:
        photo: keys' colours, (height, width, 3).
        bent: the grey picture that queries.
        out: the result, as ``photo``.
        q: (1, 1, n, c), and
        k: their features.
        layout: groups and cells.
        relevant: (1, 1, m, κ) coarse keys of each cell.
    """

    photo: np.ndarray
    bent: np.ndarray
    out: np.ndarray
    q: torch.Tensor
    k: torch.Tensor
    layout: gpa_nd.Layout
    relevant: torch.Tensor

    def chosen(self, cell: int) -> list[int]:
        """The coarse keys of a cell, best first."""
        return self.relevant[0, 0, cell].tolist()

    def members(self, cell: int) -> np.ndarray:
        """The pixels under them."""
        return self.layout.members.table[self.chosen(cell)].flatten().numpy()


def main() -> None:
    """Compute, draw and save ``docs/_static/two_phases.png``, and ``two_phases_dark.png``."""
    found = compute()
    query = QUERY[0] * SIZE + QUERY[1]
    cell = int(found.layout.fine_cells.labels[query])
    members = found.members(cell)
    weights = weight_of_each(found.q[0, 0, query], found.k[0, 0, members])
    scores = scores_of_cell(found.q, found.k, found.layout, cell)
    for ground in GROUNDS:
        draw(ground, found.photo, found.bent, found.out, cell, found.chosen(cell), scores, members, weights)


def compute() -> Found:
    """The photograph, its bent copy, and attention from the one to the other."""
    photo = transform.resize(data.astronaut() / 255, (SIZE, SIZE), anti_aliasing=True)
    grey = photo @ [0.299, 0.587, 0.114]
    bent = transform.warp(grey, bend, mode="reflect")

    attention = gpa_nd.image(FACTOR, (CELLS, CELLS), KAPPA, affinity="euclidean", scale=SCALE)
    q, k = features(bent), features(grey)
    mean, spread = k.mean((0, 1)), k.std((0, 1))
    q, k, v = (torch.tensor(x)[None, None] for x in ((q - mean) / spread, (k - mean) / spread, photo))
    out = attention(q, k, v)[0, 0].numpy()

    layout = attention.layout((SIZE, SIZE), (SIZE, SIZE))
    q, k = q.flatten(2, 3), k.flatten(2, 3)
    relevant = gpa_nd.select_keys(q, k, layout, kappa=KAPPA, affinity="euclidean", scale=SCALE)
    return Found(photo, bent, out, q, k, layout, relevant)


def bend(xy: np.ndarray) -> np.ndarray:
    """Where a pixel of the bent picture comes from: mirrored, turned and rippled."""
    x, y = SIZE - 1 - xy[:, 0] - 9 * np.sin(xy[:, 1] / 30), xy[:, 1]
    turned = transform.SimilarityTransform(rotation=np.deg2rad(14), scale=0.95, translation=(38, -24))
    return turned(np.stack([x, y], 1))


def features(picture: np.ndarray) -> np.ndarray:
    """Grey value, slope and curvature at five scales: what stays the same when a picture is turned or mirrored."""
    channels = []
    for sigma in (1, 2, 4, 8, 16):
        channels += [
            ndimage.gaussian_filter(picture, sigma),
            ndimage.gaussian_gradient_magnitude(picture, sigma) * sigma,
            ndimage.gaussian_laplace(picture, sigma) * sigma**2,
        ]
    return np.stack(channels, -1)


def scores_of_cell(q: torch.Tensor, k: torch.Tensor, layout: gpa_nd.Layout, cell: int) -> np.ndarray:
    """The sum that Phase 1 ranks coarse keys by, for one cell, as a coarse picture."""
    q_low, k_low = layout.query_groups.mean(q)[0, 0], layout.key_groups.mean(k)[0, 0]
    q_cell = q_low[layout.query_cells.table[cell]]
    sums = (-torch.cdist(q_cell, k_low).square() * SCALE).softmax(-1).sum(0)
    return sums.view(SIZE // FACTOR, SIZE // FACTOR).numpy()


def weight_of_each(query: torch.Tensor, keys: torch.Tensor) -> np.ndarray:
    """The attention weights of one query in Phase 2."""
    return (-(keys - query).square().sum(-1) * SCALE).softmax(0).numpy()


def draw(
    ground: Ground,
    photo: np.ndarray,
    bent: np.ndarray,
    out: np.ndarray,
    cell: int,
    chosen: list[int],
    scores: np.ndarray,
    members: np.ndarray,
    weights: np.ndarray,
) -> None:
    """Two rows of three panels."""
    ground.use()
    figure, axes = plt.subplots(2, 3, figsize=(11.6, 9.3), dpi=130)
    figure.subplots_adjust(0.012, 0.012, 0.988, 0.875, wspace=0.07, hspace=0.36)
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
    coarse = SIZE // FACTOR

    def shrink(x: np.ndarray) -> np.ndarray:
        return x.reshape(coarse, FACTOR, coarse, FACTOR, -1).mean((1, 3))

    extent = (0, SIZE, SIZE, 0)
    step = SIZE // CELLS
    top, left = cell // CELLS * step, cell % CELLS * step

    title(axes[0, 0], "Queries, made coarse", "grey, bent, mirrored; one cell is marked", ground)
    axes[0, 0].imshow(shrink(bent)[..., 0], cmap="gray", extent=extent)
    for line in range(0, SIZE + 1, step):
        axes[0, 0].axhline(line, color="white", lw=0.5, alpha=0.55)
        axes[0, 0].axvline(line, color="white", lw=0.5, alpha=0.55)
    box(axes[0, 0], top, left, step, QUERY_COLOUR)

    title(axes[0, 1], "How much that cell attends", "softmax over all keys, summed; log scale", ground)
    axes[0, 1].imshow(np.log10(scores + 1e-4), cmap="magma", extent=extent)
    title(axes[0, 2], f"The κ = {KAPPA} best coarse keys", "of the photograph; the cell shares them", ground)
    axes[0, 2].imshow(shrink(photo).clip(0, 1), extent=extent)
    for key in chosen:
        for axis in axes[0, 1:]:
            box(axis, key // coarse * FACTOR, key % coarse * FACTOR, FACTOR, KEY_COLOUR, lw=2)

    title(axes[1, 0], "Queries, every pixel", "the same cell; the dot is one query", ground)
    axes[1, 0].imshow(bent, cmap="gray", extent=extent)
    box(axes[1, 0], top, left, step, QUERY_COLOUR)
    axes[1, 0].plot(QUERY[1] + 0.5, QUERY[0] + 0.5, "o", color="white", mec=QUERY_COLOUR, mew=2, ms=7)

    rows, columns = members // SIZE, members % SIZE
    title(
        axes[1, 1], "Keys: only those below", f"{len(members)} of {SIZE * SIZE:,}; dots: that query's weights", ground
    )
    lit = ground.pale(photo, 0.14)
    lit[rows, columns] = photo[rows, columns]
    axes[1, 1].imshow(lit, extent=extent)
    for key in chosen:
        box(axes[1, 1], key // coarse * FACTOR, key % coarse * FACTOR, FACTOR, KEY_COLOUR, lw=1.5)

    title(axes[1, 2], "Result", "each query: the colours it attends to", ground)
    axes[1, 2].imshow(out.clip(0, 1), extent=extent)
    box(axes[1, 2], top, left, step, QUERY_COLOUR)

    zoom(axes[1, 1], ground, photo, chosen, rows, columns, weights)
    heading(figure, axes[0, 0], "Phase 1", f"at 1/{FACTOR} of the resolution: which keys matter to this cell?")
    heading(figure, axes[1, 0], "Phase 2", "at full resolution: attend to those keys only")
    figure.canvas.draw()
    drawn = Image.fromarray(np.asarray(figure.canvas.buffer_rgba())).convert("RGB")
    drawn.quantize(256, Image.Quantize.MAXCOVERAGE, kmeans=3).save(
        STATIC / f"two_phases{ground.suffix}.png", optimize=True
    )


def zoom(
    axis: Axes,
    ground: Ground,
    photo: np.ndarray,
    chosen: list[int],
    rows: np.ndarray,
    columns: np.ndarray,
    weights: np.ndarray,
) -> None:
    """The best key's neighbourhood enlarged, with the weights of one query as dots."""
    best = int(weights.argmax())
    half = 14
    row = int(np.clip(rows[best], half, SIZE - half))
    column = int(np.clip(columns[best], half, SIZE - half))
    right, below = column < SIZE / 2, row < SIZE / 2
    inset = axis.inset_axes((0.5 if right else 0.03, 0.03 if below else 0.5, 0.47, 0.47))
    inset.imshow(photo, extent=(0, SIZE, SIZE, 0))
    shown = weights > 0.01
    inset.scatter(
        columns[shown] + 0.5, rows[shown] + 0.5, 420 * weights[shown], "white", edgecolors="black", linewidths=0.8
    )
    for key in chosen:
        coarse = SIZE // FACTOR
        box(inset, key // coarse * FACTOR, key % coarse * FACTOR, FACTOR, KEY_COLOUR, lw=2.5)
    inset.set(xlim=(column - half, column + half), ylim=(row + half, row - half), xticks=[], yticks=[])
    axis.indicate_inset_zoom(inset, edgecolor=ground.ink, alpha=0.9)


def box(axis: Axes, top: float, left: float, size: float, colour: str, lw: float = 3) -> None:
    """A square with a thin white rim, to be seen on any ground."""
    for width, edge in ((lw + 1.6, "white"), (lw, colour)):
        axis.add_patch(Rectangle((left, top), size, size, fill=False, edgecolor=edge, linewidth=width))


def title(axis: Axes, head: str, line: str, ground: Ground) -> None:
    """What a panel shows: a name, and one line."""
    axis.text(0, 1.075, head, transform=axis.transAxes, weight="bold", va="bottom", fontsize=14.5)
    axis.text(0, 1.02, line, transform=axis.transAxes, va="bottom", fontsize=11.6, color=ground.soft)


def heading(figure: plt.Figure, axis: Axes, name: str, question: str) -> None:
    """The name of a row of panels."""
    axis.text(0, 1.2, name, transform=axis.transAxes, weight="bold", fontsize=18, va="bottom")
    axis.text(0.36, 1.205, question, transform=axis.transAxes, fontsize=15, va="bottom")


if __name__ == "__main__":
    main()
