"""The picture of context parallelism: what one of four processes holds, gets and fetches.

Run by hand from the root of the repository: ``python -m docs.pictures.context_parallel``. The photograph, its bent copy
and their features are those of :mod:`docs.pictures.two_phases`; what is fetched is what ``gpa_nd`` selects.
"""

import matplotlib.pyplot as plt
import numpy as np
import torch
from PIL import Image
from skimage import data, transform

import gpa_nd
from docs.pictures.ground import GROUNDS, Ground
from docs.pictures.two_phases import CELLS, FACTOR, KAPPA, KEY_COLOUR, QUERY_COLOUR, SCALE, SIZE, STATIC, bend, title
from docs.pictures.two_phases import features as features_of
from gpa_nd.distributed import Shards

PROCESSES, SHOWN = 4, 1


def main() -> None:
    """Compute, draw and save ``docs/_static/context_parallel.png``, and ``context_parallel_dark.png``."""
    photo = transform.resize(data.astronaut() / 255, (SIZE, SIZE), anti_aliasing=True)
    grey = photo @ [0.299, 0.587, 0.114]
    bent = transform.warp(grey, bend, mode="reflect")
    q, k = features_of(bent), features_of(grey)
    mean, spread = k.mean((0, 1)), k.std((0, 1))
    q, k = (torch.tensor((x - mean) / spread).view(1, 1, SIZE * SIZE, -1) for x in (q, k))
    shape = (SIZE, SIZE)
    layout = gpa_nd.image(FACTOR, (CELLS, CELLS), KAPPA).layout(shape, shape)
    relevant = gpa_nd.select_keys(q, k, layout, kappa=KAPPA, affinity="euclidean", scale=SCALE)[0, 0]
    rows = Shards.of(layout, shape, shape, PROCESSES).queries[SHOWN]
    top, bottom = int(rows[0]), int(rows[-1]) + 1
    cells = layout.fine_cells.labels.view(shape)[top:bottom].unique()
    wanted = np.zeros(SIZE * SIZE, dtype=bool)
    wanted[layout.key_groups.table[relevant[cells].unique()].flatten()] = True
    for ground in GROUNDS:
        draw(ground, photo, bent, wanted.reshape(shape), top, bottom)


def draw(ground: Ground, photo: np.ndarray, bent: np.ndarray, wanted: np.ndarray, top: int, bottom: int) -> None:
    """Three panels: queries, coarse keys, keys."""
    ground.use()
    figure, axes = plt.subplots(1, 3, figsize=(11.6, 4.6), dpi=130)
    figure.subplots_adjust(0.012, 0.012, 0.988, 0.86, wspace=0.07)
    coarse = SIZE // FACTOR
    own = np.zeros((SIZE, SIZE), dtype=bool)
    own[top:bottom] = True

    title(axes[0], "Queries stay", f"process {SHOWN} holds the rows in the frame", ground)
    lit = np.repeat(bent[..., None], 3, -1)
    axes[0].imshow(np.where(own[..., None], lit, ground.pale(lit, 0.18)), extent=(0, SIZE, SIZE, 0))
    title(axes[1], "Coarse keys are gathered", "every process has all of them", ground)
    low = photo.reshape(coarse, FACTOR, coarse, FACTOR, 3).mean((1, 3))
    axes[1].imshow(low.clip(0, 1), extent=(0, SIZE, SIZE, 0))
    away = wanted & ~own
    title(axes[2], "Selected blocks are fetched", f"{away.sum() / (~own).sum():.0%} of what others hold comes", ground)
    axes[2].imshow(np.where((own | away)[..., None], photo, ground.pale(photo, 0.18)), extent=(0, SIZE, SIZE, 0))
    grid = away[::FACTOR, ::FACTOR]
    for row, column in zip(*grid.nonzero(), strict=True):
        square = plt.Rectangle((column * FACTOR, row * FACTOR), FACTOR, FACTOR, fill=False, ec=KEY_COLOUR, lw=0.7)
        axes[2].add_patch(square)
    for axis in axes:
        axis.set(xticks=[], yticks=[], xlim=(0, SIZE), ylim=(SIZE, 0))
        for process in range(1, PROCESSES):
            axis.axhline(process * SIZE / PROCESSES, color=ground.ink, lw=1, ls=(0, (4, 3)))
    for axis in (axes[0], axes[2]):
        axis.add_patch(plt.Rectangle((1, top), SIZE - 2, bottom - top, fill=False, ec=QUERY_COLOUR, lw=3))
    figure.canvas.draw()
    drawn = Image.fromarray(np.asarray(figure.canvas.buffer_rgba())).convert("RGB")
    drawn.quantize(256, Image.Quantize.MAXCOVERAGE, kmeans=3).save(
        STATIC / f"context_parallel{ground.suffix}.png", optimize=True
    )


if __name__ == "__main__":
    main()
