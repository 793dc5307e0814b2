"""The results file: JSON lines, each on the disk before anybody is told that it was taken."""

import json
import os
import sys
from pathlib import Path
from typing import Any

from examples.pose_morph.errors import UserError
from examples.pose_morph.study.design import StudyDesign, difference
from examples.pose_morph.study.events import Event, from_record, to_record
from examples.pose_morph.study.ledger import Ledger

if sys.platform != "win32":
    import fcntl


OF_ANOTHER_KIND = (
    'expected the results file of a study (its --out), which begins with {"event": "study"; this is a file of another '
    "kind"
)


def read_ledger(path: Path) -> tuple[Ledger, int, list[str]]:
    """Read a results file; return the study, the bytes that hold whole lines, and what there is to say.

    A last line that a crash cut short is left out and said.

    Raises:
        UserError: the file is not there, is no results file, or a line before the last cannot be read.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    lines = content.split(b"\n")
    torn = lines.pop()  # what follows the last end of line: nothing in a whole file
    notes = []
    records: list[Any] = []
    for number, line in enumerate(lines, start=1):
        try:
            records.append(json.loads(line))
        except (ValueError, RecursionError) as error:
            if number == 1 and (len(lines) > 1 or torn):
                raise UserError(
                    f"{path}, line 1: {OF_ANOTHER_KIND}, got {line[:60].decode(errors='replace')}"
                ) from error
            if number < len(lines):
                raise UserError(f"{path}, line {number}: expected JSON, got {line[:60]!r}; mend or move it") from error
            torn = line + b"\n"
    if torn:
        notes.append(f"{path}: the last line was cut short ({len(torn)} bytes) and is left out")
    if not records:
        raise UserError(f"{path}: expected a results file, which begins with the study's design, got no whole line")
    if not isinstance(records[0], dict) or records[0].get("event") != "study":
        raise UserError(f"{path}, line 1: {OF_ANOTHER_KIND}, got {str(records[0])[:60]}")
    reached = 1
    try:
        ledger = Ledger(StudyDesign.from_record(records[0]))
        for record in records[1:]:
            reached += 1
            ledger.apply(from_record(record))
    except (ValueError, TypeError, AttributeError) as error:
        raise UserError(f"{path}, line {reached}: {error}; is this a results file of a study?") from error
    return ledger, len(content) - len(torn), notes


class AnswerFile:
    """A results file that is open for more; only one process at a time has it."""

    def __init__(self, path: Path, design: StudyDesign) -> None:
        """Begin a file, or go on with one of the same design.

        Attributes ``ledger`` and ``notes`` hold what the file says.

        Raises:
            UserError: the file belongs to another study or another process, or cannot be written.
        """
        self.path = path
        self.notes: list[str] = []
        self.ledger = Ledger(design)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise UserError(f"out: cannot write {path} ({error.strerror})") from error
        try:
            self._lock()
            self._length = 0
            if os.fstat(self._file).st_size > 0 and not self._only_a_torn_header():
                self.ledger, self._length, self.notes = read_ledger(path)
                other = difference(self.ledger.design, design)
                if other is not None:
                    raise UserError(f"out: {path} belongs to another study: {other}. Choose another --out")
            os.ftruncate(self._file, self._length)
            if self._length == 0:
                self._begin(design)
        except BaseException:
            self.close()
            raise

    def append(self, event: Event) -> None:
        """Write an event to the disk, then take it in.

        Raises:
            OSError: it cannot be written; the file and the ledger stay as they were.
        """
        self._write(to_record(event))
        self.ledger.apply(event)

    def close(self) -> None:
        """Close the file, which gives up the lock; whatever is appended later is an OSError."""
        os.close(self._file)
        self._file = -1

    def _lock(self) -> None:
        if sys.platform == "win32":
            return
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise UserError(f"out: {self.path} is in use by another study server; stop that one first") from error

    def _only_a_torn_header(self) -> bool:
        """A crash while the first line was written leaves no study behind."""
        content = self.path.read_bytes()
        opening = b'{"event": "study"'
        begun = b"\n" not in content and content[: len(opening)] == opening[: len(content)]
        if begun:
            self.notes.append(f"{self.path}: only a part of the first line was there; the file begins anew")
        return begun

    def _begin(self, design: StudyDesign) -> None:
        try:
            self._write(design.to_record())
        except OSError as error:
            raise UserError(f"out: cannot write {self.path} ({error.strerror}); free some space") from error

    def _write(self, record: dict[str, Any]) -> None:
        line = (json.dumps(record) + "\n").encode()
        try:
            written = 0
            os.lseek(self._file, self._length, os.SEEK_SET)
            while written < len(line):
                written += os.write(self._file, line[written:])
            os.fsync(self._file)
        except OSError as error:
            os.ftruncate(self._file, self._length)
            raise OSError(error.errno, error.strerror, str(self.path)) from error
        self._length += len(line)
