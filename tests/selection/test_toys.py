"""Tasks that hard selection fails, and that selection which learns solves."""

import pytest
import torch

from gpa_nd import gpa_attention
from gpa_nd.selection import PerturbedTopK, SoftTopK, StraightThrough
from tests.selection.toys import find_the_block, hard


def attention(**settings):
    def attend(q, k, v, layout):
        return gpa_attention(q, k, v, layout, kappa=1, **settings)

    return attend


def test_hard_selection_does_not_learn_where_to_look():
    before, after, _ = find_the_block(hard)
    assert after == before > 1


@pytest.mark.parametrize(
    "rule",
    [
        SoftTopK(2.0, candidates=8),
        PerturbedTopK(1.0, samples=50, candidates=8, generator=torch.Generator().manual_seed(0)),
        StraightThrough(SoftTopK(2.0, candidates=8)),
    ],
    ids=lambda rule: type(rule).__name__,
)
def test_selection_that_learns_finds_the_block(rule):
    before, after, with_hard_selection = find_the_block(attention(selection=rule))
    assert before > 1
    assert after < 0.01
    assert with_hard_selection < 0.01
