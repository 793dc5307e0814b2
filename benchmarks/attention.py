"""GPA against dense attention and its peers, in one run: ``python -m benchmarks.attention``.

Time, forward and with backward, and peak memory; both phases and all rearranging counted. What is compared takes turns
on the same machine, so that only ratios mean anything. Beside them stands the machine's own floor: operations ÷
measured rate of its matrix product + bytes ÷ measured rate of its copy.

GPA is many short parallel steps. Beside other busy processes, OpenMP's threads wait for one another far longer than
they work, unless ``OMP_WAIT_POLICY=passive`` or ``OMP_NUM_THREADS=1`` is set: measure on an idle machine.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch

import gpa_nd
from benchmarks import contestants, geometries, report
from benchmarks.clock import medians
from benchmarks.contestants import (
    DENSE,
    EVERYBODY,
    FLEX,
    GPA,
    NATIVE_SPARSE,
    NYSTROM,
    PERFORMER,
    REFERENCE,
    Contestant,
    Skipped,
)
from benchmarks.floor import Floor, backward_work, forward_work, measured_floor
from benchmarks.fresh import extra_bytes
from benchmarks.geometries import Geometry, Problem, audio, image, nodes, of_size, video
from benchmarks.report import Found, Section
from benchmarks.tables import Table, mebibytes, milliseconds, ratio, times

FLOOR = "Floor: operations ÷ measured matmul rate + bytes ÷ measured copy rate, of both phases and all rearranging."
FORWARD, BOTH = "forward", "forward + backward"
SLOW = 2.0  # seconds, from which on a call is made once and remembered


def main() -> None:
    """The command line."""
    parser = report.parser("attention", __doc__)
    parser.add_argument("--channels", type=report.positive, default=64, help="of q, k and v (default: 64)")
    options = parser.parse_args()
    report.run("attention", Benchmark(options).sections(), options)


class Benchmark:
    """The questions, at the sizes and on the device of the options."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options, self.device, self.quick = options, options.device, options.quick
        self.pivot = image(32, 4, 4, kappa=4) if self.quick else image(256)
        self._slow: dict[tuple[object, ...], float] = {}

    def sections(self) -> list[Section]:
        """One for each question."""
        both = (FORWARD, BOTH)
        sides = (16, 32) if self.quick else (128, 256, 512)
        balanced = ((16, 3), (32, 4)) if self.quick else ((128, 3), (256, 4), (512, 5), (1024, 6))
        sizes = (256, 1024) if self.quick else tuple(4**exponent for exponent in range(5, 11))
        cells = 4 if self.quick else 32
        return [
            Section("pivot", (*both, "memory"), lambda kind: self.race(kind, torch.float32), self.pivot_tables),
            Section("bfloat16", both, lambda kind: self.race(kind, torch.bfloat16), self.bfloat16_tables),
            Section("exponent", [image(n, d, cells) for n, d in balanced], self.alone, self.exponent_tables),
            Section("memory", [image(n, max(1, n // (2 * cells)), cells) for n in sides], self.memory, memory_tables),
            Section("geometries", self.geometries(), self.geometry, geometry_tables),
            Section("crossover", sizes, self.crossover, crossover_tables),
        ]

    # The pivot --------------------------------------------------------------------------------------------------------

    def race(self, kind: str, dtype: torch.dtype) -> dict[str, Any]:
        """Everybody at the pivot; in bfloat16 dense attention, FlexAttention and GPA, which also runs in float32."""
        problem = self.problem(self.pivot, dtype)
        everybody = EVERYBODY if dtype == torch.float32 else (GPA, DENSE, FLEX)
        if self.quick and (kind == "memory" or dtype != torch.float32):  # compiling takes seconds each time
            everybody = [someone for someone in everybody if someone is not FLEX]
        if kind == "memory":
            return self.memories(everybody, problem)
        found = self.seconds(everybody, problem, backward=kind == BOTH)
        found["floor"] = self.floor(problem, backward=kind == BOTH)
        if dtype != torch.float32:
            alone = self.seconds((GPA,), self.problem(self.pivot, torch.float32), backward=kind == BOTH)
            found["seconds"] |= {"GPA, float32": alone["seconds"]["GPA"]}
        return found

    def pivot_tables(self, found: Found) -> list[Table]:
        """Time and memory of everybody who can do something here; the note says why others cannot."""
        table = Table(
            f"How much faster and smaller than the others? {self.pivot}, {self.options.channels} channels, float32",
            ("", "forward", "÷ GPA", "÷ floor", "with backward", "÷ GPA", "÷ floor", "peak memory", "÷ GPA"),
        )
        reasons: dict[str, str] = {}
        memory = found[2]["bytes"]
        for contestant in EVERYBODY:
            cells: list[object] = []
            for entry in found[:2]:
                reasons |= entry["skipped"]
                mine, best = entry["seconds"].get(contestant.name), entry["seconds"]["GPA"]
                cells += [milliseconds(mine), times(ratio(mine, best))]
                cells.append(times(ratio(mine, entry["floor"])) if contestant is GPA else None)
            mine = memory.get(contestant.name)
            cells += [mebibytes(mine), times(ratio(mine, memory.get("GPA")))]
            if any(cells):
                table.add(contestant.name, *cells)
        table.note = " ".join(
            [
                "Peak memory: of forward and backward (FlexAttention: forward), over what there was before the call.",
                "FlexAttention is given the blocks that Phase 1 found, which is not in its time; putting tokens into",
                "blocks and back is.",
                FLOOR,
                *sentences(reasons),
            ]
        )
        return [table]

    def bfloat16_tables(self, found: Found) -> list[Table]:
        """The same in bfloat16, and GPA in float32 beside it."""
        can = torch.cpu.get_capabilities() if self.device.type == "cpu" else {}
        units = [name for name in ("amx_bf16", "avx512_bf16") if can.get(name)]
        table = Table(
            f"And in bfloat16? {self.pivot}, {self.options.channels} channels",
            ("", "forward", "÷ GPA", "÷ floor", "with backward", "÷ GPA", "÷ floor"),
        )
        reasons: dict[str, str] = {}
        for name in ("GPA", "GPA, float32", "dense", "FlexAttention"):
            cells: list[object] = []
            for entry in found:
                reasons |= entry["skipped"]
                mine = entry["seconds"].get(name)
                cells += [milliseconds(mine), times(ratio(mine, entry["seconds"]["GPA"]))]
                cells.append(times(ratio(mine, entry["floor"])) if name == "GPA" else None)
            if any(cells):
                table.add(name, *cells)
        here = f"This processor's instructions for bfloat16: {', '.join(units) or 'none'}." if can else ""
        table.note = " ".join(filter(None, [here, *sentences(reasons)]))
        return [table]

    # Growth -----------------------------------------------------------------------------------------------------------

    def alone(self, geometry: Geometry) -> dict[str, Any]:
        """GPA's time and floor, and what Phase 1 takes of it."""
        problem = self.problem(geometry)
        found: dict[str, Any] = {"elements": geometry.elements}
        for name, backward in ((FORWARD, False), (BOTH, True)):
            one = self.seconds((GPA,), problem, backward=backward)
            found[name] = {"seconds": one["seconds"]["GPA"], "floor": self.floor(problem, backward=backward)}
        layout = geometries.layout(geometry, self.device)
        q, k, _ = (x.detach() for x in problem.tokens())
        phase_1 = {"": lambda: gpa_nd.select_keys(q, k, layout, kappa=geometry.kappa)}
        return found | {"phase 1": medians(phase_1, self.device, rounds=self.options.rounds)[""]}

    def exponent_tables(self, found: Found) -> list[Table]:
        """The power of the number of elements that time grows with."""
        table = Table(
            "How does time grow, with d chosen so that the two phases balance?",
            ("", "forward", "of it Phase 1", "÷ floor", "with backward", "÷ floor"),
            note=f"Theory: (n/d²)² + n·d²·κ, so 4/3 at best with one coarse level. {FLOOR}",
        )
        for entry in found:
            forward, both = entry[FORWARD], entry[BOTH]
            table.add(
                entry["item"],
                milliseconds(forward["seconds"]),
                f"{entry['phase 1'] / forward['seconds']:.0%}",
                times(forward["seconds"] / forward["floor"]),
                milliseconds(both["seconds"]),
                times(both["seconds"] / both["floor"]),
            )
        fitted = [
            exponent([(entry["elements"], entry[kind]["seconds"]) for entry in found]) for kind in (FORWARD, BOTH)
        ]
        table.add("fitted exponent", f"{fitted[0]:.2f}", None, None, f"{fitted[1]:.2f}", None)
        return [table]

    # Memory -----------------------------------------------------------------------------------------------------------

    def memory(self, geometry: Geometry) -> dict[str, Any]:
        """Peak bytes in units of q, k, v and out."""
        problem = self.problem(geometry)
        found = {"token bytes": problem.token_bytes}
        for name, backward in ((FORWARD, False), (BOTH, True)):
            found[name] = extra_bytes(GPA, problem, backward=backward)
        return found

    def memories(self, everybody: Sequence[Contestant], problem: Problem) -> dict[str, Any]:
        """Peak bytes of everybody, with backward where there is one."""
        found: dict[str, Any] = {"bytes": {}, "skipped": {}}
        for contestant in everybody:
            try:
                found["bytes"][contestant.name] = extra_bytes(
                    contestant, problem, backward=contestant is not FLEX or self.device.type != "cpu"
                )
            except Skipped as reason:
                found["skipped"][contestant.name] = str(reason)
        return found

    # Geometries and sizes ---------------------------------------------------------------------------------------------

    def geometries(self) -> list[Geometry]:
        """As many elements on each."""
        if self.quick:
            return [
                audio(256, 4, 8, 4),
                image(16, 2, 4, 4),
                video((4, 8, 8), (2, 2, 2), (2, 2, 2), 4),
                nodes(256, 8, 8, 4),
            ]
        return [audio(2**14), image(128), video((16, 32, 32), (2, 4, 4), (8, 8, 8), 12), nodes(2**14)]

    def geometry(self, geometry: Geometry) -> dict[str, Any]:
        """GPA and dense attention."""
        problem = self.problem(geometry)
        found: dict[str, Any] = {"memory": self.memories((GPA, DENSE), problem)["bytes"]}
        for name, backward in ((FORWARD, False), (BOTH, True)):
            found[name] = self.seconds((GPA, DENSE), problem, backward=backward)
            found[name]["floor"] = self.floor(problem, backward=backward)
        return found

    def crossover(self, n: int) -> dict[str, Any]:
        """GPA on every geometry of n elements, and the others, to which n tokens are n tokens."""
        found: dict[str, Any] = {"elements": n}
        for name in (FORWARD, BOTH):
            entry: dict[str, Any] = {"seconds": {}, "skipped": {}}
            for geometry in of_size(n):
                others = (GPA, DENSE, NYSTROM, PERFORMER, NATIVE_SPARSE) if geometry.kind == "2-D" else (GPA,)
                one = self.seconds(others, self.problem(geometry), backward=name == BOTH)
                entry["seconds"][f"GPA {geometry.kind}"] = one["seconds"].pop("GPA")
                entry["seconds"] |= one["seconds"]
                entry["skipped"] |= one["skipped"]
            found[name] = entry
        return found

    # Measuring --------------------------------------------------------------------------------------------------------

    def problem(self, geometry: Geometry, dtype: torch.dtype = torch.float32) -> Problem:
        """The tokens to attend."""
        return Problem(geometry, self.options.channels, dtype, self.device)

    def seconds(self, everybody: Sequence[Contestant], problem: Problem, *, backward: bool) -> dict[str, Any]:
        """Median seconds of those that take part, and why others do not."""
        tokens, runs, skipped, found = problem.tokens(), {}, {}, {}
        for contestant in everybody:
            if (known := self._slow.get(self._key(contestant, problem, backward))) is not None:
                found[contestant.name] = known
                continue
            try:
                attend = contestant.attend(problem, backward=backward)
            except Skipped as reason:
                skipped[contestant.name] = str(reason)
            else:
                runs[contestant.name] = contestants.passes(attend, tokens, backward=backward)
        found |= medians(runs, self.device, rounds=self.options.rounds, at_most=SLOW)
        for contestant in everybody:
            if found.get(contestant.name, 0) > SLOW:
                self._slow[self._key(contestant, problem, backward)] = found[contestant.name]
        return {"seconds": found, "skipped": skipped}

    def _key(self, contestant: Contestant, problem: Problem, backward: bool) -> tuple[object, ...]:
        """What tells one measurement from another: to all but GPA, n tokens are n tokens."""
        where = problem.geometry if contestant in (GPA, FLEX, REFERENCE) else problem.geometry.elements
        return contestant.name, where, problem.channels, problem.dtype, backward

    def floor(self, problem: Problem, *, backward: bool) -> float:
        """The time that nothing on this machine could do GPA's work in."""
        geometry = problem.geometry
        layout = geometries.layout(geometry, problem.device)
        q, k, v = (x.detach() for x in problem.tokens())
        relevant = gpa_nd.select_keys(q, k, layout, kappa=geometry.kappa)
        work = forward_work(q, k, v, layout, relevant)
        if backward:
            work += backward_work(q, k, v, layout, relevant)
        return rates(problem.device, problem.dtype).seconds(work)


@lru_cache
def rates(device: torch.device, dtype: torch.dtype) -> Floor:
    """The machine's own rates, measured once in a run."""
    return measured_floor(device, dtype, rounds=5)


def exponent(points: Sequence[tuple[float, float]]) -> float:
    """The slope of the straight line, in logarithms, that is nearest to the points."""
    x, y = ([math.log(value) for value in values] for values in zip(*points, strict=True))
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    return sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True)) / sum((a - mean_x) ** 2 for a in x)


def memory_tables(found: Found) -> list[Table]:
    """GPA's peak memory."""
    table = Table(
        "How much memory does it need, in units of the bytes of q, k, v and out together?",
        ("", "q, k, v, out", "forward", "", "with backward", ""),
        note="Peak resident size over that before the call, in a fresh process; out and three gradients are 1.0×.",
    )
    for entry in found:
        unit = entry["token bytes"]
        cells = [cell for kind in (FORWARD, BOTH) for cell in (mebibytes(entry[kind]), f"{entry[kind] / unit:.2f}×")]
        table.add(entry["item"], mebibytes(unit), *cells)
    return [table]


def geometry_tables(found: Found) -> list[Table]:
    """GPA and dense attention on as many elements of each geometry."""
    table = Table(
        "And on other geometries?",
        ("", "forward", "dense", "ratio", "÷ floor", "with backward", "dense", "ratio", "÷ floor", "memory", "dense"),
        note=f"Memory: peak of forward and backward over what there was before. {FLOOR}",
    )
    for entry in found:
        cells: list[object] = []
        for kind in (FORWARD, BOTH):
            mine, other = (entry[kind]["seconds"].get(name) for name in ("GPA", "dense"))
            cells += [milliseconds(mine), milliseconds(other), times(ratio(other, mine))]
            cells.append(times(ratio(mine, entry[kind]["floor"])))
        cells += [mebibytes(entry["memory"].get(name)) for name in ("GPA", "dense")]
        table.add(entry["item"], *cells)
    return [table]


def crossover_tables(found: Found) -> list[Table]:
    """One for forward, one with backward: seconds, how much faster GPA is than dense, and from where on."""
    made = []
    ours = [f"GPA {geometry.kind}" for geometry in of_size(1024)]
    for kind in (FORWARD, BOTH):
        others = [
            contestant.name
            for contestant in (DENSE, NYSTROM, PERFORMER, NATIVE_SPARSE)
            if any(contestant.name in entry[kind]["seconds"] for entry in found)
        ]
        table = Table(f"From which size on does GPA win? {kind}", ("elements", *others, *ours))
        reasons: dict[str, str] = {}
        for entry in found:
            seconds = entry[kind]["seconds"]
            reasons |= entry[kind]["skipped"]
            cells = [milliseconds(seconds.get(name)) for name in others]
            for name in ours:
                gain = times(ratio(seconds.get("dense"), seconds[name]))
                cells.append(f"{milliseconds(seconds[name])}{f' ({gain})' if gain else ''}")
            table.add(f"{entry['elements']:,}", *cells)
        table.add("faster than dense from", *[None] * len(others), *(wins_from(found, kind, name) for name in ours))
        table.note = " ".join(
            [
                "In brackets how much faster than dense attention, which is the same for all geometries. Group sizes",
                "grow with the cube root of n; κ = 12, at most 1,024 cells.",
                *sentences(reasons),
            ]
        )
        made.append(table)
    return made


def wins_from(found: Found, kind: str, name: str) -> str | None:
    """The smallest number of elements from which on GPA was never slower than dense attention."""
    best = None
    for entry in reversed(found):
        seconds = entry[kind]["seconds"]
        if "dense" in seconds and seconds["dense"] < seconds[name]:
            break
        if "dense" in seconds:
            best = f"{entry['elements']:,}"
    return best


def sentences(reasons: dict[str, str]) -> list[str]:
    """Why some do not take part."""
    return [f"{name}: {reason}." for name, reason in reasons.items()]


if __name__ == "__main__":
    main()
