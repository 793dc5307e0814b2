"""Runs side by side: who runs when, how a failure is told, and that nobody is left running."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from examples.pose_morph.errors import UserError
from examples.pose_morph.experiments.jobs import Job, last_entry, run_jobs

PROGRAM = """
import os, signal, sys, time
from pathlib import Path

folder, task = Path(sys.argv[1]), sys.argv[2]

def wait_for(path):
    deadline = time.monotonic() + 20
    while not path.exists():
        if time.monotonic() > deadline:
            sys.exit(f"{path} did not come")
        time.sleep(0.01)

def note(number, frame):
    with (folder / "signals").open("a") as file:
        file.write(signal.Signals(number).name + " ")
    time.sleep(0.3)  # long enough for a second signal to come
    sys.exit(1)

if task == "sleep":
    signal.signal(signal.SIGTERM, note)
    signal.signal(signal.SIGINT, note)
    (folder / "pid.partial").write_text(str(os.getpid()))
    (folder / "pid.partial").rename(folder / "pid")
    time.sleep(60)
if task == "fail":
    wait_for(folder.parent / "a" / "pid")
    print("early words")
    sys.exit("last words, [/red] and [all]")
if task == "meet":
    (folder / "here").touch()
    wait_for(folder.parent / ("b" if folder.name == "a" else "a") / "here")
if task == "alone":
    others = [path for path in folder.parent.iterdir() if (path / "here").exists() and not (path / "result").exists()]
    (folder / "here").touch()
    if others:
        sys.exit("somebody else is running")
    time.sleep(0.1)
if task != "idle":
    (folder / "result").write_text(os.environ["OMP_NUM_THREADS"])
"""


@pytest.fixture
def make_job(tmp_path, monkeypatch) -> Callable[..., Job]:
    """Makes jobs of `PROGRAM`."""
    (tmp_path / "module").mkdir()
    (tmp_path / "module" / "job_of_a_test.py").write_text(PROGRAM)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "module"))

    def make(name: str, task: str, fraction: Callable[[], float] = lambda: 0.5) -> Job:
        folder = tmp_path / "jobs" / name
        return Job(name, "job_of_a_test", (str(folder), task), folder, folder / "result", fraction)

    return make


def run(*jobs: Job, parallel: int = 2) -> str:
    """Run the jobs; return what is said."""
    console = Console(record=True, width=120)
    run_jobs(jobs, parallel=parallel, console=console)
    return console.export_text()


def is_alive(folder: Path) -> bool:
    """Whether the process that wrote its number there runs."""
    try:
        os.kill(int((folder / "pid").read_text()), 0)
    except ProcessLookupError:
        return False
    return True


def test_two_jobs_run_side_by_side(make_job):
    run(make_job("a", "meet"), make_job("b", "meet"))


def test_no_more_jobs_run_at_once_than_asked_for(make_job):
    run(make_job("a", "alone"), make_job("b", "alone"), parallel=1)


@pytest.mark.parametrize(("parallel", "threads"), [(1, "8"), (3, "2"), (16, "1")])
def test_jobs_share_the_processors(make_job, monkeypatch, parallel, threads):
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    job = make_job("a", "end")
    run(job, parallel=parallel)
    assert job.result.read_text() == threads


def test_what_has_a_result_is_not_run_again(make_job):
    done, new = make_job("a", "fail"), make_job("b", "end")
    done.folder.mkdir(parents=True)
    done.result.write_text("kept")
    assert "1 of 2 runs have a result already" in run(done, new)
    assert done.result.read_text() == "kept"
    assert new.result.is_file()
    assert "2 of 2 runs" in run(done, new)


def test_a_failure_stops_the_others_and_tells_its_last_words(make_job):
    sleeping, failing, waiting = make_job("a", "sleep"), make_job("b", "fail"), make_job("c", "end")
    with pytest.raises(UserError) as caught:
        run(sleeping, failing, waiting)
    assert str(caught.value).startswith("b ended with code 1:\n")
    assert str(caught.value).endswith("last words, [/red] and [all]")
    assert not is_alive(sleeping.folder)
    assert (sleeping.folder / "signals").read_text().split() == ["SIGTERM"]
    assert not waiting.folder.exists()


def test_a_job_that_leaves_no_result_has_failed(make_job):
    with pytest.raises(UserError, match="a ended with code 0"):
        run(make_job("a", "idle"))


def test_an_interrupt_stops_what_is_running(make_job, tmp_path):
    def interrupted() -> float:
        if (tmp_path / "jobs" / "a" / "pid").exists():
            raise KeyboardInterrupt
        return 0.0

    job = make_job("a", "sleep", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(job)
    assert not is_alive(job.folder)
    assert (job.folder / "signals").read_text().split() == ["SIGTERM"]


PARENT = """
import signal
import sys
from pathlib import Path
from rich.console import Console
from examples.pose_morph.experiments.jobs import Job, run_jobs

# As in a terminal, wherever the tests run: in the background and under nohup, signals are ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

folder = Path(sys.argv[1])
job = Job("a", "job_of_a_test", (str(folder), "sleep"), folder, folder / "result", lambda: 0.0)
try:
    run_jobs([job], parallel=1, console=Console())
except KeyboardInterrupt:
    sys.exit(130)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_to_all_reaches_a_job_once(make_job, number):
    """As from a terminal: a training run that gets one signal saves its checkpoint, at the second one it dies."""
    job = make_job("a", "sleep")
    paths = os.pathsep.join([os.environ["PYTHONPATH"], str(Path(__file__).parents[4])])
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(job.folder)],
        stdout=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": paths},
        start_new_session=True,
    )
    deadline = time.monotonic() + 30
    while not (job.folder / "pid").exists():
        assert time.monotonic() < deadline
        assert parent.poll() is None
        time.sleep(0.02)
    os.killpg(parent.pid, number)
    try:
        assert parent.wait(timeout=30) == 128 + number
    finally:
        parent.kill()
        parent.wait()
    assert not is_alive(job.folder)
    assert (job.folder / "signals").read_text().split() == ["SIGTERM"]


def test_no_job_at_a_time_is_refused(make_job):
    with pytest.raises(UserError, match="--jobs: expected at least 1, got 0"):
        run(make_job("a", "end"), parallel=0)


def test_the_last_entry_is_the_last_whole_line(tmp_path):
    log = tmp_path / "log.jsonl"
    assert last_entry(log, "step") == 0
    for text, expected in (("", 0), ('{"st', 0), ('{"step": 3}\n{"step": 7}\n', 7), ('{"step": 3}\n{"st', 3)):
        log.write_text(text)
        assert last_entry(log, "step") == expected
    assert last_entry(log, "seconds") == 0
