"""Checkpoints: whole or not at all, and no code from them."""

import os
import pickle

import pytest
import torch

from examples.pose_morph.errors import UserError
from examples.pose_morph.training.checkpoint import load_checkpoint, save_checkpoint


def test_what_is_saved_is_loaded(tmp_path):
    path = tmp_path / "new" / "checkpoint.pt"
    save_checkpoint(path, {"weights": torch.arange(3.0), "step": 7, "names": ["a"]})
    state = load_checkpoint(path)
    assert torch.equal(state["weights"], torch.arange(3.0))
    assert (state["step"], state["names"]) == (7, ["a"])
    assert [file.name for file in path.parent.iterdir()] == ["checkpoint.pt"]


def test_a_write_that_breaks_leaves_the_old_checkpoint(tmp_path, monkeypatch):
    path = tmp_path / "checkpoint.pt"
    save_checkpoint(path, {"step": 1})

    def full_disk(descriptor):
        raise OSError("no space left")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="no space left"):
        save_checkpoint(path, {"step": 2})
    assert load_checkpoint(path)["step"] == 1


def test_the_new_file_is_flushed_before_it_replaces_the_old(tmp_path, monkeypatch):
    calls = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (calls.append("fsync"), fsync(fd)))
    monkeypatch.setattr(os, "replace", lambda a, b: (calls.append("replace"), replace(a, b)))
    save_checkpoint(tmp_path / "checkpoint.pt", {"step": 1})
    assert calls == ["fsync", "replace"]


def test_missing_and_broken_files_are_named(tmp_path):
    with pytest.raises(UserError, match=r"no checkpoint .*checkpoint.pt; leave --resume out"):
        load_checkpoint(tmp_path / "checkpoint.pt")
    (tmp_path / "checkpoint.pt").write_bytes(b"half a file")
    with pytest.raises(UserError, match=r"checkpoint.pt cannot be read"):
        load_checkpoint(tmp_path / "checkpoint.pt")


class Evil:
    """Unpickled, it would run a command."""

    def __reduce__(self):
        return os.system, ("true",)


def test_code_in_a_checkpoint_does_not_run(tmp_path):
    (tmp_path / "checkpoint.pt").write_bytes(pickle.dumps({"step": Evil()}))
    with pytest.raises(UserError, match="cannot be read"):
        load_checkpoint(tmp_path / "checkpoint.pt")
