import pytest
import torch

import gpa_nd
from gpa_nd import GPA
from gpa_nd.diagnostics import captured_by, captured_mass, cost, key_contributions, propose_within, selected
from gpa_nd.nn import TokenAttention
from gpa_nd.ops import GridDownsampler
from gpa_nd.partitioners import GridPartitioner
from gpa_nd.selection import SoftTopK, StraightThrough


def image(**options):
    return gpa_nd.image(downsample=2, cells=(2, 3), kappa=2, **options)


def tokens():
    return torch.randn(2, 2, 3, 9, 12, 8, dtype=torch.float64)


@pytest.mark.parametrize("selection", [None, StraightThrough(SoftTopK())], ids=str)
def test_a_hard_selection_is_that_of_phase_1(selection):
    gpa, (q, k) = image(selection=selection, ranking="rms"), tokens()
    found = selected(gpa, q, k)
    assert found.relevant.equal(
        gpa_nd.select_keys(q.flatten(2, 3), k.flatten(2, 3), found.layout, kappa=2, ranking="rms")
    )
    assert (found.weights == 1).all()


def test_the_weights_of_a_soft_selection_make_the_answer():
    gpa, (q, k) = image(selection=SoftTopK(temperature=3.0)), tokens()
    v = torch.randn(2, 3, 9, 12, 4, dtype=torch.float64)
    found = selected(gpa, q, k)
    assert (found.weights.sum(-1) - 2).abs().max() < 1e-9
    assert ((found.weights > 0) == (found.relevant >= 0)).all()
    tokens_of = (x.flatten(2, 3) for x in (q, k, v))
    out = gpa_nd.attend(*tokens_of, found.layout, found.relevant, logits=found.weights.log())
    torch.testing.assert_close(out.unflatten(2, (9, 12)), gpa(q, k, v))


@pytest.mark.parametrize("options", [{}, {"affinity": "euclidean", "scale": 0.5}, {"ranking": "rerank"}, {"mass": 0.5}])
def test_the_mass_in_one_call_is_that_of_its_steps(options):
    gpa, (q, k) = image(**options), tokens()
    mask, bias = torch.rand(2, 9, 12) < 0.8, torch.randn(2, 3, 9, 12)
    found = selected(gpa, q, k, key_mask=mask, key_bias=bias)
    visible = {"key_mask": mask.flatten(1), "key_bias": bias.flatten(2), "affinity": gpa.affinity, "scale": gpa.scale}
    cells = torch.tensor([0, 4])
    by_steps = captured_mass(q.flatten(2, 3), k.flatten(2, 3), found.layout, found.relevant, cells=cells, **visible)
    at_once = captured_by(gpa, q, k, cells=cells, key_mask=mask, key_bias=bias)
    assert at_once.captured.equal(by_steps.captured)
    assert at_once.best.equal(by_steps.best)
    assert 0.1 < at_once.mean < 1


def test_no_queries_select_nothing():
    gpa = image(selection=SoftTopK())
    found = selected(gpa, torch.randn(0, 3, 9, 12, 8), torch.randn(0, 3, 9, 12, 8))
    assert found.relevant.shape[0] == 0


def test_keys_are_the_elements_that_a_cell_attends_to():
    gpa, (q, k) = image(), tokens()
    found = selected(gpa, q, k)
    contributions = key_contributions(
        q.flatten(2, 3), k.flatten(2, 3), found.layout, found.relevant, torch.arange(9 * 12)
    )
    for cell in range(6):
        (query, *_) = (found.layout.fine_cells.labels == cell).nonzero()[:, 0].tolist()
        for head in range(3):
            reached = contributions[1, head, query].nonzero()[:, 0]
            assert found.keys(cell, batch=1, head=head).sort().values.equal(reached)
    assert repr(found) == (
        "Selected(6 cells with up to 2 of 30 coarse keys each, batch 2, heads 3; keys(cell) has the elements)"
    )


def test_what_names_no_coarse_key_has_no_elements():
    gpa, (q, k) = image(mass=0.01), tokens()
    q[0, 0] = torch.nan
    found = selected(gpa, q, k)
    assert found.keys(0).tolist() == []
    assert len(found.keys(0, batch=1)) == 4


@pytest.mark.parametrize(("leading", "key_heads"), [(0, 3), (2, 3), (2, 1)])
def test_tokens_on_a_grid_are_measured_as_they_are_attended_to(leading, key_heads):
    gpa, (q, k) = (
        image(enable_gqa=key_heads == 1),
        (x.flatten(2, 3) for x in torch.randn(2, 2, 3, 9 + 2, 12, 8, dtype=torch.float64)),
    )
    q, k = q[:, :, : leading + 9 * 12], k[:, :key_heads, : leading + 9 * 12]
    attention = TokenAttention(image(), None, leading=leading)  # whose calls say whether heads share keys
    layout = attention.layout(q, k, grid=(9, 12))
    of_steps = captured_by(gpa, q[:, :, leading:], k, layout=layout)
    at_once = captured_by(attention, q, k, grid=(9, 12))
    assert at_once.captured.equal(of_steps.captured)
    assert at_once.captured.shape == (2, 3, 9 * 12)
    keys = selected(attention, q, k, grid=(9, 12)).keys(0)
    assert len(keys) >= leading + 4
    on_grid, there = (x[:, :, leading:].unflatten(2, (9, 12)) for x in (q, k))
    assert (keys[keys >= leading] - leading).equal(selected(gpa, on_grid, there).keys(0))


def test_a_layout_of_two_structures_with_positions_is_measured_and_counted():
    of_frames, of_samples = GridDownsampler(2), GridDownsampler(4)
    gpa = GPA(GridPartitioner(6), of_frames, key_downsampler=of_samples, kappa=2)
    layout = gpa_nd.causal(gpa.layout((24,), (96,)), 4 * torch.arange(24) + 3, torch.arange(96))
    q, k = torch.randn(1, 2, 24, 8), torch.randn(1, 2, 96, 8)
    found = captured_by(gpa, q, k, layout=layout)
    relevant = gpa_nd.select_keys(q, k, layout, kappa=2)
    assert found.captured.equal(captured_mass(q, k, layout, relevant).captured)
    assert selected(gpa, q, k, layout=layout).relevant.equal(relevant)
    counted = cost(gpa, layout, channels=8)
    assert (counted.queries, counted.keys) == (24, 96)
    assert counted.visible_per_query == pytest.approx(50, rel=0.2)  # of 4, 8, … 96


Q, K = torch.randn(2, 1, 2, 9, 12, 8)
LAYOUT = image().layout((9, 12), (9, 12))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: selected(gpa_nd.image, Q, K), TypeError, "gpa: expected a GPA or a TokenAttention, got function"),
        (lambda: captured_by(LAYOUT, Q, K), TypeError, "gpa: expected .*, got Layout; give it as layout="),
        (lambda: captured_by(image(), Q, K[:, :1]), ValueError, "k: "),
        (
            lambda: captured_by(image(), Q.flatten(2, 3), K.flatten(2, 3)),
            ValueError,
            r"q, k: expected the axes of their structures between heads and channels, as the GPA takes them, got "
            r"\(1, 2, 108, 8\) and \(1, 2, 108, 8\); flat tokens need their layout=",
        ),
        (lambda: captured_by(image(), Q, K, layout=LAYOUT), ValueError, r"q: expected shape \(batch, heads, elements,"),
        (
            lambda: captured_by(image(), Q, K, grid=(9, 12)),
            ValueError,
            r"grid: expected None with a GPA.*, got \(9, 12\)",
        ),
        (
            lambda: captured_by(TokenAttention(image(), (9, 12)), Q.flatten(2, 3), K.flatten(2, 3), layout=LAYOUT),
            ValueError,
            "layout: expected None with a TokenAttention, which has its own, got one",
        ),
        (lambda: selected(image(), Q, K).keys(6), ValueError, "cell: expected one of 0 … 5, got 6"),
        (lambda: selected(image(), Q, K).keys(0, head=2), ValueError, "head: expected one of 0 … 1, got 2"),
        (lambda: selected(image(), Q, K).keys(0.5), TypeError, "cell: expected an int, got 0.5"),
        (
            lambda: cost(image(), LAYOUT, (9, 12), channels=8),
            ValueError,
            r"key_shape: expected None with a layout, which has the keys, too, got \(9, 12\)",
        ),
    ],
)
def test_bad_input_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_a_proposal_says_where_dense_attention_takes_less():
    cheap, dear = (propose_within(gpa_nd.image, (side, side), channels=8, multiply_adds=1e9) for side in (128, 13))
    assert not any("dense" in str(x) for x in cheap)
    for proposal in dear:
        dearer = proposal.cost.total.multiply_adds > proposal.cost.dense.multiply_adds
        assert dearer == ("more than dense attention takes" in repr(proposal))
    assert any("dense" in str(x) for x in dear)
