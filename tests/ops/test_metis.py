import sys

import pytest
import torch

from gpa_nd.ops.metis import _fill_empty, metis_labels

PATH = torch.stack([torch.arange(11), torch.arange(1, 12)])


def grid(size):
    node = torch.arange(size * size).view(size, size)
    across = torch.stack([node[:, :-1].flatten(), node[:, 1:].flatten()])
    return torch.cat([across, torch.stack([node[:-1].flatten(), node[1:].flatten()])], dim=1)


@pytest.mark.parametrize("parts", [1, 2, 5, 12, 40])
@pytest.mark.parametrize("edges", [PATH, PATH[:, :3], PATH[:, :0]], ids=["path", "nodes alone", "no edges"])
def test_exactly_the_parts_asked_for(edges, parts):
    pytest.importorskip("pymetis")
    sizes = metis_labels(edges, 12, parts).bincount()
    assert len(sizes) == min(parts, 12)
    assert (sizes >= 1).all()


def test_few_edges_of_a_grid_are_cut_and_parts_are_balanced():
    pytest.importorskip("pymetis")
    edges = grid(32)
    labels = metis_labels(edges, 1024, 4)
    assert (labels[edges[0]] != labels[edges[1]]).sum() <= 100
    assert labels.bincount().max() <= 280
    assert metis_labels(torch.cat([edges, edges.flip(0)], dim=1), 1024, 4).equal(labels)


def test_weights_decide_what_is_cut():
    pytest.importorskip("pymetis")
    ring = torch.tensor([[0, 1, 2, 3], [1, 2, 3, 0]])
    for heavy in (0, 1):
        weight = torch.where(torch.arange(4) % 2 == heavy, 100.0, 1.0)
        labels = metis_labels(ring, 4, 2, weight)
        assert (labels[ring[0]] == labels[ring[1]]).equal(weight == 100.0)


def test_few_heavy_edges_count_for_more_than_many_light_ones():
    pytest.importorskip("pymetis")
    node = torch.arange(8).view(2, 4)  # a ladder: two rows of heavy edges, and four light rungs
    rows, rungs = torch.stack([node[:, :-1].flatten(), node[:, 1:].flatten()]), node
    weight = torch.cat([torch.full((6,), 100.0), torch.ones(4)])
    labels = metis_labels(torch.cat([rows, rungs], dim=1), 8, 2, weight).view(2, 4)
    assert (labels == labels[:, :1]).all()
    assert labels[0, 0] != labels[1, 0]


def test_an_empty_part_gets_half_of_the_largest():
    # part 0 holds 4, 3, 1, 0; part 1 gets the half 1, 0; then part 3 gets the half 3 of what is left in part 0
    assert _fill_empty([0, 0, 2, 0, 0], [4, 3, 2, 1, 0], 4) == [[4], [1, 0], [2], [3]]


def test_missing_pymetis_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "pymetis", None)
    with pytest.raises(ImportError, match=r"gpa_nd\[metis\]"):
        metis_labels(PATH, 12, 2)


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="parts: expected at least 1, got 0"):
        metis_labels(PATH, 12, 0)
    with pytest.raises(TypeError, match=r"parts: expected an int, got 2\.0"):
        metis_labels(PATH, 12, 2.0)
    with pytest.raises(ValueError, match="edge_index: expected numbers"):
        metis_labels(PATH, 5, 2)
