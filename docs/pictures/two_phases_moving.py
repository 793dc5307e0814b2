"""The animation that the docs open with: both phases of Algorithm 1, one step after another.

Run by hand from the root of the repository: ``python -m docs.pictures.two_phases_moving``. It shows what
``docs.pictures.two_phases`` computes, and saves ``docs/_static/two_phases.webp`` and, for dark pages,
``two_phases_dark.webp``; who prefers less motion is shown the still picture of that script.
"""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from PIL import Image

from docs.pictures.ground import GROUNDS, Ground
from docs.pictures.two_phases import (
    CELLS,
    FACTOR,
    KAPPA,
    KEY_COLOUR,
    QUERY,
    QUERY_COLOUR,
    SIZE,
    Found,
    box,
    compute,
    scores_of_cell,
)

STATIC = Path(__file__).parents[1] / "_static"
STEP, COARSE, EXTENT = SIZE // CELLS, SIZE // FACTOR, (0, SIZE, SIZE, 0)
LONG, SHORT = 2600, 220  # milliseconds


def main() -> None:
    """Draw all steps and save them."""
    found = compute()
    for ground in GROUNDS:
        frames = steps(found, ground)
        pictures, durations = zip(*frames, strict=True)
        first, *others = pictures
        path = STATIC / f"two_phases{ground.suffix}.webp"
        first.save(path, save_all=True, append_images=others, duration=durations, loop=0, quality=72, method=6)
        print(f"{path}: {len(frames)} pictures, {path.stat().st_size / 1024:.0f} KiB")


def steps(found: Found, ground: Ground) -> list[tuple[Image.Image, int]]:
    """Pictures, and for how many milliseconds each is shown."""
    ground.use()
    cell = int(found.layout.fine_cells.labels[QUERY[0] * SIZE + QUERY[1]])
    scores = scores_of_cell(found.q, found.k, found.layout, cell)
    heat = plt.get_cmap("magma")(((np.log10(scores + 1e-4) + 4) / (np.log10(scores.max() + 1e-4) + 4)).clip(0, 1))
    grey = np.repeat(found.bent[..., None], 3, -1)
    coarse_grey, coarse_photo = shrink(grey), shrink(found.photo)
    shown = []

    def step(
        says: str, left: np.ndarray, right: np.ndarray, *, cells: bool = False, cell: int | None = None,
        keys: bool = False, milliseconds: int = LONG,
    ) -> None:  # fmt: skip
        figure, (queries, photo) = panels(says)
        queries.imshow(left.clip(0, 1), extent=EXTENT)
        photo.imshow(right.clip(0, 1), extent=EXTENT)
        for line in range(0, SIZE + 1, STEP) if cells else ():
            queries.axhline(line, color="white", lw=0.8, alpha=0.6)
            queries.axvline(line, color="white", lw=0.8, alpha=0.6)
        if cell is not None:
            box(queries, cell // CELLS * STEP, cell % CELLS * STEP, STEP, QUERY_COLOUR)
            for key in found.chosen(cell) if keys else ():
                box(photo, key // COARSE * FACTOR, key % COARSE * FACTOR, FACTOR, KEY_COLOUR, lw=2)
        figure.canvas.draw()
        shown.append((Image.fromarray(np.asarray(figure.canvas.buffer_rgba())).convert("RGB"), milliseconds))
        plt.close(figure)

    step("Every grey pixel asks the photograph for its colour", grey, found.photo)
    step(f"Phase 1: compare averages of {FACTOR} × {FACTOR} pixels", coarse_grey, coarse_photo)
    step("Neighbouring queries form a cell", coarse_grey, coarse_photo, cells=True, cell=cell)
    step("How much does this cell attend to each average?", coarse_grey, heat[..., :3], cell=cell)
    step(f"It keeps the κ = {KAPPA} best", coarse_grey, coarse_photo, cell=cell, keys=True)
    pixels = f"{KAPPA * FACTOR**2} of {SIZE**2:,} pixels"
    step(f"Phase 2: attend to these alone, {pixels}", grey, lit(found, ground, cell), cell=cell, keys=True)
    step("The cell has its colours", coloured(found, [cell], grey), lit(found, ground, cell), cell=cell, keys=True)
    order = [cell + move for move in (1, 2, -14, -15, -16, -17, -18, -34, -33, -32, -31, -30)]
    for count, other in enumerate(order, 1):
        done = coloured(found, [cell, *order[:count]], grey)
        step("So does the next", done, lit(found, ground, other), cell=other, keys=True, milliseconds=SHORT)
    for row in range(CELLS):
        done = coloured(found, [cell, *order, *range((row + 1) * CELLS)], grey)
        step("And all others", done, found.photo, milliseconds=SHORT // 2)
    step("And all others", found.out, found.photo, milliseconds=LONG)
    return shown


def panels(says: str) -> tuple[plt.Figure, tuple[Axes, Axes]]:
    """A line of text above queries and keys."""
    figure = plt.figure(figsize=(7.6, 4.34), dpi=125)
    figure.text(0.012, 0.945, says, fontsize=17, va="center", weight="bold")
    places = ((0.012, "queries"), (0.508, "keys and values"))
    axes = []
    for left, name in places:
        axis = figure.add_axes((left, 0.015, 0.48, 0.48 * 7.6 / 4.34), xticks=[], yticks=[])
        axis.text(5, SIZE - 7, name, fontsize=13, color="white", va="bottom",
                  bbox={"facecolor": "black", "alpha": 0.6, "lw": 0, "pad": 3})  # fmt: skip
        axes.append(axis)
    return figure, (axes[0], axes[1])


def shrink(picture: np.ndarray) -> np.ndarray:
    """The mean of every group."""
    return picture.reshape(COARSE, FACTOR, COARSE, FACTOR, -1).mean((1, 3))


def lit(found: Found, ground: Ground, cell: int) -> np.ndarray:
    """The photograph, pale but for the pixels that a cell attends to."""
    picture = ground.pale(found.photo, 0.2)
    rows, columns = np.divmod(found.members(cell), SIZE)
    picture[rows, columns] = found.photo[rows, columns]
    return picture


def coloured(found: Found, cells: list[int], grey: np.ndarray) -> np.ndarray:
    """The queries, and the result where some cells have it."""
    there = np.isin(found.layout.fine_cells.labels.numpy(), cells).reshape(SIZE, SIZE, 1)
    return np.where(there, found.out, grey)


if __name__ == "__main__":
    main()
