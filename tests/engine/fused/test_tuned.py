"""What tuning found is chosen on that GPU, and on no other."""

import json

import pytest
import torch

pytest.importorskip("triton")
from gpa_nd.engine.fused import tuned
from gpa_nd.engine.fused.launch import Chip
from gpa_nd.engine.fused.selection_tiles import select_tile, tile_of

H100 = Chip("sm_90", 132)


@pytest.fixture
def file(tmp_path, monkeypatch):
    """The file that is read, and a GPU to read it for."""
    monkeypatch.setenv("GPA_ND_TUNED", str(tmp_path / "folder" / "tuned.json"))
    monkeypatch.setattr(tuned, "interpreted", lambda: False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "H100")
    tuned.kept_here.cache_clear()
    yield tuned.path()
    tuned.kept_here.cache_clear()


def test_what_was_kept_is_chosen(file):
    usual = tile_of(64, torch.bfloat16, H100), select_tile(7)
    tuned.keep(file, "H100", {"tile_of(64, torch.bfloat16)": {"keys": 16, "warps": 2}})
    tuned.keep(file, "A100", {"select_tile(7)": {"blocks": 3}})
    got = tile_of(64, torch.bfloat16, H100)
    assert (got.keys, got.warps, got.rows) == (16, 2, usual[0].rows)
    assert tile_of(65, torch.bfloat16, H100) == usual[0]
    assert select_tile(7) == usual[1]  # that was another GPU

    tuned.keep(file, "H100", {"select_tile(7)": {"blocks": 5}})
    assert select_tile(7).blocks == 5
    assert tile_of(64, torch.bfloat16, H100) == got
    assert [x.name for x in file.parent.iterdir()] == ["tuned.json"]


def test_an_empty_name_is_no_file(file, monkeypatch):
    usual = select_tile(7)
    tuned.keep(file, "H100", {"select_tile(7)": {"blocks": 5}})
    monkeypatch.setenv("GPA_ND_TUNED", "")
    tuned.kept_here.cache_clear()
    assert select_tile(7) == usual


def test_the_file_is_in_the_cache_folder(monkeypatch, tmp_path):
    monkeypatch.delenv("GPA_ND_TUNED", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert tuned.path() == tmp_path / "gpa_nd" / "tuned.json"


@pytest.mark.parametrize("text", ["{", "[]", '{"H100": 3}', '{"H100": {"select_tile(7)": {"blocks": "many"}}}'])
def test_another_file_is_refused(file, text):
    file.parent.mkdir()
    file.write_text(text)
    with pytest.raises(ValueError, match=r"tuned\.json: expected what benchmarks.gpu --keep wrote"):
        select_tile(7)


def test_a_number_that_is_no_more_is_refused(file):
    file.parent.mkdir()
    file.write_text(json.dumps({"H100": {"select_tile(7)": {"depth": 1}}}))
    with pytest.raises(ValueError, match="SelectTile has no depth; tune again"):
        select_tile(7)
