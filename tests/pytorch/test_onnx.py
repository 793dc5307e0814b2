"""What torch.onnx.export writes, run by ONNX Runtime."""

import copy

import onnxruntime
import pytest
import torch
from torch import nn

import gpa_nd
from gpa_nd import GPA
from gpa_nd.always import GlobalElements, GridNeighbourhood
from gpa_nd.engine import portable, reference
from gpa_nd.nn import CopyAttention, GatedCoarse
from gpa_nd.ops import GraphDownsampler, GridDownsampler
from gpa_nd.partitioners import GraphPartitioner, GridPartitioner
from gpa_nd.selection import PerturbedTopK, SoftTopK, StraightThrough

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # of the exporter itself

RAGGED = (GraphPartitioner(torch.tensor([1, 0, 0, 0])), GraphDownsampler(torch.tensor([0] * 17 + [1, 2, 2, 3])))
CUT = (GridPartitioner((2, 3)), GridDownsampler((3, 4)))
ALWAYS = [GridNeighbourhood(1), GlobalElements(torch.arange(2))]


def image(**settings):
    return gpa_nd.image(**{"downsample": (3, 4), "cells": (2, 3), "kappa": 2, **settings})


def levels(**settings):
    cells, groups = (GridPartitioner((4, 3)), GridPartitioner((2, 2))), (GridDownsampler((2, 3)),) * 2
    return GPA(cells, groups, kappa=(3, 2), **settings)


class Masked(nn.Module):
    """Masks and biases by place: they are tensors that an exported program takes."""

    def __init__(self, attention):
        super().__init__()
        self.attention = attention

    def forward(self, q, k, v, key_mask, key_bias):
        return self.attention(q, k, v, key_mask=key_mask, key_bias=key_bias)


def tokens(*shape, masked=False, heads=2, channels=8):
    rng = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, heads, *shape, c, generator=rng) for c in (channels, channels, 5))
    if not masked:
        return q, k, v
    return q, k, v, torch.rand(2, *shape, generator=rng) > 0.2, torch.randn(2, heads, *shape, generator=rng)


PICTURE, SOUND, NODES = tokens(10, 13), tokens(30), tokens(21)
STAND_FOR_ALL = 3  # cases, the first ones, stand for those that follow, which a night tries, too
CASES = {
    "image": (image(), PICTURE),
    "image looks at audio": (
        CopyAttention(6, 5, 4, GPA(*CUT, key_downsampler=GridDownsampler(5), kappa=2), heads=2),
        (torch.randn(2, 6, 10, 13), torch.randn(2, 5, 33)),
    ),
    "causal and masked": (
        Masked(gpa_nd.audio(downsample=4, cells=3, kappa=2, causal=True)),
        tokens(30, masked=True),
    ),
    "all at once": (
        Masked(levels(causal=(True, False), always=ALWAYS, unselected="pooled")),
        tokens(10, 13, masked=True),
    ),
    "ragged, reranked, gated": (
        Masked(GatedCoarse(GPA(*RAGGED, kappa=2, ranking="rerank", selection=SoftTopK()), 8)),
        tokens(21, masked=True),
    ),
    "audio": (gpa_nd.audio(downsample=4, cells=3, kappa=2), SOUND),
    "video": (gpa_nd.video(downsample=2, cells=2, kappa=2), tokens(4, 5, 6)),
    "graph": (GPA(*RAGGED, kappa=2), NODES),
    "dense": (image(kappa=99), PICTURE),
    "euclidean": (image(affinity="euclidean"), tokens(10, 13, channels=20)),
    "shared heads": (
        image(enable_gqa=True, unselected="pooled"),
        (PICTURE[0], *(x[:, :1].contiguous() for x in PICTURE[1:])),
    ),
    "causal": (image(causal=True), PICTURE),
    "causal along one axis": (image(causal=(True, False)), PICTURE),
    "always on": (image(always=ALWAYS), PICTURE),
    "levels": (levels(), PICTURE),
    "rms": (image(ranking="rms"), PICTURE),
    "moments": (image(ranking="moments"), PICTURE),
    "rerank": (Masked(image(ranking="rerank")), tokens(10, 13, masked=True)),
    "mass": (image(mass=0.5), PICTURE),
    "pooled": (image(unselected="pooled"), PICTURE),
    "gated": (GatedCoarse(image(), 8), PICTURE),
    "soft": (image(selection=SoftTopK()), PICTURE),
    "straight through": (image(selection=StraightThrough()), PICTURE),
}


def exported(module, inputs):
    """The module as ONNX, for any batch size, and how it is run there."""
    shapes = ({0: torch.export.Dim.DYNAMIC},) * len(inputs)
    program = torch.onnx.export(module.eval(), inputs, dynamo=True, dynamic_shapes=shapes, verbose=False)
    session = onnxruntime.InferenceSession(program.model_proto.SerializeToString())
    names = [x.name for x in session.get_inputs()]

    def run(*inputs):
        return torch.from_numpy(session.run(None, {name: x.numpy() for name, x in zip(names, inputs, strict=True)})[0])

    return run


def pytest_generate_tests(metafunc):
    if "case" in metafunc.fixturenames:
        metafunc.parametrize("case", list(CASES)[: None if metafunc.config.getoption("--nightly") else STAND_FOR_ALL])


@torch.no_grad()
def test_onnx_runtime_gives_the_same_for_any_batch(case):
    module, inputs = CASES[case]
    run = exported(module, inputs)
    for some in (inputs, [torch.cat([x, x.flip(0), x[:1]]) for x in inputs]):
        assert (run(*some) - module(*some)).abs().max() < 1e-5


@pytest.mark.parametrize("name", CASES)
def test_the_operations_that_are_written_give_the_reference_s_answer(name, monkeypatch):
    module, inputs = (
        copy.deepcopy(CASES[name][0]).double(),
        [x.double() if x.is_floating_point() else x for x in CASES[name][1]],
    )
    for part in module.modules():
        if isinstance(part, GPA):
            part.backend = "reference"
    expected = module(*inputs)
    for part in module.modules():
        if isinstance(part, GPA):
            part.backend = "auto"
    monkeypatch.setattr(torch.compiler, "is_exporting", lambda: True)
    monkeypatch.setattr(torch.onnx, "is_in_onnx_export", lambda: True)
    assert (module(*inputs) - expected).abs().max() < 1e-12


@torch.no_grad()
def test_ties_go_to_the_lower_index_and_what_is_no_number_stays_in_its_cell():
    gpa = gpa_nd.audio(downsample=2, cells=2, kappa=3)
    q, v = torch.zeros(1, 1, 24, 4), torch.arange(24.0).view(1, 1, 24, 1)
    k = q.clone()
    k[0, 0, 8:10] = 5  # twelve coarse keys, of which one is another
    run = exported(gpa, (q, k, v))
    assert run(q, k, v).flatten().tolist() == gpa(q, k, v).flatten().tolist()
    q[0, 0, 3, 1] = torch.nan
    assert run(q, k, v).isnan().flatten().tolist() == [True] * 12 + [False] * 12
    k[0, 0, 17, 1] = torch.inf
    assert run(q, k, v).isnan().all()


def test_distances_are_held_for_a_few_channels_at_a_time(largest_tensor):
    q, k, v = (torch.randn(1, 1, 40, c) for c in (64, 64, 1))
    layout = gpa_nd.audio(downsample=4, cells=1, kappa=1).layout((40,), (40,))
    relevant = torch.arange(10).expand(1, 1, 1, 10)
    with largest_tensor() as seen:
        found = portable.attend_with_sums(q, k, v, layout, relevant, None, None, 0.1, "euclidean")[0]
    assert seen.numel <= 40 * 40 * portable.CHANNELS
    exact = reference.attend(*(x.double() for x in (q, k, v)), layout, relevant, None, None, 0.1, "euclidean")
    assert (found - exact).abs().max() < 1e-5


@pytest.mark.parametrize("settings", [{}, {"causal": True}, {"affinity": "euclidean"}, {"always": ALWAYS}], ids=str)
def test_what_is_written_is_algorithm_1(settings):
    q, k, v = (x.double().flatten(2, 3) for x in PICTURE)
    layout = image(**settings).layout((10, 13), (10, 13))
    affinity = settings.get("affinity", "dot")
    chosen = gpa_nd.select_keys(q, k, layout, kappa=3, affinity=affinity, backend="reference")
    written = portable.select_keys(q, k, layout, 3 + layout.contested, 8**-0.5, affinity, None, None, None)[0]
    if not layout.contested:
        assert written.equal(chosen[..., :3])
    expected = reference.attend(q, k, v, layout, chosen, None, None, 0.3, affinity)
    written = portable.attend_with_sums(q, k, v, layout, chosen, None, None, 0.3, affinity)[0]
    assert (written - expected).abs().max() < 1e-12


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"backend": "reference"}, ValueError, "backend: 'reference' cannot be exported"),
        ({"backend": "triton"}, ValueError, "backend: 'triton' cannot be written as ONNX"),
        (
            {"selection": PerturbedTopK()},
            NotImplementedError,
            "PerturbedTopK: .*; gpa.selection = None is",
        ),
    ],
)
def test_bad_input_is_named(monkeypatch, settings, error, message):
    monkeypatch.setattr(torch.onnx, "is_in_onnx_export", lambda: True)  # which tells the error in many pages of advice
    with pytest.raises(error, match=message):
        torch.export.export(image(**settings), PICTURE)
