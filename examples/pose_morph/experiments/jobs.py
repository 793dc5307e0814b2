"""Several runs of a program side by side, each in a process and with its share of the processors."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from examples.pose_morph.errors import UserError


@dataclass(frozen=True)
class Job:
    """One run of a module.

    Attributes:
        name: What the progress bar calls it.
        module: What ``python -m`` starts.
        arguments: Its command line.
        folder: Where it writes; its output goes to ``output.txt`` there.
        result: The file that is there once it has ended well.
        fraction: How much of it is done, looked up while it runs.
    """

    name: str
    module: str
    arguments: tuple[str, ...]
    folder: Path
    result: Path
    fraction: Callable[[], float]


def run_jobs(jobs: Sequence[Job], *, parallel: int, console: Console) -> None:
    """Run what has no result yet, ``parallel`` at a time; when one fails or a signal comes, the others are stopped too.

    Raises:
        UserError: a run failed; the message ends with what it said last. Or ``parallel`` is below 1.
    """
    if parallel < 1:
        raise UserError(f"--jobs: expected at least 1, got {parallel}")
    waiting = [job for job in jobs if not job.result.is_file()]
    if len(waiting) < len(jobs):
        console.print(f"{len(jobs) - len(waiting)} of {len(jobs)} runs have a result already")
    threads = str(max(1, (os.cpu_count() or 1) // parallel))
    environment = {**os.environ, "OMP_NUM_THREADS": threads, "PYTHONUNBUFFERED": "1"}
    running: dict[subprocess.Popen[bytes], tuple[Job, int]] = {}
    columns = TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn(), TextColumn("left")
    with ended_by_signals(), Progress(*columns, console=console) as bar:
        whole = bar.add_task(f"{len(waiting)} runs", total=float(len(waiting)))
        ended = 0
        try:
            while waiting or running:
                while waiting and len(running) < parallel:
                    job = waiting.pop(0)
                    running[_start(job, environment)] = job, bar.add_task(f"  {job.name}", total=1.0)
                time.sleep(0.5)
                for process, (job, task) in list(running.items()):
                    bar.update(task, completed=job.fraction())
                    if process.poll() is None:
                        continue
                    del running[process]
                    bar.remove_task(task)
                    if process.returncode or not job.result.is_file():
                        said = (job.folder / "output.txt").read_text(errors="replace").strip()[-2000:]
                        raise UserError(f"{job.name} ended with code {process.returncode}:\n{said}")
                    ended += 1
                bar.update(whole, completed=ended + sum(job.fraction() for job, _ in running.values()))
        finally:
            for process in running:
                process.terminate()
            for process in running:
                process.wait()


def _start(job: Job, environment: dict[str, str]) -> "subprocess.Popen[bytes]":
    job.folder.mkdir(parents=True, exist_ok=True)
    with (job.folder / "output.txt").open("wb") as output:
        command = [sys.executable, "-m", job.module, *job.arguments]
        # In a session of its own a terminal's Ctrl-C does not reach it; `run_jobs` sends one signal, which lets a
        # training run save its checkpoint. A second one, as from the terminal, would not.
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Let SIGTERM and SIGHUP raise `SystemExit`, so that what is running is stopped; not where they are ignored."""
    numbers = [number for name in ("SIGTERM", "SIGHUP") if (number := getattr(signal, name, None)) is not None]
    before = {number: signal.getsignal(number) for number in numbers}

    def end(number: int, frame: FrameType | None) -> None:
        sys.exit(128 + number)

    for number, handler in before.items():
        if handler is not signal.SIG_IGN:  # as under nohup
            signal.signal(number, end)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def last_entry(log: Path, key: str) -> float:
    """Return a number of the last whole line of a log of JSON lines; 0 if there is none yet."""
    try:
        value = float(json.loads(log.read_text().split("\n")[-2])[key])  # what follows the last line end is not whole
    except (OSError, ValueError, KeyError, IndexError, TypeError, OverflowError, RecursionError):
        return 0.0
    return value if math.isfinite(value) else 0.0
