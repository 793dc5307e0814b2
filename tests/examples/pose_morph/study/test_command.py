"""The commands as people start them: begin, crash, go on, stop, report."""

import http.client
import json
import os
import queue
import random
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from tests.examples.pose_morph.study.conftest import write_pictures
from tests.examples.pose_morph.study.serving import Client

ROOT = Path(__file__).parents[4]
STUDY = [sys.executable, "-m", "examples.pose_morph.study"]


class Running:
    """A study in a process of its own."""

    def __init__(self, *arguments: object) -> None:
        environment = {**os.environ, "PYTHONUNBUFFERED": "1", "COLUMNS": "200"}
        self.process = subprocess.Popen(
            [*STUDY, *map(str, arguments)],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.lines: list[str] = []
        found: queue.Queue[int] = queue.Queue()
        self._reader = threading.Thread(target=self._read, args=(found,))
        self._reader.start()
        try:
            self.client = Client(found.get(timeout=60))
        except queue.Empty:
            self.end(signal.SIGKILL)
            raise AssertionError("".join(self.lines)) from None

    def _read(self, found: "queue.Queue[int]") -> None:
        for line in self.process.stdout:
            self.lines.append(line)
            address = re.match(r"participants: http://127\.0\.0\.1:(\d+)/", line)
            if address:
                found.put(int(address[1]))

    def end(self, number: signal.Signals) -> int:
        self.process.send_signal(number)
        code = self.process.wait(timeout=30)
        self._reader.join()
        self.process.stdout.close()
        return code


@pytest.fixture
def arguments(folders, tmp_path) -> list[object]:
    return [
        "--real", folders[0], "--generated", folders[1], "--out", tmp_path / "results.jsonl", "--port", 0,
        "--count", 8, "--golden-count", 4, "--answers", 400,
    ]  # fmt: skip


@pytest.fixture
def start(arguments) -> Iterator:
    started: list[Running] = []

    def run(*more: object) -> Running:
        started.append(Running(*arguments, *more))
        return started[-1]

    yield run
    for running in started:
        if running.process.poll() is None:
            running.end(signal.SIGKILL)


def test_kill_9_at_any_moment_loses_no_answer_that_was_taken(start, tmp_path):
    taken: set[str] = set()
    names = random.Random(0)
    for _ in range(5):
        running = start()
        began = time.monotonic()

        def answer_on(client: Client) -> None:
            try:
                while True:
                    name = f"{names.getrandbits(128):032x}"
                    state = client.ask("join", participant=name)
                    while state["state"] == "question":
                        question = state["question"]
                        state = client.judge(name, state)
                        taken.add(question)
            except (OSError, http.client.HTTPException):  # the server is gone
                return

        people = threading.Thread(target=answer_on, args=(running.client,))
        people.start()
        before = len(taken)
        while len(taken) == before and time.monotonic() - began < 30:
            time.sleep(0.01)
        time.sleep(names.uniform(0, 0.2))
        assert running.end(signal.SIGKILL) == -signal.SIGKILL
        people.join()
        assert len(taken) > before
    running = start()
    assert running.end(signal.SIGINT) == 130
    records = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    assert taken <= {record["question"] for record in records if record["event"] == "answered"}


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_ctrl_c_ends_cleanly_and_says_how_to_go_on(start, number, code):
    running = start()
    assert running.end(number) == code
    said = "".join(running.lines)
    assert "the same command goes on" in said
    assert "examples.pose_morph.study.report" in said
    assert "Traceback" not in said


def test_phones_are_told_an_address_and_may_not_read_the_results(start):
    running = start("--host", "0.0.0.0")
    assert running.client.get("/results").status == 200
    said = "".join(running.lines)
    other = re.search(r"or +http://((?!127\.)\d+\.\d+\.\d+\.\d+):(\d+)/", said)
    if other is None:
        pytest.skip("this machine has no address but its own")
    connection = http.client.HTTPConnection(other[1], int(other[2]), timeout=10)
    connection.request("GET", "/results")
    assert connection.getresponse().status == 403
    connection.close()


def test_wrong_input_is_a_message_and_exit_code_2(tmp_path, folders, arguments):
    (tmp_path / "empty").mkdir()
    for more, message in [
        (["--count", 0], "--count: expected at least 1, got 0"),
        (["--golden-pass", 1.5], "--golden-pass: expected a share"),
        (["--visible", 0], "--visible: expected seconds"),
        (["--frame", 4, 4], "--frame: expected"),
        (["--generated", tmp_path / "empty"], "generated: expected pictures (.jpg"),
        (["--real", tmp_path / "none"], "real: there is no folder"),
    ]:
        command = [*STUDY, *map(str, [*arguments, *more])]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
        assert done.returncode == 2, done.stdout + done.stderr
        assert message in done.stdout
        assert "Traceback" not in done.stdout + done.stderr
    assert not (tmp_path / "results.jsonl").exists()


def test_an_occupied_port_leaves_no_results_file(tmp_path, arguments):
    with socket.create_server(("127.0.0.1", 0)) as other:
        command = [*STUDY, *map(str, [*arguments, "--port", other.getsockname()[1]])]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "host, port: cannot listen on 127.0.0.1:" in done.stdout
    assert not (tmp_path / "results.jsonl").exists()


def test_a_study_over_other_pictures_does_not_go_on_in_the_same_file(tmp_path, start, arguments):
    assert start().end(signal.SIGINT) == 130
    write_pictures(tmp_path / "others", 9, hue=77)
    command = [*STUDY, *map(str, [*arguments, "--generated", tmp_path / "others"])]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "belongs to another study" in done.stdout


def test_the_report_prints_writes_and_draws_what_was_found(start, tmp_path):
    report = [sys.executable, "-m", "examples.pose_morph.study.report"]
    results, numbers, plot = (str(tmp_path / name) for name in ("results.jsonl", "rates.json", "rates.png"))

    def run(*more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*report, *more], cwd=ROOT, capture_output=True, text=True, timeout=60)

    running = start("--golden-count", 0)
    early = run(results, "--plot", plot, "--json", numbers)
    assert early.returncode == 2
    assert "plot: expected counted answers" in early.stdout
    assert not Path(numbers).exists()
    for number in range(3):  # the first says real, the others generated, whatever it is
        name = f"{number:032x}"
        state = running.client.ask("join", participant=name)
        while state["state"] == "question":
            state = running.client.judge(name, state, "generated" if number else "real")
    running.end(signal.SIGINT)
    done = run(results, "--json", numbers, "--plot", plot)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "66.7\u00a0%" in done.stdout
    assert "16 of 24" in done.stdout
    found = json.loads(Path(numbers).read_text())
    assert found["r2g"]["share"] == pytest.approx(2 / 3)
    assert found["g2r"]["share"] == pytest.approx(1 / 3)
    assert found["mean_seconds"] == 1.5
    assert len(found["participants"]) == 3
    with Image.open(plot) as picture:
        assert picture.width > 400
    of_another_kind = run(numbers)
    assert of_another_kind.returncode == 2
    assert "rates.json, line 1: expected the results file of a study" in of_another_kind.stdout
    missing = run("nothing.jsonl")
    assert missing.returncode == 2
    assert "nothing.jsonl: cannot be read" in missing.stdout
