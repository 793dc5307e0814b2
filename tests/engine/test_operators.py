"""The engine as PyTorch sees it: operators that can be compiled, exported and derived, and that keep nothing."""

import io
from dataclasses import replace
from importlib.util import find_spec

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

import gpa_nd
from gpa_nd import GPA, attend, gpa_attention, select_keys
from gpa_nd.ops import GridDownsampler
from gpa_nd.partitioners import GridPartitioner
from gpa_nd.selection import SoftTopK

FAST = [
    "torch",
    pytest.param("triton", marks=pytest.mark.skipif(find_spec("triton") is None, reason="needs the extra 'triton'")),
]
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*encountered:RuntimeWarning"),  # numpy, under Triton's interpreter
    pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning"),  # torch.func.jvp itself
]


def image(**settings):
    return gpa_nd.image(downsample=(3, 4), cells=(2, 3), kappa=2, **settings)


def tokens(heads=2, key_heads=2, c=16, dtype=torch.float64, shape=(10, 13)):
    rng = torch.Generator().manual_seed(0)
    return [torch.randn(2, h, *shape, c, generator=rng, dtype=dtype) for h in (heads, key_heads, key_heads)]


def few_tokens(shape=(5, 6), heads=1):
    """As few as have several cells: Triton's interpreter takes its time."""
    return tokens(heads=heads, key_heads=heads, dtype=torch.float32, shape=shape)


def flat(tensors):
    return [x.flatten(2, 3) for x in tensors]


@pytest.mark.parametrize(
    "settings", ["plain", "logits", "bias", "positions", "shared heads", "euclidean", "candidates", "ranges", "spread"]
)
def test_operators_keep_what_they_promise_to_pytorch(settings):
    q, k, v = flat(tokens(key_heads=1 if settings == "shared heads" else 2))
    layout = image(causal=settings == "ranges").layout((10, 13), (10, 13))
    affinity = "euclidean" if settings == "euclidean" else "dot"
    parts = [layout.query_groups.tensors(), layout.rankers.tensors(), layout.key_groups.tensors()]
    ranges = (layout.key_ranges, layout.host_ranges, *(layout.coarse_positions or (None, None)))
    bias = torch.randn(k.shape[:3], dtype=k.dtype) if settings == "bias" else None
    coarse = (None, None) if bias is None else (layout.key_groups.mean(bias[..., None])[..., 0], torch.ones(2, 2, 16))
    candidates = torch.tensor([5, -1, 0]).expand(2, 2, 6, 3) if settings == "candidates" else None
    select = torch.ops.gpa_nd.blocked_select_keys.default
    spread = (torch.rand(2, 2, 16, dtype=k.dtype),) * 2 if settings == "spread" else (None, None)
    arguments = (q, k, *parts, *ranges, *coarse, *spread, candidates, 3, 0.3, affinity, settings == "spread")
    torch.library.opcheck(select, arguments)
    relevant = select(*arguments)[0]
    inputs = [x.requires_grad_() for x in (q, k, v)]
    logits = torch.randn(relevant.shape, dtype=q.dtype, requires_grad=True) if settings == "logits" else None
    bias = None if bias is None else bias.requires_grad_()
    positions = (torch.arange(130)[:, None], torch.arange(130)[:, None])
    positions = positions if settings == "positions" else layout.positions or (None, None)
    parts = [layout.fine_cells.tensors(), layout.members.tensors()]
    arguments = (*inputs, relevant, logits, bias, *parts, *positions, layout.always, 0.3, affinity)
    torch.library.opcheck(torch.ops.gpa_nd.blocked_attend.default, arguments)
    arguments = [x.detach() if isinstance(x, torch.Tensor) else x for x in arguments]
    torch.library.opcheck(torch.ops.gpa_nd.blocked_attend_backward.default, (torch.randn_like(q), *arguments))


@pytest.mark.parametrize("wants_sums", [False, True])
def test_the_operator_of_members_keeps_what_it_promises_to_pytorch(wants_sums):
    q, k, _ = flat(tokens(key_heads=1))
    layout = image().layout((10, 13), (10, 13))
    cells, members = layout.fine_cells.tensors(), layout.key_groups.tensors()
    candidates = torch.tensor([5, -1, 0]).expand(2, 2, 6, 3)
    added = torch.randn(k.shape[:3], dtype=k.dtype)
    select = torch.ops.gpa_nd.blocked_select_by_members.default
    torch.library.opcheck(select, (q, k, cells, members, added, candidates, 2, 0.3, "dot", wants_sums))


@pytest.mark.parametrize("backend", FAST)
def test_compiled_without_a_break_and_without_a_difference(backend):
    torch.compiler.reset()
    gpa = image(backend=backend)
    compiled = torch.compile(gpa, fullgraph=True, backend="aot_eager")
    for shape in ((5, 6), (6, 7), (5, 6), (7, 8)):  # the compiled one is the first to see each
        inputs = [x.requires_grad_() for x in few_tokens(shape)]
        results = []
        for run in (compiled, gpa):
            out = run(*inputs)
            results.append((out, *torch.autograd.grad(out.square().sum(), inputs)))
        assert all(a.equal(b) for a, b in zip(*results, strict=True))
    with torch.compiler.set_stance("fail_on_recompile"):
        assert compiled(*inputs).equal(results[1][0])


@pytest.mark.parametrize("ranking", ["rms", "rerank"])
@pytest.mark.parametrize("backend", FAST)
def test_every_ranking_is_compiled_without_a_break(backend, ranking):
    torch.compiler.reset()
    gpa = image(backend=backend, ranking=ranking, mass=0.7, causal=True)
    inputs = few_tokens(heads=2)
    assert torch.compile(gpa, fullgraph=True, backend="aot_eager")(*inputs).equal(gpa(*inputs))


@pytest.mark.parametrize("backend", FAST)
def test_a_compiled_function_may_close_over_a_layout_that_nobody_used(backend):
    torch.compiler.reset()
    made, (q, k, v) = image().layout((5, 6), (5, 6)), flat(few_tokens(heads=2))
    layout = gpa_nd.Layout(made.query_groups, made.query_cells, made.key_groups)
    relevant = select_keys(q, k, made, kappa=2)
    logits = torch.randn(relevant.shape, dtype=q.dtype)

    def run(q, k, v):
        out = attend(q, k, v, layout, relevant, logits=logits, backend=backend)
        return out + gpa_attention(q, k, v, layout, kappa=2, backend=backend)

    assert torch.compile(run, fullgraph=True, backend="eager")(q, k, v).equal(run(q, k, v))


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("backend", FAST)
def test_exported_saved_and_loaded_it_gives_the_same_for_any_batch(backend, strict):
    gpa, (q, k, v) = image(backend=backend), few_tokens(heads=2)
    batch = ({0: torch.export.Dim("batch")},) * 3
    file = io.BytesIO()
    torch.export.save(torch.export.export(gpa, (q, k, v), dynamic_shapes=batch, strict=strict), file)
    file.seek(0)
    run = torch.export.load(file).module()
    assert run(q, k, v).equal(gpa(q, k, v))
    assert image(backend=backend)(q, k, v).equal(gpa(q, k, v))  # and nothing that was traced is left behind
    more = [torch.cat([x.flip(0), x[:1]]) for x in (q, k, v)]
    assert run(*more).equal(gpa(*more))


def test_shapes_are_known_without_data():
    gpa = image()
    q, k, v = (x.to("meta") for x in tokens())
    assert gpa(q, k, v[..., :5]).shape == (2, 2, 10, 13, 5)


@pytest.mark.parametrize("mass", [None, 0.7])
@pytest.mark.parametrize("kappa", [2, 99])
@pytest.mark.parametrize("ranking", ["mean", "rerank"])
@pytest.mark.parametrize("backend", FAST)
def test_shapes_of_a_selection_are_known_without_data(backend, ranking, kappa, mass):
    layout = image(ranking=ranking).layout((5, 6), (5, 6))
    q, k, _ = flat(few_tokens(heads=2))

    def run(q, k):
        return select_keys(q, k, layout, kappa=kappa, ranking=ranking, mass=mass, backend=backend)

    found = run(q, k)
    with FakeTensorMode(allow_non_fake_inputs=True) as fake:
        known = run(*(fake.from_tensor(x) for x in (q, k)))
    assert (known.shape, known.dtype) == (found.shape, found.dtype)


def test_the_operator_that_pools_knows_its_shape_and_its_gradient():
    groups = image().layout((10, 13), (10, 13)).key_groups  # those at the edges are smaller
    x = flat(tokens())[0].requires_grad_()
    weights = torch.randn(2, 2, len(groups), 16, dtype=x.dtype)
    pooled, expected = torch.ops.gpa_nd.blocked_pool(x, groups.tensors()), groups.mean(x)
    torch.testing.assert_close(pooled, expected, rtol=0, atol=1e-14)
    grads = (torch.autograd.grad((y * weights).sum(), x)[0] for y in (pooled, expected))
    torch.testing.assert_close(*grads, rtol=0, atol=1e-14)
    with FakeTensorMode(allow_non_fake_inputs=True) as fake:
        known = torch.ops.gpa_nd.blocked_pool(fake.from_tensor(x), groups.tensors())
    assert (known.shape, known.dtype) == (pooled.shape, pooled.dtype)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"affinity": "euclidean"},
        {"ranking": "rms"},
        {"ranking": "moments"},
        {"ranking": "rerank", "mass": 0.7},
        {"unselected": "pooled"},
        {"selection": SoftTopK(0.5)},
    ],
    ids=str,
)
@pytest.mark.parametrize("backend", ["reference", "torch"])
def test_whatever_is_made_is_made_on_the_device_of_the_inputs(backend, settings, causal):
    layout = image(causal=causal, ranking=settings.get("ranking", "mean")).layout((5, 6), (5, 6))
    inputs = [x.requires_grad_() for x in flat(few_tokens())]
    with torch.device("meta"):  # where a tensor lands that is made without a device
        out = gpa_attention(*inputs, layout, kappa=2, backend=backend, **settings)
        made = (out, *torch.autograd.grad(out.sum(), inputs))
    assert {x.device.type for x in made} == {"cpu"}


@pytest.mark.parametrize("backend", FAST)
def test_autocast_changes_nothing(backend):
    q, k, v = (x.requires_grad_() for x in few_tokens())
    expected = image(backend=backend)(q, k, v)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = image(backend=backend)(q, k, v)
    assert out.equal(expected)
    assert all(
        a.equal(b)
        for a, b in zip(
            torch.autograd.grad(out.sum(), (q, k, v)), torch.autograd.grad(expected.sum(), (q, k, v)), strict=True
        )
    )


@pytest.mark.parametrize("backend", FAST)
def test_second_derivatives_are_refused_with_the_backend_that_has_them(backend):
    q, k, v = (x.requires_grad_() for x in few_tokens())
    (grad,) = torch.autograd.grad(image(backend=backend)(q, k, v).square().sum(), q, create_graph=True)
    with pytest.raises(NotImplementedError, match="no second derivatives; backend='reference' has them"):
        grad.sum().backward()


@pytest.mark.parametrize("backend", FAST)
@pytest.mark.parametrize("which", range(3))
def test_forward_mode_derivatives_are_refused_and_not_zero(backend, which):
    inputs = few_tokens()

    def run(x):
        return image(backend=backend)(*inputs[:which], x, *inputs[which + 1 :])

    with pytest.raises(NotImplementedError, match="no forward-mode derivatives; backend='reference' has them"):
        torch.func.jvp(run, (inputs[which],), (torch.ones_like(inputs[which]),))


def test_the_reference_has_forward_mode_derivatives():
    inputs = tokens()
    _, tangent = torch.func.jvp(image(backend="reference"), tuple(inputs), tuple(torch.ones_like(x) for x in inputs))
    step = 1e-6
    moved = [image(backend="reference")(*(x + sign * step for x in inputs)) for sign in (1, -1)]
    assert ((moved[0] - moved[1]) / (2 * step) - tangent).abs().max() < 1e-6


@pytest.mark.parametrize("affinity", ["dot", "euclidean"])
def test_nothing_but_arguments_is_kept_for_the_backward_pass(affinity):
    layout, inputs = image().layout((10, 13), (10, 13)), [x.requires_grad_() for x in flat(tokens())]
    known = {x.data_ptr() for x in inputs}
    for part in (layout.fine_cells, layout.members):
        known |= {x.data_ptr() for x in part.tensors()}
    relevant = select_keys(*inputs[:2], layout, kappa=3)
    known.add(relevant.data_ptr())
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x) or x, lambda x: x):
        attend(*inputs, layout, relevant, affinity=affinity, backend="torch")
    assert kept
    assert {x.data_ptr() for x in kept} <= known


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_memory_that_nobody_has_written_reaches_no_result(case, dtype):
    layout, inputs = case.layout(), [x.to(dtype).requires_grad_() for x in case.flat_tokens()]

    def run():
        relevant = select_keys(*inputs[:2], layout, kappa=3, backend="torch")
        logits = torch.ones(relevant.shape, requires_grad=True)
        out = attend(*inputs, layout, relevant, logits=logits, backend="torch")
        return (relevant, out, *torch.autograd.grad(out.square().sum(), (*inputs, logits)))

    expected = run()
    torch.use_deterministic_algorithms(True)  # which fills what torch.empty returns with NaN
    try:
        assert torch.empty(3).isnan().all()
        assert all(a.equal(b) for a, b in zip(run(), expected, strict=True))
    finally:
        torch.use_deterministic_algorithms(False)


# Heads that share keys and values


@pytest.mark.parametrize("key_heads", [1, 2, 3])
def test_shared_heads_equal_repeated_ones(backend, key_heads):
    q, k, v = tokens(heads=6, key_heads=key_heads)
    inputs = [x.requires_grad_() for x in (q, k, v)]
    out = image(backend=backend, enable_gqa=True)(*inputs)
    grads = torch.autograd.grad(out.square().sum(), inputs)
    repeated = image(backend=backend)(q, *(x.repeat_interleave(6 // key_heads, 1) for x in (k, v)))
    expected = torch.autograd.grad(repeated.square().sum(), inputs)
    assert (out - repeated).abs().max() < 1e-12
    assert all((a - b).abs().max() < 1e-11 for a, b in zip(grads, expected, strict=True))


def test_shared_heads_on_the_dense_path():
    q, k, v = tokens(heads=4, key_heads=2)
    out = GPA(GridPartitioner(2), GridDownsampler(2), kappa=10**6, enable_gqa=True)(q, k, v)
    wide = [x.repeat_interleave(2, 1) for x in (k, v)]
    assert (out - GPA(GridPartitioner(2), GridDownsampler(2), kappa=10**6)(q, *wide)).abs().max() < 1e-12


@pytest.mark.parametrize(
    ("heads", "key_heads", "value_heads", "enable", "message"),
    [
        (4, 2, 2, False, r"k: expected batch and heads \(2, 4\) as q has, or enable_gqa=True, got \(2, 2\)"),
        (4, 3, 3, False, r"k: expected batch and heads \(2, 4\) as q has, got \(2, 3\)"),
        (4, 3, 3, True, r"k: expected batch 2 and a number of heads that divides the 4 of q, got \(2, 3\)"),
        (4, 2, 4, True, "v: expected 2 heads as k has, got 4"),
    ],
)
def test_heads_that_do_not_fit_are_named(heads, key_heads, value_heads, enable, message):
    q, k, v = (torch.zeros(2, h, 10, 13, 4) for h in (heads, key_heads, value_heads))
    with pytest.raises(ValueError, match=message):
        image(enable_gqa=enable)(q, k, v)


# Positions


@pytest.mark.parametrize("affinity", ["dot", "euclidean"])
def test_a_query_sees_no_key_after_its_position(case, backend, affinity):
    layout, inputs = case.layout(), [x.requires_grad_() for x in case.flat_tokens(batch=1)]
    q, k, v = inputs
    n_q, n_k = q.shape[2], k.shape[2]
    rng = torch.Generator().manual_seed(6)
    positions = torch.randint(n_k, (n_q,), generator=rng), torch.randperm(n_k, generator=rng)
    layout = replace(layout, positions=positions)
    relevant = select_keys(q, k, layout, kappa=3)
    out = attend(q, k, v, layout, relevant, affinity=affinity, backend=backend)
    selected = (relevant[:, :, layout.fine_cells.labels, :, None] == layout.key_groups.labels).any(3)
    seen = selected & (positions[1] <= positions[0][:, None])
    scores = q @ k.mT if affinity == "dot" else -torch.cdist(q, k).square()
    scores = (scores / q.shape[-1] ** 0.5).masked_fill(~seen, -torch.inf)
    weights = scores.masked_fill(~seen.any(-1, keepdim=True), 0).softmax(-1).masked_fill(~seen, 0)
    assert (out - weights @ v).abs().max() < 1e-12
    for a, b in zip(
        torch.autograd.grad(out.square().sum(), inputs),
        torch.autograd.grad((weights @ v).square().sum(), inputs),
        strict=True,
    ):
        assert (a - b).abs().max() < 1e-9


@pytest.mark.parametrize("affinity", ["dot", "euclidean"])
@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf, 7.0])
def test_what_is_later_than_a_query_changes_no_bit_of_its_result(backend, bad, affinity):
    layout = gpa_nd.audio(downsample=4, cells=3, kappa=1).layout((30,), (30,))
    q, k, v = torch.randn(3, 2, 1, 30, 16)
    relevant = select_keys(q, k, layout, kappa=4)
    layout = replace(layout, positions=(torch.arange(30), torch.arange(30)))
    settings = {"affinity": affinity, "backend": backend}
    clean = attend(q, k, v, layout, relevant, **settings)
    k, v = k.clone(), v.clone()
    k[0, 0, 17, 3] = v[0, 0, 17, 5] = bad
    out = attend(q, k, v, layout, relevant, **settings)
    assert out[0, 0, :17].equal(clean[0, 0, :17])
    assert out[1].equal(clean[1])
    selecting = (relevant[0, 0] == 17 // 4).any(-1)[layout.fine_cells.labels]
    assert (out[0, 0, 17:] != clean[0, 0, 17:]).any(-1).equal(selecting[17:])


@pytest.mark.parametrize("affinity", ["dot", "euclidean"])
@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_what_is_later_than_a_query_changes_no_bit_of_its_gradient(bad, affinity):
    layout = gpa_nd.audio(downsample=4, cells=3, kappa=1).layout((30,), (30,))
    q, k, v = torch.randn(3, 2, 1, 30, 16)
    layout = replace(layout, positions=(torch.arange(30), torch.arange(30)))
    relevant = select_keys(q, k, layout, kappa=8)

    def gradient():
        x = q.clone().requires_grad_()
        out = attend(x, k, v, layout, relevant, affinity=affinity, backend="torch")
        return torch.autograd.grad(out[:, :, :-1].square().sum(), x)[0][:, :, :-1]

    clean = gradient()
    k[:, :, -1] = v[:, :, -1] = bad
    assert gradient().equal(clean)


@pytest.mark.parametrize(
    ("positions", "error", "message"),
    [
        (torch.arange(130), TypeError, "positions: expected a pair, of the queries and of the keys, got Tensor"),
        ((torch.zeros(130), torch.arange(130)), TypeError, "positions: expected an int64 tensor for the queries, got"),
        (
            (torch.arange(130), torch.arange(129)),
            ValueError,
            r"positions: expected shape \(130, axes\) for the keys, got",
        ),
        (
            (torch.arange(130), torch.arange(260).view(130, 2)),
            ValueError,
            "positions: expected as many axes for queries as for keys, got 1 and 2",
        ),
    ],
)
def test_positions_that_do_not_fit_are_named(positions, error, message):
    with pytest.raises(error, match=message):
        replace(image().layout((10, 13), (10, 13)), positions=positions)
