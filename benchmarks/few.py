"""From how many elements on GPA is faster than dense attention as users meet it: ``python -m benchmarks.few``.

The ready attention for each kind of data, with its default settings, against PyTorch's fused dense attention, to which
n tokens are n tokens. All take turns in one run, and only their ratios mean anything: measure on an idle machine.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

import gpa_nd
from benchmarks import report
from benchmarks.attention import BOTH, FORWARD, wins_from
from benchmarks.clock import in_turn
from benchmarks.contestants import passes
from benchmarks.geometries import triangles
from benchmarks.report import Found, Section
from benchmarks.tables import Table, milliseconds, ratio, times
from gpa_nd import GPA

KINDS = ("audio", "image", "video", "graph")


@dataclass(frozen=True)
class Few:
    """So many elements, and the shape that each kind of data gives them."""

    image: tuple[int, int]
    video: tuple[int, int, int]

    @property
    def elements(self) -> int:
        """How many there are."""
        return self.image[0] * self.image[1]

    def __str__(self) -> str:
        return f"{self.elements:,}"

    def attentions(self) -> dict[str, tuple[tuple[int, ...], GPA]]:
        """By its kind the shape of q, k and v, and the attention."""
        n = (self.elements,)
        graph = gpa_nd.graph(triangles(*self.image), self.elements)
        grids = (n, gpa_nd.audio()), (self.image, gpa_nd.image()), (self.video, gpa_nd.video())
        return dict(zip(KINDS, (*grids, (n, graph)), strict=True))


SIZES = (
    Few((32, 32), (4, 16, 16)),
    Few((32, 48), (6, 16, 16)),
    Few((32, 64), (8, 16, 16)),
    Few((64, 64), (16, 16, 16)),
)


def main() -> None:
    """The command line."""
    parser = report.parser("few", __doc__)
    parser.set_defaults(rounds=50)
    parser.add_argument("--channels", type=report.positive, default=64, help="of each head (default: 64)")
    parser.add_argument("--heads", type=report.positive, default=1, help="how many there are (default: 1)")
    options = parser.parse_args()

    def measure(few: Few) -> dict[str, Any]:
        shape = (1, options.heads, few.elements, options.channels)
        return measured(few, shape, options.device, options.rounds)

    report.run("few", [Section("few", SIZES[:2] if options.quick else SIZES, measure, tables)], options)


def measured(few: Few, shape: tuple[int, ...], device: torch.device, rounds: int) -> dict[str, Any]:
    """Median seconds of dense attention and of each kind, with and without the gradients."""
    rng = torch.Generator(device).manual_seed(0)
    tokens = [torch.randn(shape, generator=rng, device=device, requires_grad=True) for _ in range(3)]
    found: dict[str, Any] = {"elements": few.elements}
    for name in (FORWARD, BOTH):
        runs = {"dense": passes(F.scaled_dot_product_attention, tokens, backward=name == BOTH)}
        for kind, (axes, gpa) in few.attentions().items():

            def attend(q: Tensor, k: Tensor, v: Tensor, axes: tuple[int, ...] = axes, gpa: GPA = gpa) -> Tensor:
                return gpa(*(x.unflatten(2, axes) for x in (q, k, v))).flatten(2, -2)

            runs[kind] = passes(attend, tokens, backward=name == BOTH)
        found[name] = {"seconds": {run: median(took) for run, took in in_turn(runs, device, rounds=rounds).items()}}
    return found


def tables(found: Found) -> list[Table]:
    """One forward and one with the gradients: how much faster than dense attention."""
    made = []
    for name in (FORWARD, BOTH):
        table = Table(
            f"From how many elements on is GPA faster than dense attention? {name}", ("elements", "dense", *KINDS)
        )
        for entry in found:
            seconds = entry[name]["seconds"]
            cells = [
                f"{milliseconds(seconds[kind])} ({times(ratio(seconds['dense'], seconds[kind]))})" for kind in KINDS
            ]
            table.add(f"{entry['elements']:,}", milliseconds(seconds["dense"]), *cells)
        table.add("faster than dense from", None, *(wins_from(found, name, kind) for kind in KINDS))
        table.note = (
            "Default settings. In brackets how much faster than dense attention. A video of 1,024 elements has 32 "
            "groups, which are κ: all are selected, and GPA calls dense attention itself."
        )
        made.append(table)
    return made


if __name__ == "__main__":
    main()
