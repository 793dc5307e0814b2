import pytest
import torch

import gpa_nd
from gpa_nd.diagnostics import captured_by, captured_mass, propose_within, selected
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


def test_bad_input_is_named():
    q, k = tokens()
    with pytest.raises(TypeError, match="gpa: expected a GPA, got function"):
        selected(gpa_nd.image, q, k)
    with pytest.raises(ValueError, match="k: "):
        captured_by(image(), q, k[:, :2])


def test_a_proposal_says_where_dense_attention_takes_less():
    cheap, dear = (propose_within(gpa_nd.image, (side, side), channels=8, multiply_adds=1e9) for side in (128, 13))
    assert not any("dense" in str(x) for x in cheap)
    for proposal in dear:
        dearer = proposal.cost.total.multiply_adds > proposal.cost.dense.multiply_adds
        assert dearer == ("more than dense attention takes" in repr(proposal))
    assert any("dense" in str(x) for x in dear)
