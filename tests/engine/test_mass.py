"""Masses of candidates, worked out in plain terms."""

import pytest
import torch

import gpa_nd
from gpa_nd.engine import mass
from gpa_nd.engine.mass import log_mass
from gpa_nd.layout import Layout


def pool(x, groups):
    return groups.mean(x)


@pytest.mark.parametrize("affinity", ["dot", "euclidean"])
def test_masses_are_those_of_coarse_queries_and_lose_nothing_far_from_zero(affinity):
    layout: Layout = gpa_nd.audio(downsample=2, cells=2, kappa=1).layout((128,), (128,))
    q, k = (torch.randn(2, 1, 1, 128, 4) * 64).round() / 64 + (1000 if affinity == "euclidean" else 0)
    candidates = torch.arange(10, 50).expand(1, 1, 2, 40)
    found = log_mass(q, k, layout, candidates, None, 0.5, affinity, pool)
    q_low, k_low = (x.double().view(64, 2, 4).mean(1) for x in (q, k))
    products = q_low @ k_low.T if affinity == "dot" else -(q_low[:, None] - k_low).square().sum(-1)
    shares = (products * 0.5)[:, 10:50].softmax(-1).view(2, 32, 40)
    assert (found[0, 0] - shares.sum(1).log()).abs().max() < 1e-3


def test_no_block_of_cells_holds_more_than_there_is_room_for(largest_tensor, monkeypatch):
    layout = gpa_nd.audio(downsample=2, cells=16, kappa=1).layout((128,), (128,))
    q, k = torch.randn(2, 8, 1, 128, 4)
    candidates = torch.arange(40).expand(8, 1, 16, 40)
    expected = log_mass(q, k, layout, candidates, None, 0.5, "dot", pool)
    monkeypatch.setattr(mass, "ROOM", 6000)  # two cells of 4 coarse queries and 40 candidates of 4 channels take 5,376
    with largest_tensor() as largest:
        found = log_mass(q, k, layout, candidates, None, 0.5, "dot", pool)
    assert found.equal(expected)
    assert largest.numel <= 6000


def test_an_empty_batch_has_no_masses():
    layout = gpa_nd.audio(downsample=2, cells=2, kappa=1).layout((128,), (128,))
    q, candidates = torch.randn(0, 1, 128, 4), torch.zeros(0, 1, 2, 3, dtype=torch.int64)
    assert log_mass(q, q, layout, candidates, None, 0.5, "dot", pool).shape == candidates.shape
