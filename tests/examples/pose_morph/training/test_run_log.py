import json
from pathlib import Path

import pytest

from examples.pose_morph.errors import UserError
from examples.pose_morph.training.run_log import RunLog


def lines_of(path: Path) -> list[tuple[int, float]]:
    return [(line["step"], line["per"]) for line in map(json.loads, path.read_text().splitlines())]


def test_a_resumed_log_drops_what_came_after_the_checkpoint_and_a_line_that_a_kill_cut_short(tmp_path):
    path = tmp_path / "log.jsonl"
    log = RunLog(path, 1)
    for step in (1, 2, 3):
        log.add({"per": float(step)})
        log.write(step, 0.1)
    with path.open("a") as file:
        file.write('{"step": 2, "sec')
    log = RunLog(path, 2)
    log.go_on_after(2)
    log.add({"per": 5.0})
    log.add({"per": 7.0})
    log.write(4, 0.2)
    assert lines_of(path) == [(2, 2.0), (4, 6.0)]


def test_a_log_that_was_told_to_stop_between_two_lines_goes_on_to_the_same_lines(tmp_path):
    whole, parts = RunLog(tmp_path / "whole", 4), RunLog(tmp_path / "parts", 4)
    for step in range(1, 9):
        whole.add({"per": step**0.5})
        if step % 4 == 0:
            whole.write(step, 0.1)
    for step in range(1, 4):
        parts.add({"per": step**0.5})
    parts.write(3, 0.1)  # the last step of that run
    state = parts.state_dict()
    parts = RunLog(tmp_path / "parts", 4)
    parts.load_state_dict(json.loads(json.dumps(state)))
    parts.go_on_after(3)
    for step in range(4, 9):
        parts.add({"per": step**0.5})
        if step % 4 == 0:
            parts.write(step, 0.1)
    assert lines_of(tmp_path / "parts") == lines_of(tmp_path / "whole")
    assert parts.summary() == whole.summary()


def test_a_log_that_cannot_be_written_is_a_message(tmp_path):
    log = RunLog(tmp_path / "nowhere" / "log.jsonl", 1)
    log.add({"per": 1.0})
    with pytest.raises(UserError, match=r"log.jsonl cannot be written .*--resume"):
        log.write(1, 0.1)
