"""Checkpoints: whole or not at all, and no code from them."""

import errno
import io
import os
import pickle
from pathlib import Path

import pytest
import torch

from examples.pose_morph.errors import UserError
from examples.pose_morph.training.checkpoint import FORMAT, load_checkpoint, save_checkpoint


def test_what_is_saved_is_loaded(tmp_path):
    path = tmp_path / "new" / "checkpoint.pt"
    save_checkpoint(path, {"settings": "", "weights": torch.arange(3.0), "step": 7, "names": ["a"]})
    state = load_checkpoint(path)
    assert torch.equal(state["weights"], torch.arange(3.0))
    assert (state["step"], state["names"]) == (7, ["a"])
    assert [file.name for file in path.parent.iterdir()] == ["checkpoint.pt"]


def test_the_new_file_is_flushed_before_it_replaces_the_old(tmp_path, monkeypatch):
    calls = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (calls.append("fsync"), fsync(fd)))
    monkeypatch.setattr(os, "replace", lambda a, b: (calls.append("replace"), replace(a, b)))
    save_checkpoint(tmp_path / "checkpoint.pt", {"settings": "", "step": 1})
    assert calls == ["fsync", "replace"]


def test_missing_and_broken_files_are_named(tmp_path):
    with pytest.raises(UserError, match=r"no checkpoint .*checkpoint.pt; leave --resume out"):
        load_checkpoint(tmp_path / "checkpoint.pt")
    (tmp_path / "checkpoint.pt").write_bytes(b"half a file")
    with pytest.raises(
        UserError, match=r"checkpoint.pt cannot be read as a checkpoint: it is damaged, .* new run in another --out"
    ):
        load_checkpoint(tmp_path / "checkpoint.pt")


class Evil:
    """Unpickled, it would run a command."""

    def __reduce__(self):
        return os.system, ("true",)


def test_code_in_a_checkpoint_does_not_run(tmp_path):
    (tmp_path / "checkpoint.pt").write_bytes(pickle.dumps({"step": Evil()}))
    with pytest.raises(UserError, match="cannot be read"):
        load_checkpoint(tmp_path / "checkpoint.pt")


def test_other_formats_and_other_files_are_named(tmp_path):
    path = tmp_path / "checkpoint.pt"
    for state, message in (
        ({"settings": "{}", "format": FORMAT + 1}, r"written by a newer version .*format 3, this one reads 2.*update"),
        ({"weights": torch.zeros(1)}, "is no checkpoint of this program; put a whole copy of the file back"),
        ([1, 2], "is no checkpoint of this program"),
    ):
        torch.save(state, path)
        with pytest.raises(UserError, match=message):
            load_checkpoint(path)


def test_a_full_disk_leaves_the_old_checkpoint_and_no_half_of_the_new_one(tmp_path, monkeypatch):
    """A disk with room for one checkpoint: every write beyond it fails, as it would with ENOSPC."""
    path = tmp_path / "checkpoint.pt"
    save_checkpoint(path, {"settings": "", "step": 1})
    opened = Path.open

    class FullDisk(io.FileIO):
        def write(self, data):
            if self.tell() + len(data) > 20_000:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return super().write(data)

    monkeypatch.setattr(Path, "open", lambda self, mode: FullDisk(self, mode) if mode == "wb" else opened(self, mode))
    with pytest.raises(UserError, match=r"checkpoint.pt cannot be written \(No space left.*the old file is as it was"):
        save_checkpoint(path, {"settings": "", "step": 2, "weights": torch.zeros(100_000)})
    assert load_checkpoint(path)["step"] == 1
    assert [file.name for file in tmp_path.iterdir()] == ["checkpoint.pt"]
