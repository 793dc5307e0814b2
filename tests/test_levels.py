"""More than two levels: Phase 1 itself by GPA."""

from dataclasses import replace

import pytest
import torch

import gpa_nd
from gpa_nd import GPA, gpa_attention, select_keys
from gpa_nd.ops import GridDownsampler
from gpa_nd.partitioners import GridPartitioner


def test_a_cell_selects_among_what_the_cell_above_it_selected(backend):
    """12 groups of 2 in 4 groups of 3; the upper cells see only the group of groups that is planted for them."""
    layout = gpa_nd.audio(2, 4, (1, 1)).layout((24,), (24,))
    above = GPA(GridPartitioner(2), GridDownsampler(3), kappa=1).layout((12,), (12,))
    layout = replace(layout, coarser=above, parents=None)
    codes = 90 * torch.eye(12, dtype=torch.float64)
    k = codes.repeat_interleave(2, 0)[None, None]
    wanted = [4, 5, 9, 10]  # by the four cells; the upper cells are 0, 1 and 2, 3, and find groups 3–5 and 9–11
    q = codes[wanted].repeat_interleave(6, 0)[None, None]
    assert select_keys(q, k, layout, kappa=(1, 1), backend=backend).flatten().tolist() == wanted
    q = codes[[4, 9, 9, 9]].repeat_interleave(6, 0)[None, None]  # cell 1 alone asks for 9, and cell 0 for 4, twice
    q[:, :, :6] *= 2
    found = select_keys(q, k, layout, kappa=(1, 1), backend=backend).flatten().tolist()
    assert found == [4, 3, 9, 9]  # all candidates of cell 1 tie: the lowest number


def test_cells_belong_to_the_cell_that_holds_their_first_query():
    layout = gpa_nd.audio(2, 6, (1, 1)).layout((24,), (24,))
    assert len(layout.query_cells) == 6
    first = layout.query_cells.order[layout.query_cells.offsets[:-1]]
    assert layout.parents.equal(layout.coarser.fine_cells.labels[first])


@pytest.mark.parametrize("domain", ["audio", "image", "video", "graph"])
def test_ready_domains_take_a_number_for_each_level(domain):
    n = 4096
    match domain:
        case "audio":
            gpa, shape = gpa_nd.audio(8, 64, (4, 4)), (n,)
        case "image":
            gpa, shape = gpa_nd.image(2, (8, 8), (4, 4, 4)), (64, 64)
        case "video":
            gpa, shape = gpa_nd.video((2, 2, 2), (4, 4, 4), (4, 4)), (16, 16, 16)
        case "graph":
            ring = torch.stack([torch.arange(n), (torch.arange(n) + 1) % n])
            gpa, shape = gpa_nd.graph(ring, n, 8, 64, (4, 4)), (n,)
    layout = gpa.layout(shape, shape)
    assert layout.levels == len(gpa.kappa) > 1
    q, k, v = torch.randn(3, 1, 1, *shape, 4)
    assert gpa(q, k, v).shape == q.shape


def test_two_levels_score_a_small_part_of_the_coarse_keys(backend, largest_tensor):
    """4,096 coarse queries and keys: no affinity of all with all is ever held."""
    if backend == "reference":
        pytest.skip("it holds whatever it likes")
    layout = gpa_nd.audio(2, 256, (2, 2)).layout((8192,), (8192,))
    q, k, v = torch.randn(3, 1, 1, 8192, 4)
    with largest_tensor() as seen:
        gpa_attention(q, k, v, layout, kappa=(2, 2), backend=backend)
    assert seen.numel < 4096 * 4096 / 4


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (
            lambda: GPA((GridPartitioner(2),), (GridDownsampler(2),), kappa=(1, 2)),
            ValueError,
            "kappa: expected one for each of 1 levels, as partitioner has, got 2",
        ),
        (
            lambda: GPA((GridPartitioner(2),) * 2, GridDownsampler(2), kappa=1),
            ValueError,
            "downsampler: expected one for each of 2 levels, as partitioner has, got 1",
        ),
        (lambda: gpa_nd.audio(kappa=()), TypeError, r"kappa: expected an int or a tuple of ints, .*got \(\)"),
        (lambda: gpa_nd.audio(kappa=[4, 4]), TypeError, r"kappa: expected an int or a tuple of ints, .*got \[4, 4\]"),
        (
            lambda: GPA(GridPartitioner(2), GridDownsampler(2), kappa=(0,)),
            ValueError,
            "kappa: expected at least 1, got 0",
        ),
        (
            lambda: GPA((GridPartitioner(2), GridDownsampler(2)), (GridDownsampler(2),) * 2, kappa=1),
            TypeError,
            "partitioner: expected an instance of Partitioner, got GridDownsampler",
        ),
        (
            lambda: select_keys(
                torch.zeros(1, 1, 24, 2),
                torch.zeros(1, 1, 24, 2),
                gpa_nd.audio(2, 4, (1, 1)).layout((24,), (24,)),
                kappa=(1, 1, 1),
            ),
            ValueError,
            r"kappa: expected one number for each of 2 levels, got \(1, 1, 1\)",
        ),
        (
            lambda: GPA((GridPartitioner(2), GridPartitioner((2, 2))), (GridDownsampler(2),) * 2, kappa=1).layout(
                (9,), (9,)
            ),
            ValueError,
            r"partitioner: does not fit queries of shape \(5,\) and keys of shape \(5,\), which is what level 1",
        ),
        (
            lambda: replace(gpa_nd.audio(2, 4, 1).layout((24,), (24,)), coarser=gpa_nd.audio().layout((9,), (12,))),
            ValueError,
            r"coarser: expected a layout of 12 queries and 12 keys, got \(9, 12\)",
        ),
    ],
)  # fmt: skip
def test_bad_input_is_named(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_nothing_to_select_from_has_as_many_columns_as_the_finest_level_selects(backend):
    layout = gpa_nd.audio(2, 4, (3, 2)).layout((24,), (24,))
    nothing = torch.zeros(0, 1, 24, 2)
    assert select_keys(nothing, nothing, layout, kappa=(3, 2), backend=backend).shape == (0, 1, 4, 3)


def test_a_cell_above_that_cannot_be_ranked_leaves_nothing_to_select_from_below(backend):
    layout = gpa_nd.audio(2, 8, (2, 2)).layout((64,), (64,))
    q, k = torch.randn(2, 1, 1, 64, 4)
    q[:, :, 0] = torch.nan
    below = layout.parents == layout.parents[0]
    assert 1 < below.sum() < len(below)
    chosen = select_keys(q, k, layout, kappa=(2, 2), backend=backend)[0, 0]
    assert (chosen[below] == -2).all()
    assert (chosen[~below] >= 0).all()
