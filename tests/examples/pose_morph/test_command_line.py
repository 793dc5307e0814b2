"""However a command ends, a shell sees the right code and a person a sentence."""

import sys
from dataclasses import dataclass

import pytest

from examples.pose_morph.command_line import run_command
from examples.pose_morph.errors import UserError


@dataclass(frozen=True)
class Options:
    """Nothing but a number."""

    number: int = 3


def run(monkeypatch, action, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["command", *arguments])
    with pytest.raises(SystemExit) as end:
        run_command(Options, action, prog="command", description=None)
    return end.value.code


def failing(error: BaseException):
    def action(options, console):
        raise error

    return action


def test_the_actions_number_is_the_exit_code(monkeypatch):
    assert run(monkeypatch, lambda options, console: options.number, "--number", "7") == 7


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (UserError("data: there is no [red]folder[/oops]"), 2, "data: there is no [red]folder[/oops]\n"),
        (PermissionError(13, "Permission denied", "[a]/b"), 2, "[a]/b: Permission denied; free some space or allow"),
        (KeyboardInterrupt(), 130, "stopped"),
    ],
)
def test_what_a_person_can_put_right_is_a_sentence_as_it_was_written(monkeypatch, capsys, error, code, said):
    assert run(monkeypatch, failing(error)) == code
    shown = capsys.readouterr()
    assert shown.out.startswith(said)
    assert "Traceback" not in shown.out + shown.err


@pytest.mark.parametrize("error", [ValueError("a bug"), OSError("no file is concerned")])
def test_a_bug_keeps_its_traceback(monkeypatch, error):
    monkeypatch.setattr(sys, "argv", ["command"])
    with pytest.raises(type(error), match=str(error)):
        run_command(Options, failing(error), prog="command", description=None)
