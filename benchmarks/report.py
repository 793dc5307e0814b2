"""A run of a benchmark: sections that measure item after item, the tables that come of them, and the files."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.files import write, write_json
from benchmarks.machine import described
from benchmarks.tables import Table

Found = list[dict[str, Any]]


@dataclass(frozen=True)
class Section:
    """One question: what is measured for it, and the tables that answer it.

    Attributes:
        name: for ``--only``.
        items: what is measured, one after the other.
        measure: one item; what it returns can be written as JSON.
        tables: of what was found, in the order of the items.
    """

    name: str
    items: Sequence[Any]
    measure: Callable[[Any], dict[str, Any]]
    tables: Callable[[Found], list[Table]]


def parser(script: str, description: str | None) -> argparse.ArgumentParser:
    """The options that all scripts have."""
    made = argparse.ArgumentParser(
        prog=f"python -m benchmarks.{script}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--only", default="", help="only sections whose name contains this")
    made.add_argument("--rounds", type=positive, default=5, help="how often what is compared takes turns (default: 5)")
    made.add_argument("--quick", action="store_true", help="tiny sizes, half a minute: whether the script works")
    made.add_argument("--device", type=device, default="cpu", help="where to measure (default: cpu)")
    made.add_argument("--out", type=Path, help="folder for the tables and all numbers (default: print, write nothing)")
    return made


def positive(text: str) -> int:
    """A whole number above zero."""
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"expected a whole number above 0, got {text!r}")
    return int(text)


def device(text: str) -> torch.device:
    """A device that is there."""
    try:
        return torch.empty(0, device=text).device
    except (RuntimeError, AssertionError) as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not there: {str(error).splitlines()[0]}") from error


def run(script: str, sections: Sequence[Section], options: argparse.Namespace) -> dict[str, Found]:
    """Measure and print; what was found is written after every item, whole or not at all."""
    wanted = [section for section in sections if options.only in section.name]
    if not wanted:
        names = ", ".join(section.name for section in sections)
        sys.exit(f"--only: expected a part of one of {names}, got {options.only!r}")
    about, found, tables = described(options.device), {}, []
    print("  ".join(f"{name} {value}" for name, value in about.items()), flush=True)
    total, done, start = sum(len(section.items) for section in wanted), 0, time.monotonic()
    for section in wanted:
        found[section.name] = entries = []
        for item in section.items:
            passed = time.monotonic() - start
            left = f", about {passed / done * (total - done) / 60:.1f} min left" if done else ""
            print(f"[{passed:4.0f} s] {section.name}: {item}{left}", file=sys.stderr, flush=True)
            entries.append({"item": str(item)} | section.measure(item))
            done += 1
            if options.out:
                write_json(options.out / f"{script}.json", {"machine": about} | found)
        answers = section.tables(entries)
        tables += answers
        for table in answers:
            print(f"\n{table.text()}", flush=True)
        if options.out:
            head = f"## {about['device']}\n\n" + ", ".join(f"{k} {v}" for k, v in about.items() if k != "device")
            text = "\n\n".join([head, *(table.markdown() for table in tables)])
            write(options.out / f"{script}.md", text + "\n")
    return found
