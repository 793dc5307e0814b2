import copy
import pickle

import pytest
import torch

import gpa_nd
from gpa_nd import GPA
from gpa_nd.ops import GraphDownsampler, GridDownsampler, GridIndexUpsampler
from gpa_nd.partitioners import GraphPartitioner, GridPartitioner

CUT, DOWN = GridPartitioner((2, 2)), GridDownsampler((4, 4))


def test_module_is_the_functions_on_flattened_axes(case, backend):
    gpa = case.make(kappa=2, backend=backend)
    q, k, v = case.tokens()
    layout = gpa.layout(case.query_shape, case.key_shape, "cpu")
    flat = gpa_nd.gpa_attention(*(x.flatten(2, -2) for x in (q, k, v)), layout, kappa=2, backend=backend)
    assert gpa(q, k, v).equal(flat.unflatten(2, case.query_shape))


def test_by_layout_attends_to_other_keys_with_the_settings_of_the_module_but_for_those_of_the_call():
    gpa, settings = GPA(CUT, DOWN, kappa=2, ranking="rms", scale=0.3), {"kappa": 2, "ranking": "rms"}
    layout = gpa.layout((8, 8), (8, 8), global_keys=(1, 2))
    q, k, v = torch.randn(2, 4, 64, 8), torch.randn(2, 2, 67, 8), torch.randn(2, 2, 67, 8)
    more = {"key_mask": torch.rand(2, 67) < 0.7, "enable_gqa": True}
    for scale in (None, 0.8):
        out = gpa.by_layout(q, k, v, layout, scale=scale, **more)
        assert out.equal(gpa_nd.gpa_attention(q, k, v, layout, scale=scale or 0.3, **settings, **more))


def test_it_has_no_weights_and_no_state():
    gpa = GPA(CUT, DOWN, kappa=2)
    gpa(*torch.randn(3, 1, 1, 8, 8, 4))
    assert list(gpa.parameters()) == []
    assert gpa.state_dict() == {}
    for twin in (copy.deepcopy(gpa), pickle.loads(pickle.dumps(gpa))):
        assert len(vars(twin._kept)) == 0
        x = torch.randn(3, 1, 1, 8, 8, 4)
        assert twin(*x).equal(gpa(*x))
        assert "GridPartitioner((2, 2)), GridDownsampler((4, 4)), kappa=2" in repr(twin)


def test_layouts_are_kept_but_not_without_bound():
    gpa = GPA(CUT, DOWN, kappa=2)
    first = gpa.layout((8, 8), (8, 8))
    assert gpa.layout((8, 8), (8, 8)) is first
    for size in range(9, 16):
        gpa.layout((size, 8), (size, 8))
    assert gpa.layout((8, 8), (8, 8)) is first  # the seven others were used before
    gpa.layout((16, 8), (16, 8))
    assert gpa.layout((8, 8), (8, 8)) is first
    for size in range(9, 20):
        gpa.layout((size, 8), (size, 8))
    assert gpa.layout((8, 8), (8, 8)) is not first
    assert len(vars(gpa._kept)) <= 8


@pytest.mark.parametrize(
    ("gpa", "shape"),
    [
        (gpa_nd.audio(downsample=4, cells=3, kappa=2), (30,)),
        (gpa_nd.image(downsample=2, cells=(2, 3), kappa=2), (8, 9)),
        (gpa_nd.video(downsample=2, cells=2, kappa=2), (4, 6, 5)),
        (gpa_nd.graph(torch.stack([torch.arange(29), torch.arange(1, 30)]), 30, downsample=4, cells=3, kappa=2), (30,)),
    ],
)
def test_ready_made_for_each_domain(gpa, shape):
    x = torch.randn(3, 2, 2, *shape, 4, dtype=torch.float64)
    out = gpa(*x)
    gpa.backend = "reference"
    assert out.shape == x.shape[1:]
    assert (gpa(*x) - out).abs().max() < 1e-12


def test_ready_made_pass_on_what_they_are_given():
    given = {"scale": 0.5, "affinity": "euclidean", "backend": "reference"}
    path = torch.stack([torch.arange(5), torch.arange(1, 6)])
    weight = torch.tensor([1.0, 9.0, 1.0, 9.0, 1.0])
    weighted = gpa_nd.graph(path, 6, downsample=2, cells=2, edge_weight=weight, **given)
    for gpa in (gpa_nd.audio(**given), gpa_nd.image(**given), gpa_nd.video(**given), weighted):
        assert {name: getattr(gpa, name) for name in given} == given
    assert weighted.downsampler.labels.tolist() == [0, 1, 1, 2, 2, 3]
    assert "GraphPartitioner(4 nodes in 2 cells), GraphDownsampler(6 nodes in 4 groups)" in repr(weighted)


@pytest.mark.parametrize("backend", ["reference", "torch"])
def test_training_follows_inference(case, backend):
    gpa = case.make(kappa=2, backend=backend)
    tokens = case.tokens()
    with torch.inference_mode():
        expected = gpa(*tokens)
    q, k, v = (x.clone().requires_grad_() for x in tokens)
    out = gpa(q, k, v)
    out.sum().backward()
    assert (out - expected).abs().max() < 1e-12
    assert v.grad.abs().sum() > 0


def test_parts_may_come_from_different_devices():
    class OnMeta(GridDownsampler):
        def groups(self, shape):
            return super().groups(shape).to("meta")

    layout = GPA(CUT, DOWN, key_downsampler=OnMeta((4, 4)), kappa=2).layout((8, 8), (8, 8), "meta")
    assert layout.device.type == "meta"


def test_paper_defaults_of_images():
    gpa = gpa_nd.image()
    layout = gpa.layout((256, 256), (256, 256))
    assert (len(layout.query_cells), len(layout.key_groups), gpa.kappa) == (1024, 4096, 12)


def test_half_precision_keeps_its_dtype():
    for dtype in (torch.float16, torch.bfloat16):
        assert GPA(CUT, DOWN, kappa=2)(*torch.randn(3, 1, 1, 8, 8, 4).to(dtype)).dtype == dtype


x = torch.zeros(1, 1, 8, 8, 4)
EDGES = torch.tensor([[0, 1], [1, 2]])


def test_keys_have_the_shape_of_queries_if_nothing_else_is_said():
    gpa = gpa_nd.image(downsample=2, cells=2, kappa=1)
    assert gpa.layout((8, 6)) is gpa.layout((8, 6), (8, 6))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: GPA(DOWN, CUT, kappa=1),
            TypeError,
            "partitioner: expected an instance of Partitioner, got GridDownsampler",
        ),
        (
            lambda: GPA(GridPartitioner, DOWN, kappa=1),
            TypeError,
            "partitioner: expected an instance of Partitioner, got the class GridPartitioner; make one",
        ),
        (lambda: GPA(CUT, 4, kappa=1), TypeError, "downsampler: expected an instance of Downsampler, got int"),
        (
            lambda: GPA(CUT, DOWN, key_downsampler=CUT, kappa=1),
            TypeError,
            "key_downsampler: expected an instance of Downsampler",
        ),
        (
            lambda: GPA(CUT, DOWN, key_upsampler=DOWN, kappa=1),
            TypeError,
            "key_upsampler: expected an instance of IndexUpsampler",
        ),
        (lambda: GPA(CUT, DOWN, kappa=0), ValueError, "kappa: expected at least 1, got 0"),
        (lambda: GPA(CUT, DOWN, kappa=1.5), TypeError, "kappa: expected an int or a tuple of ints, one for each level"),
        (lambda: GPA(CUT, DOWN, kappa=1, scale=float("nan")), ValueError, "scale: expected a finite number, got nan"),
        (lambda: GPA(CUT, DOWN, kappa=1, scale="1"), TypeError, "scale: expected a number or None, got str"),
        (lambda: GPA(CUT, DOWN, kappa=1, affinity="cosine"), ValueError, "affinity: expected one of .*, got 'cosine'"),
        (lambda: GPA(CUT, DOWN, kappa=1, backend="cuda"), ValueError, "backend: expected one of .*, got 'cuda'"),
        (lambda: GPA(CUT, DOWN, kappa=1)(x[0, 0], x, x), ValueError, r"q: expected shape \(batch, heads, elements"),
        (lambda: GPA(CUT, DOWN, kappa=1)(x[:, :, 0], x, x), ValueError, r"q: expected \(batch, heads, height, width,"),
        (lambda: GPA(CUT, DOWN, kappa=1)(x, x[:, :, 0], x[:, :, 0]), ValueError, r"k: expected \(batch, heads, height"),
        (lambda: GPA(CUT, DOWN, kappa=1).layout((8, 8), (8,)), ValueError, "key_downsampler: does not fit queries of"),
        (
            lambda: GPA(CUT, DOWN, key_upsampler=GridIndexUpsampler((2, 4)), kappa=1)(x, x, x),
            ValueError,
            "key_members: expected a list for each of the 4 coarse keys, got 8",
        ),
        (lambda: GPA(GridPartitioner((2,)), DOWN, kappa=1)(x, x, x), ValueError, "partitioner: does not fit"),
        (lambda: GPA(CUT, DOWN, kappa=1)(x, x, x[:, :, :4]), ValueError, r"v: expected elements \(8, 8\) as k has"),
        (lambda: GPA(CUT, DOWN, kappa=1)(x, x[..., :3], x), ValueError, "k: expected 4 channels as q has, got 3"),
        (lambda: GPA(CUT, DOWN, kappa=1)(x, x.double(), x), TypeError, "k: expected torch.float32 as q has"),
        (lambda: GPA(CUT, DOWN, kappa=1)(x.int(), x, x), TypeError, "q: expected float16, .*got torch.int32"),
        (
            lambda: GPA(CUT, DOWN, kappa=1)(x, x.to("meta"), x),
            ValueError,
            "k: expected it on cpu, where q is, got meta",
        ),
        (lambda: GPA(CUT, DOWN, kappa=1)(x, x, None), TypeError, "v: expected a tensor, got NoneType"),
        (lambda: GPA(CUT, DOWN, kappa=1)(x, x.expand(2, -1, -1, -1, -1), x), ValueError, "k: expected batch and heads"),
        (lambda: GPA(CUT, DOWN, kappa=1)(x[..., :0], x[..., :0], x), ValueError, "q: expected at least one channel"),
        (
            lambda: GPA(GraphPartitioner(EDGES[0]), GraphDownsampler(EDGES[0]), kappa=1)(
                x[:, :, 0], x[:, :, 0], x[:, :, 0]
            ),
            ValueError,
            r"downsampler: does not fit .*labels: they are for shape \(2,\), got one of shape \(8,\)",
        ),
        (
            lambda: gpa_nd.image()(x[0], x[0], x[0]),
            ValueError,
            r"q: expected \(batch, heads, height, width, channels\) for a grid of 2 axes, got shape \(1, 8, 8, 4\)",
        ),
        (
            lambda: gpa_nd.audio()(x, x, x),
            ValueError,
            r"q: expected \(batch, heads, length, channels\) for a grid of 1 axis, got shape \(1, 1, 8, 8, 4\)",
        ),
        (
            lambda: GPA(GridPartitioner((2,) * 4), GridDownsampler(2), kappa=1)(x, x, x),
            ValueError,
            r"q: expected \(batch, heads, 4 sizes, channels\) for a grid of 4 axes, got shape \(1, 1, 8, 8, 4\)",
        ),
        (
            lambda: gpa_nd.image()(x, x, x, attn_mask=torch.ones(64, 64, dtype=torch.bool)),
            ValueError,
            "attn_mask: expected None, got Tensor; which keys are seen goes to key_mask=, .* key_bias=; causal=True",
        ),
        (lambda: GPA(CUT, DOWN, kappa=1).layout(8, (8, 8)), TypeError, "query_shape: expected a tuple of ints, got 8"),
        (lambda: gpa_nd.image(downsample=(4, 4, 4)), ValueError, "downsample: expected 2 numbers, one for each axis"),
        (lambda: gpa_nd.audio(cells=0), ValueError, "cells: expected numbers of at least 1, got 0"),
        (lambda: gpa_nd.video(downsample=2.0), TypeError, "downsample: expected an int or a tuple of ints, got 2.0"),
        (lambda: gpa_nd.graph(EDGES, 2), ValueError, "edge_index: "),
        (lambda: gpa_nd.graph(EDGES, 3, cells=0), ValueError, "cells: expected at least 1, got 0"),
    ],
)
def test_bad_input_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()
