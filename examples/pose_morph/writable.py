"""Before long work: can its result be written where it is to go?"""

import tempfile
from pathlib import Path

from examples.pose_morph.errors import UserError


def check_writable(path: Path) -> None:
    """Make sure that a file can be written at ``path``; nothing is left there, no folder either.

    Raises:
        UserError: a folder has its name, or the nearest folder above it that is there cannot be written to.
    """
    if path.is_dir():
        raise UserError(f"out: expected a file, and {path} is a folder; give the file's name, too")
    above = next(folder for folder in path.absolute().parents if folder.exists())
    if not above.is_dir():
        raise UserError(f"out: {path} cannot be written, because {above} is a file; choose another place")
    try:
        with tempfile.TemporaryFile(dir=above):
            pass
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"out: {path} cannot be written ({reason}); allow writing there or choose another") from error
