"""Runs tests on a changed copy of the library, in a process forked from one that has imported everything else."""

from __future__ import annotations

import importlib
import json
import os
import resource
import shutil
import signal
import sys
import time
import traceback
from dataclasses import asdict, dataclass
from pathlib import Path

import pytest

IMPORTED = ("numpy", "torch", "triton", "triton.language", "torch_geometric", "hypothesis", "jaxtyping")
"""What is imported once for all mutants; none of it imports the library."""

MEMORY = 16 * 2**30  # bytes of addresses that a mutant may have
PATIENCE = (10.0, 5.0)  # seconds of processor time for a test: so many, and so many times what it takes


@dataclass(frozen=True)
class Verdict:
    """What became of a mutant.

    Attributes:
        outcome: ``killed`` by a test that failed, ``timeout``, ``crashed`` (killed by a signal), ``survived``, or
            ``not run`` by any test. All but the last two count as killed.
        test: The test that failed or did not end; "" where the library could not be imported.
        error: What it said.
        tests: How many were chosen.
        seconds: How long it took.
    """

    outcome: str
    test: str
    error: str
    tests: int
    seconds: float

    @property
    def is_killed(self) -> bool:
        return self.outcome in ("killed", "timeout", "crashed")


class Tree:
    """A copy of what tests need of the repository, one file of which is changed at a time."""

    def __init__(self, root: Path, folder: Path) -> None:
        self.folder = folder
        for name in ("gpa_nd", "tests", "examples", "benchmarks", "pyproject.toml"):
            if (root / name).is_dir():
                left_out = shutil.ignore_patterns("__pycache__", ".hypothesis", "results", "people")
                shutil.copytree(root / name, folder / name, ignore=left_out, dirs_exist_ok=True)
            elif (root / name).exists():
                shutil.copy2(root / name, folder / name)

    def test(
        self, file: str, source: str, tests: list[str], seconds: dict[str, float], keep_compiled: bool = False
    ) -> Verdict:
        """Run the tests, in their order, on the library with this source for one of its files, until one fails."""
        path, began = self.folder / file, time.monotonic()
        original, times = path.read_bytes(), path.stat()
        path.write_text(source, encoding="utf-8")
        report = self.folder / "report.jsonl"
        report.write_text("", encoding="utf-8")
        try:
            if (pid := os.fork()) == 0:
                sys.dont_write_bytecode = not keep_compiled
                _run_and_exit(self.folder, tests, seconds, report)
            limit = 120 + sum(PATIENCE[0] / 10 + PATIENCE[1] * seconds.get(test, 0.0) for test in tests)
            status = _wait(pid, began + limit)
        finally:
            path.write_bytes(original)
            os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))  # what Python compiled before is valid again
        return _verdict(status, report, len(tests), time.monotonic() - began)


def import_all() -> None:
    """Before anything is forked."""
    os.environ["TRITON_INTERPRET"] = "1"
    for name in IMPORTED:
        importlib.import_module(name)


def _wait(pid: int, until: float) -> int | None:
    """How the process ended; None if it had to be ended."""
    while time.monotonic() < until:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return status
        time.sleep(0.02)
    os.killpg(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return None


def _verdict(status: int | None, report: Path, tests: int, seconds: float) -> Verdict:
    lines = [json.loads(line) for line in report.read_text(encoding="utf-8").splitlines()]
    last = lines[-1] if lines else {"test": "", "error": ""}
    if status is None or (os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGPROF):
        return Verdict("timeout", last["test"], "", tests, seconds)
    if os.WIFSIGNALED(status):
        return Verdict("crashed", last["test"], signal.Signals(os.WTERMSIG(status)).name, tests, seconds)
    outcome = {0: "survived", 3: "not run", 5: "not run"}.get(os.WEXITSTATUS(status), "killed")
    return Verdict(outcome, last["test"] if outcome == "killed" else "", last["error"], tests, seconds)


class _Chosen:
    """A plugin of pytest: these tests in this order, each with its limit, and a line for each that begins or fails."""

    def __init__(self, tests: list[str], seconds: dict[str, float], report: Path) -> None:
        self.tests = {test: number for number, test in enumerate(tests)}
        self.seconds = seconds
        self.report = report

    def say(self, test: str, error: str) -> None:
        with self.report.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"test": test, "error": error}) + "\n")

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items[:] = sorted((x for x in items if x.nodeid in self.tests), key=lambda x: self.tests[x.nodeid])

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self.say(nodeid, "")
        signal.setitimer(signal.ITIMER_PROF, PATIENCE[0] + PATIENCE[1] * self.seconds[nodeid])

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.say(report.nodeid, str(getattr(report.longrepr, "reprcrash", report.longrepr))[:400])

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.say(report.nodeid, report.longreprtext[-400:])


def _run_and_exit(folder: Path, tests: list[str], seconds: dict[str, float], report: Path) -> None:
    """In the child: never returns."""
    code = 3
    try:
        os.setsid()
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        nothing = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(nothing, stream)
        here = str(Path.cwd())
        os.chdir(folder)
        os.environ["PYTHONPATH"] = str(folder)
        sys.path[:] = [str(folder), *(x for x in sys.path if x not in ("", here))]
        for name in [x for x in sys.modules if x.split(".")[0] in ("tests", "gpa_nd")]:
            del sys.modules[name]
        torch = importlib.import_module("torch")
        torch.set_num_threads(1)
        files = list(dict.fromkeys(test.partition("::")[0] for test in tests))
        early = ("-W", "ignore::pytest.PytestAssertRewriteWarning")  # what was imported before pytest began
        every_case = ("--few", "0") if any(file.startswith("tests/") for file in files) else ()  # an option of tests
        arguments = ["-x", "-q", "-p", "no:cacheprovider", *every_case, *early, *files]
        code = pytest.main(arguments, [_Chosen(tests, seconds, report)])
    except BaseException:
        with report.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"test": "", "error": traceback.format_exc()[-400:]}) + "\n")
    finally:
        os._exit(int(code))


def as_line(key: str, file: str, verdict: Verdict) -> str:
    return json.dumps({"mutant": key, "file": file, **asdict(verdict)})
