"""The results file: nothing that was taken is lost, and nothing is mixed."""

import json
import os

import pytest

from examples.pose_morph.errors import UserError
from examples.pose_morph.study.answer_file import AnswerFile, read_ledger
from examples.pose_morph.study.design import StudyDesign
from examples.pose_morph.study.events import Answered, Asked, Finished, Joined, Shown, from_record, to_record
from tests.examples.pose_morph.study.conftest import make_design

EVENTS = [
    Joined("a", 1.5, 8, 2),
    Asked("a", 2.0, "q", 3),
    Shown("a", 3.0, "q"),
    Answered("a", 4.0, "q", "real", 0.75, 3, "real", False),
    Asked("a", 5.0, "r", 4),
    Finished("a", 6.0, 0, 0, False),
]


@pytest.fixture
def path(tmp_path):
    file = AnswerFile(tmp_path / "deep" / "results.jsonl", make_design())
    for event in EVENTS:
        file.append(event)
    file.close()
    return file.path


def test_events_and_designs_survive_json():
    for event in EVENTS:
        assert from_record(json.loads(json.dumps(to_record(event)))) == event
    assert StudyDesign.from_record(make_design().to_record()) == make_design()


def test_a_restart_knows_all_that_was_written(path):
    file = AnswerFile(path, make_design())
    assert file.notes == []
    person = file.ledger.participants["a"]
    assert person.finished
    assert person.questions["q"].answer == "real"
    assert person.questions["q"].seconds == 0.75
    assert person.current()[0] == "r"
    file.append(Joined("b", 7.0, 8, 2))
    file.close()
    assert set(read_ledger(path)[0].participants) == {"a", "b"}
    assert len(path.read_text().splitlines()) == 1 + len(EVENTS) + 1


def test_a_crash_at_any_byte_of_the_last_line_loses_that_line_alone(path):
    whole = path.read_bytes()
    last = whole.rstrip(b"\n").rindex(b"\n") + 1
    for cut in range(last + 1, len(whole)):
        path.write_bytes(whole[:cut])
        file = AnswerFile(path, make_design())
        file.close()
        assert "cut short" in file.notes[0]
        assert not file.ledger.participants["a"].finished
        assert file.ledger.participants["a"].current()[0] == "r"
        assert path.read_bytes() == whole[:last]


def test_zeros_from_a_power_cut_are_a_torn_line_too(path):
    whole = path.read_bytes()
    path.write_bytes(whole + b"\0" * 50 + b"\n")
    ledger, length, notes = read_ledger(path)
    assert (length, len(notes)) == (len(whole), 1)
    assert ledger.participants["a"].finished


def test_a_crash_in_the_first_line_begins_anew(tmp_path):
    path = tmp_path / "results.jsonl"
    AnswerFile(path, make_design()).close()
    whole = path.read_bytes()
    for cut in (0, 1, 10, 40, len(whole) - 1):
        path.write_bytes(whole[:cut])
        AnswerFile(path, make_design()).close()
        assert path.read_bytes() == whole


def test_a_torn_line_in_the_middle_is_no_crash_and_is_refused(path):
    lines = path.read_text().splitlines(keepends=True)
    lines[2] = lines[2][:10] + "\n"
    path.write_text("".join(lines))
    with pytest.raises(UserError, match="line 3: expected JSON"):
        AnswerFile(path, make_design())
    assert path.read_text() == "".join(lines)


def test_files_of_other_studies_are_refused_and_left_alone(path):
    before = path.read_bytes()
    for design, message in [
        (make_design(seed=1), "its seed is 0, not 1"),
        (make_design(visible=5.0), r"its visible is 4\.0, not 5\.0"),
        (make_design(5), "its pictures_each is 8, not 10"),
        (make_design(golden=3), "it has 10 pictures, not 11"),
    ]:
        with pytest.raises(UserError, match=message):
            AnswerFile(path, design)
    other = make_design()
    pictures = (type(other.exhibits[0])("real0", "real", False, "ff"), *other.exhibits[1:])
    with pytest.raises(UserError, match="other pixels of real0"):
        AnswerFile(path, make_design(exhibits=pictures))
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "content", ['{"event": "log"}\n', "[1]\n", "step 1\nstep 2\n", '{"a": 1}\n{"a": 2}\n', "words"]
)
def test_files_of_another_kind_are_refused_and_left_alone(tmp_path, content):
    path = tmp_path / "notes.txt"
    path.write_text(content)
    with pytest.raises(UserError, match=r"notes\.txt"):
        AnswerFile(path, make_design())
    assert path.read_text() == content


def test_events_that_cannot_be_are_named_by_their_line(path):
    with path.open("a") as file:
        file.write('{"event": "shown", "participant": "nobody", "time": 1, "question": "q"}\n')
    with pytest.raises(UserError, match=r"line 8: participant nobody has not joined"):
        read_ledger(path)


def test_two_servers_do_not_share_a_file(path):
    first = AnswerFile(path, make_design())
    with pytest.raises(UserError, match="in use by another study server"):
        AnswerFile(path, make_design())
    first.close()
    AnswerFile(path, make_design()).close()


def test_a_full_disk_leaves_no_half_line_and_takes_nothing(path, monkeypatch):
    file = AnswerFile(path, make_design())
    before, write = path.read_bytes(), os.write

    def full(number: int, data: bytes) -> int:
        if len(data) > 20:
            return write(number, data[: len(data) - 20])
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(OSError, match="No space"):
            file.append(Joined("b", 7.0, 8, 2))
    assert path.read_bytes() == before
    assert "b" not in file.ledger.participants
    file.append(Joined("b", 8.0, 8, 2))
    file.close()
    assert read_ledger(path)[0].participants["b"].last_seen == 8.0


def test_every_line_is_on_the_disk_before_it_counts(path, monkeypatch):
    file, synced = AnswerFile(path, make_design()), []
    monkeypatch.setattr(os, "fsync", lambda number: synced.append((path.read_bytes(), set(file.ledger.participants))))
    file.append(Joined("b", 7.0, 8, 2))
    file.close()
    ((content, known),) = synced
    assert content.endswith(b'"golden": 2}\n')
    assert known == {"a"}


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"out: cannot write .*results\.jsonl"):
        AnswerFile(tmp_path / "file" / "results.jsonl", make_design())
