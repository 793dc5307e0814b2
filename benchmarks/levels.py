"""Four million elements and how the time grows: ``python -m benchmarks.levels``.

Phase 1 by GPA itself, on two or three levels, forward, float32, 32 channels; every size in a fresh process, with the
peak of its resident memory (interpreter, q, k, v, result and all); limit 6 GB. The exponent is the slope of log time
over log size from the smallest to the largest; the limit is 1.1. One level is timed at the smaller sizes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch

import gpa_nd
from benchmarks import geometries, report
from benchmarks.clock import Stopwatch, median_seconds
from benchmarks.fresh import in_fresh_process
from benchmarks.memory import resident_peak, start_peak
from benchmarks.report import Found, Section
from benchmarks.tables import Table, times
from gpa_nd import GPA

MOST_EXPONENT = 1.1
MOST_BYTES = 6e9
CHANNELS = 32
PER_CELL = 1024  # queries
FOR_ONE_LEVEL = 2**18  # elements, at most


@dataclass(frozen=True)
class Item:
    """A structure of some size."""

    domain: str
    shape: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.domain}, {math.prod(self.shape):,}"

    def make(self, levels: int) -> GPA:
        """Cells of about 1,024 queries, groups of 16 elements, κ = 8 at every level."""
        kappa = (8,) * levels
        match self.domain:
            case "audio":
                return gpa_nd.audio(16, self.shape[0] // PER_CELL, kappa)
            case "image":
                return gpa_nd.image(4, tuple(size // 32 for size in self.shape), kappa)
            case "video":
                return gpa_nd.video(
                    (2, 4, 2), tuple(max(1, size // f) for size, f in zip(self.shape, (8, 16, 8), strict=True)), kappa
                )
        edges = geometries.triangles(math.isqrt(self.shape[0]))
        return gpa_nd.graph(edges, self.shape[0], 16, max(1, self.shape[0] // PER_CELL), kappa)


def items(quick: bool) -> list[Item]:
    """Each domain at sizes four times as large as the one before."""
    sizes = [2**12, 2**14] if quick else [2**16, 2**18, 2**20, 2**22]
    found = []
    for n in sizes:
        side = math.isqrt(n)
        frames = 2 ** ((n.bit_length() - 1) // 3)
        wide = 2 ** math.ceil(math.log2(n // frames) / 2)
        shapes = {"audio": (n,), "image": (side, side), "video": (frames, wide, n // frames // wide), "graph": (n,)}
        found += [Item(domain, shape) for domain, shape in shapes.items()]
    return sorted(found, key=lambda item: list(shapes).index(item.domain))


def main() -> None:
    """The command line."""
    parser = report.parser("levels", __doc__)
    options = parser.parse_args()
    section = Section(
        "levels",
        items(options.quick),
        lambda item: in_fresh_process(measure, item, options.device, options.rounds),
        tables,
    )
    report.run("levels", [section], options)


def measure(item: Item, device: torch.device, rounds: int) -> dict[str, Any]:
    """Seconds and peak resident bytes of a forward pass, in this process."""
    n = math.prod(item.shape)
    levels = 2 if n <= 2**18 else 3
    watch = Stopwatch(device)
    gpa = item.make(levels)
    gpa.layout(item.shape, item.shape, device)
    found: dict[str, Any] = {"elements": n, "levels": levels, "domain": item.domain, "layout": watch.stop().seconds}
    start_peak()
    q, k, v = (torch.randn(1, 1, *item.shape, CHANNELS, device=device) for _ in range(3))
    with torch.no_grad():
        found["seconds"] = median_seconds(lambda: gpa(q, k, v), device, rounds=rounds, warmup=1, at_most=10.0)
        found["resident"] = resident_peak()
        if n <= FOR_ONE_LEVEL:
            flat = item.make(1)
            found["one level"] = median_seconds(lambda: flat(q, k, v), device, rounds=rounds, warmup=1, at_most=10.0)
    return found


def tables(found: Found) -> list[Table]:
    """One row for each size, and the exponents."""
    table = Table(
        "How do time and memory grow with the number of elements?",
        ["structure", "levels", "forward", "one level takes", "elements per second", "peak memory", "layout, once"],
        note=f"Peak memory counts the process with q, k, v and the result; at most {MOST_BYTES / 1e9:g} GB are wanted.",
    )
    for row in found:
        table.add(
            row["item"],
            row["levels"],
            f"{row['seconds']:.3g} s",
            times(row["one level"] / row["seconds"]) if "one level" in row else None,
            f"{row['elements'] / row['seconds'] / 1e6:.2f} million",
            f"{row['resident'] / 1e9:.2f} GB",
            f"{row['layout']:.2g} s",
        )
    exponents = Table("With which power of the number of elements does the time grow?", ["structure", "power"])
    for domain in dict.fromkeys(row["domain"] for row in found):
        rows = [row for row in found if row["domain"] == domain]
        first, last = rows[0], rows[-1]
        if last["elements"] > first["elements"]:
            power = math.log(last["seconds"] / first["seconds"]) / math.log(last["elements"] / first["elements"])
            exponents.add(domain, f"{power:.2f}")
    exponents.note = f"From the smallest size to the largest; at most {MOST_EXPONENT} is wanted."
    return [table, exponents]


if __name__ == "__main__":
    main()
