"""Table, plot and pictures of the distortion task, after Fig. 5."""

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from examples.pose_morph.atomic import replace_file, write_json, write_text
from examples.pose_morph.experiments.run_results import read_shown
from examples.pose_morph.pictures.png import write_png
from examples.pose_morph.pictures.sheet import draw_sheet

MEGABYTE = 1e6
SCALE = 2
"""How much larger the examples are shown."""
ERROR_GAIN = 3
"""The absolute error is drawn this much brighter."""

PRINTED = {0: "attention", 1: "held-out loss", 5: "attention MB", 6: "step MB", 7: "steps", 8: "parameters"}
"""The columns that fit into a terminal."""

NUMBERS = (
    "scores.loss", "scores.perceptual", "scores.l1", "scores.ssim_gaussian", "bytes.attention", "bytes.step", "steps",
    "parameters",
)  # fmt: skip
"""What a run's result must hold."""

Results = Mapping[str, Sequence[dict[str, Any]]]


def write_report(out: Path, results: Results, shown: Mapping[str, Path], console: Console) -> None:
    """Print the table and write distortion.{json,md,png} and distortion_examples.png."""
    rows = [_row(name, runs) for name, runs in results.items()]
    rows.sort(key=lambda row: row["loss"])
    table = Table(box=SIMPLE, padding=(0, 1, 0, 0), caption="distortion.md has the other scores, too")
    for column in PRINTED.values():
        table.add_column(column, no_wrap=True)
    lines = [
        "| attention | held-out loss | perceptual | L1 | SSIM | attention MB | step MB | steps | parameters |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        cells = (
            row["name"],
            f"{row['loss']:.4f} ± {row['spread']:.4f}",
            *(f"{row[name]:.4f}" for name in ("perceptual", "l1", "ssim")),
            *(f"{row[name] / MEGABYTE:.1f}" for name in ("attention_bytes", "step_bytes")),
            f"{row['steps']:.0f}",
            f"{row['parameters'] / 1e6:.2f} M",
        )
        table.add_row(*(cells[number] for number in PRINTED))
        lines.append(f"| {' | '.join(cells)} |")
    console.print(table)
    write_json(out / "distortion.json", {"rows": rows, "runs": results})
    write_text(out / "distortion.md", "\n".join(lines) + "\n")
    _plot(out / "distortion.png", rows)
    write_png(out / "distortion_examples.png", _examples(rows, shown))
    console.print(f"written to {out}: distortion.md, .json, .png and distortion_examples.png", soft_wrap=True)


def _row(name: str, runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    def mean(group: str, key: str) -> float:
        return statistics.fmean(run[group][key] for run in runs)

    losses = [run["scores"]["loss"] for run in runs]
    return {
        "name": name,
        "loss": statistics.fmean(losses),
        "spread": statistics.stdev(losses) if len(losses) > 1 else 0.0,
        "perceptual": mean("scores", "perceptual"),
        "l1": mean("scores", "l1"),
        "ssim": mean("scores", "ssim_gaussian"),
        "attention_bytes": mean("bytes", "attention"),
        "step_bytes": mean("bytes", "step"),
        "steps": statistics.fmean(run["steps"] for run in runs),
        "parameters": runs[0]["parameters"],
    }


def _plot(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    from matplotlib.figure import Figure  # without pyplot, whose windows and backend are none of ours

    figure = Figure(figsize=(11, 4.5))
    axes = figure.subplots(1, 2, sharey=True)
    for axis, key, label in zip(
        axes, ("attention_bytes", "step_bytes"), ("attention blocks, batch 1", "whole training step"), strict=True
    ):
        for index, row in enumerate(rows):
            colour = f"C{index}"
            axis.errorbar(row[key] / MEGABYTE, row["loss"], row["spread"], fmt="o", capsize=4, color=colour)
            axis.annotate(
                row["name"], (row[key] / MEGABYTE, row["loss"]), xytext=(7, 5), textcoords="offset points", color=colour
            )
        axis.set_xlabel(f"peak memory forward and backward, MB: {label}")
        axis.margins(x=0.25, y=0.15)
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("held-out loss of the distortion task")
    figure.suptitle("Less is better on both axes; bars: standard deviation over seeds")
    figure.tight_layout()
    replace_file(path, lambda file: figure.savefig(file, format="png", dpi=110))


def _examples(rows: Sequence[dict[str, Any]], shown: Mapping[str, Path]) -> Image.Image:
    """Per case two rows: the results, and above them their absolute errors (Fig. 5b)."""
    arrays = {row["name"]: read_shown(shown[row["name"]]) for row in rows}
    first = arrays[rows[0]["name"]]
    lines = []
    for case in range(len(first["source"])):
        truth = first["truth"][case]
        errors = [np.abs(arrays[row["name"]]["result"][case].astype(int) - truth).mean(axis=0) for row in rows]
        grey = [np.clip(ERROR_GAIN * error, 0, 255).astype(np.uint8)[None].repeat(3, axis=0) for error in errors]
        blank = np.full_like(truth, 255)
        results = [arrays[row["name"]]["result"][case] for row in rows]
        lines += [[blank, blank, *grey], [first["source"][case], truth, *results]]
    pictures = [[_enlarged(cell) for cell in line] for line in lines]
    headers = ["source", "truth", *(row["name"] for row in rows)]
    return draw_sheet(
        pictures, headers, f"held-out people under a random map; above: absolute error, {ERROR_GAIN} times"
    )


def _enlarged(pixels: np.ndarray) -> Image.Image:
    picture = Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0)))
    return picture.resize((picture.width * SCALE, picture.height * SCALE), Image.Resampling.NEAREST)
