"""A damaged file is refused by name, or read as it was: no other error, no crash, no hang, no end of memory."""

from __future__ import annotations

import sys
import warnings
from dataclasses import fields, is_dataclass
from random import Random
from typing import Any

import pytest
import torch

from examples.pose_morph.data import lmdb_store
from tests.files.damage import damaged
from tests.files.kinds import KINDS
from tests.files.trials import findings

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="the trials are forked, and their memory is limited"),
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),  # said of forks
]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_a_damaged_file_is_refused_by_name_or_read_as_it_was(kind, tmp_path, cases):
    path = kind.write(tmp_path)
    content, before = path.read_bytes(), leaves(kind.read(path))
    path.write_bytes(content)  # some readers write it anew

    def trial(chance: Random) -> None:
        warnings.simplefilter("ignore")  # Pillow's about odd files
        lmdb_store.close_all()  # whose file must not change below it
        in_format = kind.edit is not None and chance.random() < 0.5
        path.write_bytes(kind.edit(content, chance) if in_format else damaged(content, chance))
        try:
            got = kind.read(path)
        except kind.errors as error:
            if path.name not in str(error) and str(tmp_path) not in str(error):
                raise AssertionError("the error does not name the file, or its folder") from error
            return
        if kind.sealed and not in_format:
            assert leaves(got) == before, "it was read as something else"

    assert not findings(trial, cases(12, 10_000 if kind.name == "checkpoint" else 1_000))


def leaves(value: Any) -> list[Any]:
    """A nested value as a list that can be compared."""
    if is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name) for field in fields(value)}
    if isinstance(value, dict):
        return [leaf for name in sorted(value, key=str) for leaf in (name, *leaves(value[name]))]
    if isinstance(value, list | tuple):
        return [leaf for item in value for leaf in leaves(item)]
    return [(value.dtype, value.tolist()) if isinstance(value, torch.Tensor) else value]
