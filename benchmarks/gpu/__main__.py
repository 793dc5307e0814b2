"""The fused backend on a GPU, in one go: ``python -m benchmarks.gpu``.

Builds every kernel, checks it against the float64 reference, times it beside dense attention, FlexAttention given the
same blocks and the torch backend, prints one table per question, and writes ``<device>.json`` and ``<device>.md``. All
ratios are of times within this run on this machine. A row that fails is recorded with its error, and the rest goes on.

Exit status: 0 if all is right, 1 if a check failed or a row broke, 2 if there is no GPU. Times fail nothing.

``--interpret`` runs the checks alone, on tiny shapes, in Triton's interpreter on the CPU.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

from benchmarks.files import write, write_json
from benchmarks.floor import measured_floor
from benchmarks.gpu import checks, phases, report, times
from benchmarks.gpu.rows import PIVOT, Row, rows, tiny_rows, tokens
from benchmarks.machine import described

SECTIONS = ("build", "check", "time", "tune")
TUNED = (PIVOT, "image 256×256, d=2", "video", "tiny image")


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"), help="folder of the two files")
    parser.add_argument("--quick", action="store_true", help="bfloat16 and the pivots alone, fewer repeats and rounds")
    parser.add_argument("--tune", action="store_true", help="also look for faster configurations")
    parser.add_argument("--tune-minutes", type=float, default=6.0, help="how long to look for them (default: 6)")
    parser.add_argument(
        "--keep",
        action="store_true",
        help="let gpa_nd choose on this GPU what tuning found, now and before",
    )
    parser.add_argument(
        "--sections",
        help="some of build,check,time,tune; what others found before on the same machine is kept (default: the first "
        "three; with --interpret: check)",
    )
    parser.add_argument("--only", default="", help="only rows whose name contains this")
    parser.add_argument("--jobs", type=int, default=0, help="processes that build (default: half the CPUs, at most 8)")
    parser.add_argument(
        "--interpret",
        action="store_true",
        help="tiny shapes in Triton's interpreter; only the checks, if no --sections",
    )
    parser.add_argument("--build-row", nargs=2, metavar=("NUMBER", "DTYPE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    default = "check" if options.interpret else "build,check,time"
    sections = [*(options.sections or default).split(","), *(["tune"] if options.tune else [])]
    if unknown := set(sections) - set(SECTIONS):
        parser.error(f"--sections: expected some of {', '.join(SECTIONS)}, got {', '.join(sorted(unknown))}")
    if not options.keep:
        os.environ["GPA_ND_TUNED"] = ""  # what this user's machine has kept is no part of what is measured
    if options.interpret:
        os.environ["TRITON_INTERPRET"] = "1"
        if "triton" in sys.modules:
            raise RuntimeError("triton was imported before it could be told to interpret")
        device, table = torch.device("cpu"), tiny_rows()
    elif not torch.cuda.is_available():
        print("benchmarks.gpu: no GPU here, and nothing was measured; --interpret checks without one", file=sys.stderr)
        return 2
    else:
        device, table = torch.device("cuda", torch.cuda.current_device()), rows()
    if options.build_row:
        number, dtype = options.build_row
        build(table[int(number)], getattr(torch, dtype), device)
        return 0
    table = [row for row in table if options.only in row.name]
    if not table:
        parser.error(f"--only: no row's name contains {options.only!r}")
    return Session(options, device, table, list(dict.fromkeys(sections))).run()


def found_before(path: Path) -> dict[str, Any]:
    """What an earlier command wrote.

    Raises:
        ValueError: no tables can be made of it.
    """
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        report.tables(found)
        report.problems(found, list(SECTIONS))
    except Exception as error:  # whatever the tables meet in a file of another kind
        raise ValueError(
            f"{path}: expected what benchmarks.gpu wrote; move it away, or choose another --out"
        ) from error
    return found


def build(row: Row, dtype: torch.dtype, device: torch.device) -> None:
    """Run both phases and the backward once, so that every kernel is compiled and kept in Triton's cache."""
    data = tokens(row, dtype, device)
    checks.run(data, phases.select(data, row.kappa), "triton")


class Session:
    """One run of the command: what was found so far is on the disk after every row."""

    def __init__(
        self, options: argparse.Namespace, device: torch.device, table: list[Row], sections: list[str]
    ) -> None:
        self.options, self.device, self.sections = options, device, sections
        from gpa_nd.engine.fused import attention, selection  # noqa: F401  triton's version, and what tuning looks at

        quick = options.quick
        self.rounds, self.repeats = (8, 10) if quick else (30, 50)
        if options.interpret:
            self.rounds, self.repeats = 1, 1
        self.wanted = [(row, dtype) for row in table for dtype in (row.dtypes[:1] if quick else row.dtypes)]
        pivots = ("image", "video", "tiny image") if quick else ("",)
        self.to_time = [(row, dtype) for row, dtype in self.wanted if row.timed and row.name.startswith(pivots)]
        self.machine = described(device)
        name = "interpreter" if options.interpret else self.machine["device"]
        self.path = options.out / f"{''.join(c if c.isalnum() else '_' for c in name)}.json"
        self.found: dict[str, Any] = {"machine": self.machine}
        self.start = time.monotonic()

    def run(self) -> int:
        """All sections; the exit status."""
        self._keep_other_sections()
        print("  ".join(f"{name} {value}" for name, value in self.machine.items()), flush=True)
        if "build" in self.sections:
            self._build()
        if "check" in self.sections:
            self._section("check", self.wanted, lambda row, dtype: checks.check(row, dtype, self.device, self.repeats))
        if "time" in self.sections:
            self._time()
        if "tune" in self.sections:
            self._tune()
        self._write()
        print()
        print("\n\n".join(table.text() for table in report.tables(self.found)), flush=True)
        problems = report.problems(self.found, self.sections)
        print(f"\n{len(problems)} problems" if problems else "\nall checks passed", flush=True)
        for problem in problems:
            print(f"  {problem}", flush=True)
        print(f"written to {self.path} and {self.path.with_suffix('.md')}")
        return 1 if problems else 0

    def _keep_other_sections(self) -> None:
        """What an earlier command found on the same machine with the same versions: sections may be run apart."""
        if self.path.exists():
            kept = {name: value for name, value in found_before(self.path).items() if name not in self.sections}
            self.found |= kept if kept.get("machine") == self.machine else {}

    def _write(self) -> None:
        write_json(self.path, self.found)
        head = ", ".join(f"{name} {value}" for name, value in self.machine.items() if name != "device")
        parts = [f"## {self.machine['device']}", head, *(table.markdown() for table in report.tables(self.found))]
        write(self.path.with_suffix(".md"), "\n\n".join(parts) + "\n")

    def _section(
        self, name: str, wanted: list[tuple[Row, torch.dtype]], work: Callable[[Row, torch.dtype], dict[str, Any]]
    ) -> None:
        results = self.found[name] = []
        for row, dtype in self._progress(name, wanted):
            entry = {"row": row.name, "dtype": str(dtype).removeprefix("torch.")}
            try:
                entry |= work(row, dtype)
            except Exception as error:
                entry["error"] = times.short(error)
            results.append(entry)
            if trouble := entry.get("error") or entry.get("faults"):
                print(f"    {trouble}", flush=True)
            self._write()
            if self.device.type == "cuda":
                torch.cuda.empty_cache()

    def _progress(self, name: str, items: list[tuple[Row, torch.dtype]]) -> Iterator[tuple[Row, torch.dtype]]:
        start = time.monotonic()
        for number, (row, dtype) in enumerate(items):
            left = (time.monotonic() - start) / number * (len(items) - number) if number else None
            about = "" if left is None else f", about {left / 60:.1f} min left of this section"
            words = f"[{time.monotonic() - self.start:6.0f} s] {name} {number + 1}/{len(items)}{about}: "
            print(words + f"{row.name}, {str(dtype).removeprefix('torch.')}", flush=True)
            yield row, dtype

    def _build(self) -> None:
        """Compile in many processes at once; each leaves its kernels in Triton's cache, where this one finds them."""
        names = [row.name for row in (tiny_rows() if self.options.interpret else rows())]
        results: list[dict[str, Any]] = []
        self.found["build"] = results
        jobs = self.options.jobs or max(1, min(8, (os.cpu_count() or 2) // 2))

        def one(item: tuple[Row, torch.dtype]) -> dict[str, Any]:
            row, dtype = item
            kind = str(dtype).removeprefix("torch.")
            command = [sys.executable, "-m", "benchmarks.gpu", "--build-row", str(names.index(row.name)), kind]
            command += ["--interpret"] if self.options.interpret else []
            command += ["--keep"] if self.options.keep else []
            start = time.monotonic()
            done = subprocess.run(command, capture_output=True, text=True)
            entry = {"row": row.name, "dtype": kind, "seconds": round(time.monotonic() - start, 1)}
            return entry if done.returncode == 0 else entry | {"error": done.stderr.strip()[-600:]}

        start = time.monotonic()
        with ThreadPoolExecutor(jobs) as pool:
            for number, entry in enumerate(pool.map(one, self.wanted), 1):
                results.append(entry)
                left = (time.monotonic() - start) / number * (len(self.wanted) - number) / 60
                state = entry.get("error", "built")
                words = (
                    f"[{time.monotonic() - self.start:6.0f} s] build {number}/{len(self.wanted)}, about {left:.1f} min"
                )
                print(f"{words} left of this section: {entry['row']}, {entry['dtype']}: {state}", flush=True)
        self._write()

    def _time(self) -> None:
        kinds = list(dict.fromkeys(dtype for _, dtype in self.to_time))
        floors = {dtype: measured_floor(self.device, dtype) for dtype in kinds}
        self.found["floor"] = {
            str(dtype).removeprefix("torch."): {"operations": floor.operations, "bytes": floor.bytes}
            for dtype, floor in floors.items()
        }
        self._section(
            "time",
            self.to_time,
            lambda row, dtype: times.time_row(row, dtype, self.device, floors[dtype], self.rounds),
        )

    def _tune(self) -> None:
        from benchmarks.gpu import tuning
        from gpa_nd.engine.fused import tuned

        wanted = [(row, dtype) for row, dtype in self.to_time if row.name.startswith(TUNED) and dtype != torch.float16]
        each = 60 * self.options.tune_minutes / max(1, 3 * len(wanted))
        self._section(
            "tune",
            wanted,
            lambda row, dtype: {"phases": tuning.tune(row, dtype, self.device, self.rounds, each)},
        )
        if self.options.keep and (file := tuned.path()):
            tuned.keep(file, self.machine["device"], tuning.together(self.found["tune"]))
            print(f"kept in {file}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
