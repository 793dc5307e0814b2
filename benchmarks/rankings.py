"""What does each ranking capture of what could be captured, and how long does it take?

``python -m benchmarks.rankings``.

Features of photographs, video and sound, see :mod:`benchmarks.features`; nothing is trained. Captured is dense
attention's weight on the keys that GPA attends to; it is divided by what the best choice of as many coarse keys for the
same cells captures. Features are taken as directions, all of one length, and as they are; a perplexity says how many
keys a query of dense attention attends to. Each cell is one coarse query. Time is that of the whole forward pass over
that with ``ranking="mean"``, in turns, on the features themselves.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass
from functools import partial
from statistics import fmean, median
from typing import Any

import torch
from torch import Tensor

import gpa_nd
from benchmarks import report
from benchmarks.clock import medians
from benchmarks.features import CHANNELS, Source, sources
from benchmarks.quality import exactly
from benchmarks.report import Found, Section
from benchmarks.tables import Table, milliseconds, times
from gpa_nd import GPA
from gpa_nd.ops import GridDownsampler
from gpa_nd.partitioners import GridPartitioner

RANKINGS = ("mean", "rms", "moments", "rerank")
PERPLEXITIES = (16, 64, 512, 2048)
KEYS_PER_QUERY = 192
FACTORS = {1: ((4,), (8,), (16,)), 2: ((2, 2), (4, 4)), 3: ((1, 2, 2), (2, 4, 4))}


def main() -> None:
    """The command line."""
    options = report.parser("rankings", __doc__).parse_args()
    found = sources(quick=options.quick)
    perplexities = (8,) if options.quick else PERPLEXITIES
    sections = [
        Section(
            kind,
            [
                Item(source, factor, perplexity, directions)
                for source in found
                if source.kind == kind
                for directions in (True, False)
                for perplexity in perplexities
                for factor in FACTORS[len(source.shape)]
            ],
            lambda item: measure(item, options),
            partial(tables, kind),
        )
        for kind in dict.fromkeys(source.kind for source in found)
    ]
    report.run("rankings", sections, options)


@dataclass(frozen=True)
class Item:
    """Features, how widely dense attention spreads over them, and a downsampling factor."""

    source: Source
    factor: tuple[int, ...]
    perplexity: int
    directions: bool

    def __str__(self) -> str:
        length = "directions" if self.directions else "as they are"
        return f"{self.source}, {length}, perplexity {self.perplexity}, d={'×'.join(map(str, self.factor))}"

    @property
    def kappa(self) -> int:
        """So that a query attends to 192 keys."""
        return max(1, KEYS_PER_QUERY // math.prod(self.factor))

    def layout(self) -> gpa_nd.Layout:
        """A cell for each coarse query."""
        cells = tuple(-(-n // f) for n, f in zip(self.source.shape, self.factor, strict=True))
        gpa = GPA(GridPartitioner(cells), GridDownsampler(self.factor), kappa=1, ranking="rerank")
        return gpa.layout(self.source.shape, self.source.shape)


@torch.no_grad()
def measure(item: Item, options: argparse.Namespace) -> dict[str, Any]:
    """What each ranking captures, as a part of what could be, and seconds of a forward pass."""
    q, k, v = (x.to(options.device) for x in item.source.tokens(item.perplexity, directions=item.directions))
    layout = item.layout().to(options.device)
    _, (mass,) = exactly(q, k, v, [layout])
    kappa = min(item.kappa, len(layout.key_groups) // 2)
    best = mass.topk(kappa).values.sum()

    def forward(ranking: str) -> Tensor:
        return gpa_nd.gpa_attention(q, k, v, layout, kappa=kappa, ranking=ranking)

    found: dict[str, Any] = {"kappa": kappa, "best": float(best / q.shape[2]), "factor": item.factor}
    found |= {"perplexity": item.perplexity, "directions": item.directions}
    for ranking in RANKINGS:
        relevant = gpa_nd.select_keys(q, k, layout, kappa=kappa, ranking=ranking)[0, 0]
        found[ranking] = float(mass.gather(-1, relevant).sum() / best)
    runs = {ranking: lambda ranking=ranking: forward(ranking) for ranking in RANKINGS}
    found["seconds"] = medians(runs, options.device, rounds=options.rounds, at_most=0.5)
    return found


def tables(kind: str, found: Found) -> list[Table]:
    """One row for each factor and perplexity, the mean over sources and lengths, and the worst of them."""
    sources_of = list(dict.fromkeys(entry["item"].split(", directions")[0].split(", as they")[0] for entry in found))
    table = Table(
        f"{kind.capitalize()}: what does each ranking capture of what could be captured?",
        ("", "perplexity", "the best", *(f"{ranking}{what}" for ranking in RANKINGS for what in ("", ", worst"))),
        note=f"{'; '.join(sources_of)}. {CHANNELS} channels; each query attends to about {KEYS_PER_QUERY} keys. The "
        "best: how much of dense attention's weight the best choice captures; the others: captured over that, in the "
        "mean over sources and over features as directions and as they are, and the worst.",
    )
    clock = Table(
        f"{kind.capitalize()}: how long does it take?",
        ("", *RANKINGS[:1], *(f"{ranking} takes" for ranking in RANKINGS[1:])),
        note="Forward pass with the ranking by the mean, and times that; medians over perplexities and sources.",
    )
    for factor in dict.fromkeys(tuple(entry["factor"]) for entry in found):
        d = "×".join(map(str, factor))
        of_factor = [entry for entry in found if tuple(entry["factor"]) == factor]
        for perplexity in dict.fromkeys(entry["perplexity"] for entry in of_factor):
            some = [entry for entry in of_factor if entry["perplexity"] == perplexity]
            cells = [f"{fmean(entry['best'] for entry in some):.1%}"]
            for ranking in RANKINGS:
                parts = [entry[ranking] for entry in some]
                cells += [f"{fmean(parts):.2f}", f"{min(parts):.2f}"]
            table.add(f"d={d}, κ={some[0]['kappa']}", perplexity, *cells)
        mean = median(entry["seconds"]["mean"] for entry in of_factor)
        ratios = {
            ranking: median(entry["seconds"][ranking] / entry["seconds"]["mean"] for entry in of_factor)
            for ranking in RANKINGS[1:]
        }
        clock.add(f"d={d}, κ={of_factor[0]['kappa']}", milliseconds(mean), *map(times, ratios.values()))
    return [table, clock]


if __name__ == "__main__":
    main()
