"""The command that goes on with a run, as it is printed."""

import pytest

from examples.pose_morph.training.resume import resume_command


@pytest.mark.parametrize(
    ("given", "whole", "expected"),
    [
        ("--data a --out b", False, "--data a --out b --resume"),
        ("--resume --changed-data --max-steps 6", False, "--max-steps 6 --resume"),
        ("--max-steps 6 --out b", True, "--out b --resume"),
        ("--max-steps=6 --out b", True, "--out b --resume"),
        ("--max_steps 6 --resume", True, "--resume"),
    ],
)
def test_the_printed_command_is_the_one_given_with_resume(monkeypatch, given, whole, expected):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.setattr("sys.argv", ["train.py", *given.split()])
    assert resume_command(whole=whole) == f"python -m examples.pose_morph.train {expected}"


def test_under_torchrun_the_printed_command_starts_as_many_processes(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.setattr("sys.argv", ["train.py", "--out", "a b"])
    expected = "torchrun --nproc-per-node 2 -m examples.pose_morph.train --out 'a b' --resume"
    assert resume_command() == expected
