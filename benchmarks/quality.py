"""How near to dense attention for how much time and memory? ``python -m benchmarks.quality``.

Features of photographs, video and sound, see :mod:`benchmarks.features`; nothing is trained. Error: how far the result
is from dense attention's, relative to its size; 1 is what the mean of all values would score. Captured: how much of
dense attention's weight lies on the keys that GPA attends to; beside it the most that any choice of as many coarse keys
for the same cells could capture. The peers are taken over their own setting, landmarks and random features; compared at
equal cost is the best of those that cost no more than GPA.
"""

from __future__ import annotations

import argparse
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import gpa_nd
from benchmarks import contestants, geometries, report
from benchmarks.clock import medians
from benchmarks.contestants import DENSE, GPA, Contestant, Skipped
from benchmarks.features import CHANNELS, Source, sources
from benchmarks.files import write
from benchmarks.fresh import extra_bytes
from benchmarks.geometries import Geometry, Problem
from benchmarks.report import Found, Section
from benchmarks.tables import Table, mebibytes, milliseconds

PERPLEXITIES = (64, 512, 2048)
KAPPAS = (2, 4, 8, 12, 16, 32, 64)
LANDMARKS = (16, 32, 64, 128, 256, 512, 1024)
RANDOM_FEATURES = (32, 64, 128, 266, 512, 1024, 2048)
CLOSE = 1.05  # costs that differ by less are equal


def main() -> None:
    """The command line."""
    options = report.parser("quality", __doc__).parse_args()
    benchmark = Quality(options)
    found = report.run("quality", benchmark.sections(), options)
    if options.out:
        draw([entry for entries in found.values() for entry in entries], options.out / "quality.png")


@dataclass(frozen=True)
class Item:
    """A source of features, and how widely dense attention spreads."""

    source: Source
    perplexity: int

    def __str__(self) -> str:
        return f"{self.source}, perplexity {self.perplexity}"


@dataclass(frozen=True)
class Setting:
    """A contestant with one choice of what it can choose."""

    family: str
    says: str
    contestant: Contestant
    geometry: Geometry


class Quality:
    """Every source, as sharp and as soft attention."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self._costs: dict[tuple[object, ...], dict[str, float]] = {}

    def sections(self) -> list[Section]:
        """One for each kind of data."""
        perplexities = (8,) if self.options.quick else PERPLEXITIES
        found = sources(quick=self.options.quick)
        return [
            Section(
                kind,
                [Item(source, p) for source in found if source.kind == kind for p in perplexities],
                self.measure,
                partial(tables, kind),
            )
            for kind in dict.fromkeys(source.kind for source in found)
        ]

    @torch.no_grad()
    def measure(self, item: Item) -> dict[str, Any]:
        """Quality and costs of every setting on one source."""
        device, chosen = self.options.device, settings(item.source.shape, quick=self.options.quick)
        q, k, v = (x.to(device) for x in item.source.tokens(item.perplexity))
        ours = list(dict.fromkeys(replace(s.geometry, kappa=1) for s in chosen if s.contestant is GPA))
        exact, mass = exactly(q, k, v, [geometries.layout(geometry, device) for geometry in ours])
        rows = []
        for setting in chosen:
            problem = Problem(setting.geometry, CHANNELS, torch.float32, device)
            row: dict[str, Any] = {"family": setting.family, "setting": setting.says}
            try:
                out = setting.contestant.attend(problem)(q, k, v)
                row |= {"error": float((out - exact).norm() / exact.norm()), **self.costs(setting, problem)}
            except Skipped as reason:
                rows.append(row | {"skipped": str(reason)})
                continue
            if setting.contestant is GPA:
                of_cells = mass[ours.index(replace(setting.geometry, kappa=1))]
                row |= captured(of_cells, setting.geometry, q, k)
            rows.append(row)
        return {"kind": item.source.kind, "perplexity": item.perplexity, "rows": rows}

    def costs(self, setting: Setting, problem: Problem) -> dict[str, float]:
        """Seconds and peak bytes of a forward pass, measured once: they do not depend on what tokens hold."""
        key = (setting.family, setting.says, problem)
        if key not in self._costs:
            run = contestants.passes(setting.contestant.attend(problem), problem.tokens(), backward=False)
            seconds = medians({"": run}, problem.device, rounds=2 * self.options.rounds, at_most=1.0)[""]
            extra = extra_bytes(setting.contestant, problem, backward=False)
            self._costs[key] = {"seconds": seconds, "bytes": extra}
        return self._costs[key]


def settings(shape: tuple[int, ...], *, quick: bool) -> list[Setting]:
    """GPA over κ, with a cell for each coarse query; over fewer cells; over d, with as many keys; and the peers."""
    downsample = {1: (8,), 2: (4, 4), 3: (2, 4, 4)}[len(shape)]
    base = Geometry(shape, downsample, tuple(-(-n // d) for n, d in zip(shape, downsample, strict=True)), 12)
    kappas = (2, 4) if quick else KAPPAS
    made = [("GPA", f"κ={kappa}", replace(base, kappa=kappa)) for kappa in kappas]
    for part in (2, 4):
        cells = tuple(max(1, n // part) for n in base.cells)
        made.append(("GPA, m", f"κ=12, cells {part}× as wide", replace(base, cells=cells)))
    for down in tuple(max(1, d // 2) for d in base.downsample), tuple(2 * d for d in base.downsample):
        kappa = max(1, round(12 * math.prod(base.downsample) / math.prod(down)))
        cells = tuple(min(m, -(-n // d)) for m, n, d in zip(base.cells, shape, down, strict=True))
        says = f"d={'×'.join(map(str, down))}, κ={kappa}"
        made.append(("GPA, d", says, replace(base, downsample=down, cells=cells, kappa=kappa)))
    ours = [Setting(family, says, GPA, geometry) for family, says, geometry in made[: 2 if quick else None]]
    landmarks, features = ((8,), (32,)) if quick else (LANDMARKS, RANDOM_FEATURES)
    nystrom = [
        Setting("Nyström", f"{n} landmarks", Contestant("Nyström", partial(contestants.nystrom, landmarks=n)), base)
        for n in landmarks
    ]
    performer = [
        Setting("Performer", f"{n} features", Contestant("Performer", partial(contestants.performer, features=n)), base)
        for n in features
    ]
    return [*ours, *nystrom, *performer, Setting("dense", "", DENSE, base)]


def exactly(q: Tensor, k: Tensor, v: Tensor, layouts: Sequence[gpa_nd.Layout]) -> tuple[Tensor, list[Tensor]]:
    """Dense attention; and for each layout (m, n_k') how much weight all queries of a cell give to a coarse key."""
    outs = []
    mass = [torch.zeros(len(layout.query_cells), len(layout.key_groups), device=q.device) for layout in layouts]
    for queries in torch.arange(q.shape[2], device=q.device).split(512):
        weights = (q[0, 0, queries] @ k[0, 0].mT * q.shape[-1] ** -0.5).softmax(-1)
        outs.append(weights @ v[0, 0])
        for sums, layout in zip(mass, layouts, strict=True):
            of_groups = weights.new_zeros(len(queries), len(layout.key_groups))
            of_groups.index_add_(1, layout.key_groups.labels, weights)
            sums.index_add_(0, layout.fine_cells.labels[queries], of_groups)
    return torch.cat(outs)[None, None], mass


def captured(mass: Tensor, geometry: Geometry, q: Tensor, k: Tensor) -> dict[str, float]:
    """How much of dense attention's weight lies on GPA's choice, and on the best one of as many coarse keys."""
    relevant = gpa_nd.select_keys(q, k, geometries.layout(geometry, q.device), kappa=geometry.kappa)[0, 0]
    best = mass.topk(relevant.shape[-1]).values
    return {"captured": float(mass.gather(-1, relevant).sum() / q.shape[2]), "best": float(best.sum() / q.shape[2])}


# What comes of it -----------------------------------------------------------------------------------------------------


def tables(kind: str, found: Found) -> list[Table]:
    """Every setting; and the peers at GPA's cost."""
    perplexities = list(dict.fromkeys(entry["perplexity"] for entry in found))
    columns = [f"{name} at {p}" for p in perplexities for name in ("error", "captured", "best")]
    names = "; ".join(dict.fromkeys(entry["item"].rsplit(", perplexity", 1)[0] for entry in found))
    table = Table(
        f"How near to dense attention, and at what cost? {kind.capitalize()}",
        ("", "forward", "peak memory", *columns),
        note=f"Means over: {names}. At: the perplexity, to how many keys a query attends, the exponential of the mean "
        "entropy. Error: relative to dense attention's result; the mean of all values would score 1. Captured: dense "
        "attention's weight on the keys attended to; best: with the best choice of as many coarse keys. Performer adds "
        "0.0001 to all its features, under which they vanish where attention is sharp.",
    )
    of = {p: means(found, p) for p in perplexities}
    for number, row in enumerate(of[perplexities[0]]):
        cells: list[object] = []
        for p in perplexities:
            one = of[p][number]
            cells += [digits(one.get("error")), percent(one.get("captured")), percent(one.get("best"))]
        name = " ".join(filter(None, (row["family"].split(",")[0], row["setting"])))
        table.add(name, milliseconds(row.get("seconds")), mebibytes(row.get("bytes")), *cells)
    return [table, equal_cost_table(kind, of)]


def equal_cost_table(kind: str, of: dict[int, list[dict[str, Any]]]) -> Table:
    """The best that the peers do for what GPA costs."""
    table = Table(
        f"And at equal time, at equal memory? {kind.capitalize()}",
        ("", "forward", "peak memory", "GPA's error",
         *(f"{peer}, equal {cost}" for cost in ("time", "memory") for peer in PEERS)),
        note="The peers' errors at the best setting of theirs that costs no more; × is how much more the "
        "cheapest costs where none does.",
    )  # fmt: skip
    for p, rows in of.items():
        for row in rows:
            if row["family"] == "GPA":
                peers = [best_within(rows, peer, cost, row[cost]) for cost in ("seconds", "bytes") for peer in PEERS]
                name = f"perplexity {p}, GPA {row['setting']}"
                table.add(name, milliseconds(row["seconds"]), mebibytes(row["bytes"]), digits(row["error"]), *peers)
    return table


PEERS = ("Nyström", "Performer")


def best_within(rows: list[dict[str, Any]], peer: str, cost: str, most: float) -> str | None:
    """The smallest error of a peer that costs no more, and how it was set."""
    costs = [row for row in rows if row["family"] == peer and "error" in row]
    if not costs:
        return None
    if within := [row for row in costs if row[cost] <= CLOSE * most]:
        best = min(within, key=lambda row: row["error"])
        return f"{digits(best['error'])} ({best['setting'].split()[0]})"
    cheapest = min(costs, key=lambda row: row[cost])
    return f"{digits(cheapest['error'])} at {cheapest[cost] / most:.1f}×"


def means(found: Found, perplexity: int) -> list[dict[str, Any]]:
    """Setting after setting, the mean over sources of what was measured."""
    entries = [entry["rows"] for entry in found if entry["perplexity"] == perplexity]
    made = []
    for rows in zip(*entries, strict=True):
        numbers = [name for name, value in rows[0].items() if isinstance(value, float | int)]
        made.append(rows[0] | {name: sum(row[name] for row in rows) / len(rows) for name in numbers})
    return made


def digits(value: float | None) -> str | None:
    """An error."""
    return None if value is None else f"{value:.3f}"


def percent(value: float | None) -> str | None:
    """A share."""
    return None if value is None else f"{value:.1%}"


def draw(found: Found, path: Path) -> None:
    """Error over time, one column for each kind of data, one row for each perplexity."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    kinds = list(dict.fromkeys(entry["kind"] for entry in found))
    perplexities = list(dict.fromkeys(entry["perplexity"] for entry in found))
    figure, axes = plt.subplots(
        len(perplexities), len(kinds), figsize=(4 * len(kinds), 3.2 * len(perplexities)), squeeze=False, sharey="row",
        layout="constrained",
    )  # fmt: skip
    looks = {
        "GPA": ("#0b6e4f", "o", "GPA over κ"),
        "GPA, m": ("#0b6e4f", "s", "GPA, fewer cells"),
        "GPA, d": ("#0b6e4f", "^", "GPA, half and twice d"),
        "Nyström": ("#c1440e", "o", "Nyström over landmarks"),
        "Performer": ("#3a5fcd", "o", "Performer over features"),
    }
    for column, kind in enumerate(kinds):
        for row_number, perplexity in enumerate(perplexities):
            axis = axes[row_number][column]
            rows = means([entry for entry in found if entry["kind"] == kind], perplexity)
            for family, (colour, marker, label) in looks.items():
                points = [row for row in rows if row["family"] == family and "error" in row]
                style, filled = ("-", colour) if family in ("GPA", *PEERS) else ("none", "white")
                axis.plot(
                    [1e3 * row["seconds"] for row in points], [row["error"] for row in points],
                    color=colour, marker=marker, ls=style, mfc=filled, label=label,
                )  # fmt: skip
            dense = [row["seconds"] * 1e3 for row in rows if row["family"] == "dense"]
            axis.axvline(dense[0], color="#777777", ls=":", label="dense attention")
            axis.set(xscale="log", title=f"{kind}, perplexity {perplexity}")
            axis.grid(alpha=0.25)
            axis.set_xlabel("forward, ms") if row_number == len(perplexities) - 1 else None
            axis.set_ylabel("relative error") if column == 0 else None
    for first, *_ in axes:
        first.set_ylim(bottom=0)
    figure.legend(*axes[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    drawn = io.BytesIO()
    figure.savefig(drawn, dpi=130, format=path.suffix.removeprefix("."))
    plt.close(figure)
    write(path, drawn.getvalue())


if __name__ == "__main__":
    main()
