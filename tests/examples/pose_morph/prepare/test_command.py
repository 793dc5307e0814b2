"""The command line."""

import sys

import pytest
from PIL import Image

from examples.pose_morph.prepare.__main__ import main


def run(monkeypatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["prepare", *arguments])
    with pytest.raises(SystemExit) as stopped:
        main()
    return stopped.value.code


def test_a_step_runs_by_its_name(tmp_path, monkeypatch, capsys):
    (tmp_path / "train").mkdir()
    for name in ("a_1.png", "a_2.png"):
        Image.new("RGB", (4, 6)).save(tmp_path / "train" / name)
    assert run(monkeypatch, "pairs", "--data", str(tmp_path)) == 0
    assert "train: 2 pairs of 2 pictures" in capsys.readouterr().out


def test_wrong_input_is_a_message_and_code_2(tmp_path, monkeypatch, capsys):
    assert run(monkeypatch, "pairs", "--data", str(tmp_path / "[a-z]nowhere")) == 2
    shown = capsys.readouterr()
    assert "[a-z]nowhere" in shown.out
    assert "Traceback" not in shown.out + shown.err


def test_a_folder_that_may_not_be_written_is_a_message_and_code_2(tmp_path, monkeypatch, capsys):
    (tmp_path / "in").mkdir()
    for name in ("a_1.png", "b_1.png"):
        Image.new("RGB", (4, 6)).save(tmp_path / "in" / name)
    (tmp_path / "out").write_text("a file")
    assert run(monkeypatch, "split", "--pictures", str(tmp_path / "in"), "--out", str(tmp_path / "out")) == 2
    assert "out" in capsys.readouterr().out
