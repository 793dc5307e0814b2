"""Which tests run which lines of the library, and how long each takes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import defaultdict
from pathlib import Path, PurePath

import coverage
import pytest

from tests.few import few_of_each
from tests.trust.mutants.operators import Change

TESTS = (
    "gpa_nd",
    "tests/ops",
    "tests/partitioners",
    "tests/engine",
    "tests/pytorch/test_onnx.py",
    "tests/selection",
    "tests/nn",
    "tests/test_partition.py",
    "tests/test_layout.py",
    "tests/test_laws.py",
    "tests/test_levels.py",
    "tests/test_causal.py",
    "tests/test_masks.py",
    "tests/test_always.py",
    "tests/test_testing.py",
    "--ignore=tests/engine/fused/test_compiling.py",
    "--ignore=gpa_nd/diffusers",  # these import packages that cannot be imported again in a fork
    "--ignore=gpa_nd/transformers",
    "-k",
    "not compile and not compiled and not compiles and not exported and not opcheck",
)
"""What must notice a mutant, as pytest takes it: doctests too, but not what compiles, which takes minutes."""


class Recorder:
    """A plugin of pytest: so many cases of every test, and how long those took that passed; null for those left out."""

    def __init__(self, file: Path, cases: int) -> None:
        self.file = file
        self.cases = cases
        self.seconds = dict[str, float | None]()

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        self.seconds = dict.fromkeys(item.nodeid for item in items)
        items[:] = few_of_each(items, lambda item: self.cases)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.passed:
            self.seconds[report.nodeid] = (self.seconds[report.nodeid] or 0.0) + report.duration

    def pytest_sessionfinish(self) -> None:
        self.file.write_text(json.dumps(self.seconds, indent=0), encoding="utf-8")


def function_of(case: str) -> str:
    """A test without the parameters of one case.

    Example:
        >>> function_of("tests/test_laws.py::test_planted_keys_are_found[torch-a graph]")
        'tests/test_laws.py::test_planted_keys_are_found'
    """
    return case.partition("[")[0]


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Recorder(Path(os.environ["MUTANTS_DURATIONS"]), int(os.environ["MUTANTS_CASES"])))


def record(root: Path, folder: Path, cases: int, tests: tuple[str, ...] = TESTS) -> None:
    """Run about so many cases of every test once, and write into the folder what :class:`Trace` reads.

    Raises:
        SystemExit: some fail without a change.
    """
    places = {"COVERAGE_FILE": str(folder / "coverage"), "MUTANTS_DURATIONS": str(folder / "durations.json")}
    settings = {**places, "MUTANTS_CASES": str(cases), "PYTHONPATH": str(root)}
    coverage_of = ("--cov=gpa_nd", "--cov-context=test", "--cov-report=", "--cov-fail-under=0")
    pytest_of = ("pytest", "-q", "-p", __name__, "-p", "no:cacheprovider", "--few", "0")
    command = [sys.executable, "-m", *pytest_of, *coverage_of, *tests]
    if subprocess.run(command, cwd=root, env={**os.environ, **settings}).returncode:
        raise SystemExit("tests fail without a change")


class Trace:
    """What :func:`record` wrote.

    Attributes:
        seconds: How long each case takes; one that was left out, as long as the longest of its test.
    """

    def __init__(self, root: Path, folder: Path) -> None:
        recorded: dict[str, float | None] = json.loads((folder / "durations.json").read_text(encoding="utf-8"))
        longest = defaultdict[str, float](float)
        self.cases = defaultdict[str, list[str]](list)
        for case, seconds in recorded.items():
            longest[function_of(case)] = max(longest[function_of(case)], seconds or 0.0)
            self.cases[function_of(case)].append(case)
        self.seconds = {case: longest[function_of(case)] if x is None else x for case, x in recorded.items()}
        self.lines = dict[str, dict[int, set[str]]]()
        data = coverage.CoverageData(str(folder / "coverage"))
        data.read()
        for file in data.measured_files():
            ran = {line: {x.rpartition("|")[0] for x in of} for line, of in data.contexts_by_lineno(file).items()}
            self.lines[str(Path(file).relative_to(root))] = ran

    def cases_of(self, file: str, change: Change, extents: dict[str, tuple[int, int]]) -> list[set[str]]:
        """Those that ran the changed lines, those of its function, and those of its file where nothing else did."""
        lines, found = self.lines.get(file, {}), list[set[str]]()
        for first, last in (change.lines, extents.get(change.place, change.lines), extents[""]):
            ran = set[str]().union(*(lines.get(line, ()) for line in range(first, last + 1)))
            if len(found) < 2 or not any(found):
                found.append(ran & self.seconds.keys())
        return found

    def in_turn(self, file: str, cases: list[set[str]], budget: float) -> list[str]:
        """One case of every test, the quickest, then a second one of each, and so on: so many seconds in all.

        The cases come in their order, then those of the same tests that were left out when lines were recorded, and
        those of the tests that mirror the file; in each turn these tests are the first.
        """
        own = f"/test_{PurePath(file).stem}.py::"
        nearness = {case: -i for i, of in enumerate(reversed(cases)) for case in of}
        tests = {function_of(case) for case in nearness} | {test for test in self.cases if own in test}
        turns = []
        for test in tests:
            order = sorted(self.cases[test], key=lambda case: (nearness.get(case, 1), self.seconds[case]))
            for turn, case in enumerate(order):
                turns.append((nearness.get(case, 1), turn, own not in test, self.seconds[case], case))
        chosen, spent = list[str](), 0.0
        for *_, seconds, case in sorted(turns):
            if spent + seconds <= budget:
                chosen.append(case)
                spent += seconds
        return chosen
