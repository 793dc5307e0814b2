"""The picture of the reference application: held-out people, drawn without and with GPA.

Run by hand from the root of the repository, after both runs: ``python -m examples.pose_morph.train``, the same with
``--attention no``, then ``python -m docs.pictures.pose_morph``. It puts the two runs' last sample grids side by side.
"""

from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from examples.pose_morph.pictures.samples import COLUMNS
from examples.pose_morph.pictures.sheet import GAP, HEADER

RUNS = Path("runs/pose_morph")
STATIC = Path(__file__).parents[1] / "_static"
SHOWN = (  # run, column of its grid, what stands above it
    ("demo-gpa", "source", "source"),
    ("demo-gpa", "target pose", "target pose"),
    ("demo-no", "result", "no GPA"),
    ("demo-gpa", "result", "with GPA"),
    ("demo-gpa", "truth", "truth"),
)


def main() -> None:
    """Save ``docs/_static/pose_morph.png``."""
    grids = {run: Image.open(max((RUNS / run / "samples").glob("*.png"))) for run, _, _ in SHOWN}
    width, height = grids["demo-gpa"].size
    column = (width - GAP) // len(COLUMNS)
    sheet = Image.new("RGB", (column * len(SHOWN) + GAP, height - HEADER), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(14)
    for place, (run, name, title) in enumerate(SHOWN):
        left = COLUMNS.index(name) * column
        part = grids[run].crop((left, 2 * HEADER, left + column, height))
        sheet.paste(part, (place * column, HEADER))
        draw.text((place * column + GAP, 3), title, fill="black", font=font)
    sheet.save(STATIC / "pose_morph.png", optimize=True)


if __name__ == "__main__":
    main()
