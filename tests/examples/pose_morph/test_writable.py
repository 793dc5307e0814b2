"""What cannot be written is known before the work, and looking leaves nothing behind."""

import os
import sys
from pathlib import Path

import pytest

from examples.pose_morph.errors import UserError
from examples.pose_morph.writable import check_writable


def test_a_folder_that_is_still_to_be_made_is_not_made(tmp_path):
    check_writable(tmp_path / "new" / "folder" / "file.json")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("place", "message"), [("", "is a folder"), ("file/below.json", "because .*file is a file"), ("file", None)]
)
def test_a_place_is_refused_for_what_stands_there(tmp_path, place, message):
    (tmp_path / "file").write_text("mine")
    if message is None:
        check_writable(tmp_path / place)
    else:
        with pytest.raises(UserError, match=message):
            check_writable(tmp_path / place)
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="nothing is forbidden to root")
def test_a_folder_that_is_not_ours_is_refused(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(UserError, match="cannot be written"):
        check_writable(tmp_path / "file.json")


@pytest.mark.skipif(sys.platform != "linux", reason="needs a folder that nobody can write to")
def test_a_folder_that_nobody_can_write_to_is_refused():
    with pytest.raises(UserError, match=r"/proc/scores\.json cannot be written"):
        check_writable(Path("/proc/scores.json"))
