"""Tokens in a sequence: called as scaled_dot_product_attention is, with global tokens beside those of a grid."""

from itertools import product

import pytest
import torch
import torch.nn.functional as F

import gpa_nd
from gpa_nd import GPA, Partition
from gpa_nd.always import GridNeighbourhood
from gpa_nd.diagnostics import captured_mass
from gpa_nd.nn import AspectGrid, TokenAttention
from gpa_nd.ops import GridDownsampler
from gpa_nd.ops.base import IndexUpsampler
from gpa_nd.partitioners import GridPartitioner
from gpa_nd.selection import SoftTopK

ALL = 99


class FirstOfGroup(IndexUpsampler):
    """Phase 2 attends to one element of each group."""

    def members(self, shape):
        groups = GridDownsampler(2).groups(shape)
        first = groups.order[groups.offsets[:-1]]
        labels = torch.empty_like(first)
        labels[first.argsort()] = torch.arange(len(first)).argsort()[first.argsort()]
        return Partition.from_labels(first.argsort(), first.sort().values)

    def __call__(self, index, shape):
        raise NotImplementedError


def image(kappa=ALL, **settings):
    return gpa_nd.image(2, 2, kappa, **settings)


CASES = {
    "an image that nothing divides": (lambda **more: image(**more), (7, 9)),
    "a sequence": (lambda **more: gpa_nd.audio(4, 3, ALL, **more), (30,)),
    "a video": (lambda **more: gpa_nd.video((2, 1, 2), (1, 2, 2), ALL, **more), (3, 4, 5)),
    "three levels": (lambda **more: image((ALL, ALL, ALL), **more), (15, 9)),
    "a neighbourhood that is always on": (lambda **more: image(always=[GridNeighbourhood(2)], **more), (7, 9)),
    "rerank": (lambda **more: image(ranking="rerank", **more), (7, 9)),
    "moments and a mass": (lambda **more: image(ranking="moments", mass=1.0, **more), (7, 9)),
    "soft selection": (lambda **more: image(selection=SoftTopK(), **more), (7, 9)),
    "pooled groups": (lambda **more: image(unselected="pooled", **more), (7, 9)),
    "one group": (lambda **more: gpa_nd.image(9, 1, 1, **more), (7, 9)),
}


def tokens(n, n_k=None, heads=(2, 2), dtype=torch.float64):
    n_k = n if n_k is None else n_k
    sizes = ((heads[0], n, 8), (heads[1], n_k, 8), (heads[1], n_k, 5))
    return tuple(torch.randn(2, *size, dtype=dtype, requires_grad=True) for size in sizes)


def with_gradients(attention, *qkv, **call):
    out = attention(*qkv, **call)
    weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(1), dtype=out.dtype).to(out.device)
    return out, *torch.autograd.grad((out * weights).sum(), qkv)


def assert_close(one, other, atol=1e-12):
    for a, b in zip(one, other, strict=True):
        torch.testing.assert_close(a, b, atol=atol, rtol=0)


@pytest.mark.parametrize("backend", ["reference", "torch"])
@pytest.mark.parametrize(("leading", "trailing"), [(0, 0), (1, 0), (0, 11), (3, 2)])
@pytest.mark.parametrize("case", CASES)
def test_all_keys_selected_is_the_function_it_replaces(case, leading, trailing, backend):
    make, grid = CASES[case]
    attention = TokenAttention(make(backend=backend), grid, leading=leading, trailing=trailing)
    qkv = tokens(leading + torch.Size(grid).numel() + trailing)
    assert_close(with_gradients(attention, *qkv), with_gradients(F.scaled_dot_product_attention, *qkv))


@pytest.mark.parametrize("backend", ["reference", "torch"])
def test_a_call_means_what_it_means_there(backend):
    n, mask = 2 + 63 + 1, torch.rand(2, 1, 1, 66) < 0.7
    bias = torch.randn(2, 2, 1, 66, dtype=torch.float64, requires_grad=True)
    attention = TokenAttention(image(backend=backend), (7, 9), leading=2, trailing=1)
    dense = F.scaled_dot_product_attention
    calls = [
        {"attn_mask": mask},
        {"attn_mask": mask.expand(2, 2, n, n)},
        {"attn_mask": mask[0, 0].expand(n, n)},
        {"attn_mask": mask.expand(2, 2, 1, n)},
        {"attn_mask": torch.zeros(1, 1, dtype=torch.bool)},
        {"attn_mask": bias},
        {"attn_mask": bias[0, 0].float()},
        {"scale": 0.3, "is_causal": False, "dropout_p": 0.0},
        {"scale": 2.0, "attn_mask": mask},
    ]
    for call in calls:
        qkv, wanted = tokens(n), dict(call)
        if call.get("attn_mask") is not None and call["attn_mask"].dtype == torch.float32:
            wanted["attn_mask"] = call["attn_mask"].double()
        assert_close(with_gradients(attention, *qkv, **call), with_gradients(dense, *qkv, **wanted))
    qkv = tokens(n)
    gradients = [torch.autograd.grad(each(*qkv, bias).square().sum(), bias)[0] for each in (attention, dense)]
    assert_close(gradients[:1], gradients[1:])
    qkv = tokens(n, heads=(4, 2))
    call = {"attn_mask": bias, "enable_gqa": True}
    shared = {"attn_mask": bias.repeat_interleave(2, 1), "enable_gqa": True}
    assert_close(
        with_gradients(attention, *qkv, **call | {"attn_mask": mask}),
        with_gradients(dense, *qkv, **shared | {"attn_mask": mask}),
    )


@pytest.mark.parametrize("backend", ["reference", "torch"])
@pytest.mark.parametrize("kappa", [1, 3, (3, 2)])
@pytest.mark.parametrize("ranking", ["mean", "rms", "moments", "rerank"])
def test_the_grid_selects_as_if_it_were_alone_and_sees_all_global_keys(kappa, ranking, backend):
    leading, grid, trailing = 3, (7, 9), 6
    gpa = image(kappa, ranking=ranking, backend=backend)
    attention = TokenAttention(gpa, grid, leading=leading, trailing=trailing)
    q, k, v = tokens(leading + 63 + trailing)
    on_grid = [x[:, :, leading:-trailing] for x in (q, k)]
    alone = gpa.layout(grid, grid)
    settings = {"kappa": kappa, "ranking": ranking, "backend": backend}
    chosen = gpa_nd.select_keys(*on_grid, alone, **settings)
    layout = attention.layout(q, k)
    assert attention.on_grid(q).equal(on_grid[0])
    beside = gpa_nd.select_keys(on_grid[0], k, layout, **settings)
    assert beside[..., : chosen.shape[-1]].equal(chosen)
    groups = alone.key_groups.labels
    seen = torch.zeros(2, 2, 72, 72, dtype=torch.bool)
    seen[..., :leading], seen[..., -trailing:] = True, True
    seen[:, :, :leading], seen[:, :, -trailing:] = True, True
    for cell, queries in enumerate(alone.fine_cells.split(torch.arange(63)[:, None])):
        keys = (chosen[:, :, cell, :, None] == groups).any(-2)
        seen[:, :, leading + queries[:, 0], leading:-trailing] = keys[:, :, None].expand(-1, -1, len(queries), -1)
    masked = with_gradients(F.scaled_dot_product_attention, q, k, v, attn_mask=seen)
    assert_close(with_gradients(attention, q, k, v), masked)


def test_global_keys_are_groups_no_larger_than_those_of_the_grid():
    layout = image(2).layout((7, 9), (7, 9), global_keys=(1, 10))
    sizes = layout.key_groups.sizes[20:]
    assert layout.key_groups.largest == 4
    assert sizes.tolist() == [4, 4, 3]
    assert layout.always.tolist() == [[20, 21, 22]] * 4
    assert gpa_nd.with_global_keys(layout) is layout


def test_members_that_leave_elements_out_stay_as_they_are():
    gpa = GPA(GridPartitioner(2), GridDownsampler(2), key_upsampler=FirstOfGroup(), kappa=ALL, backend="reference")
    layout = gpa.layout((4, 6), (4, 6), global_keys=(1, 2))
    alone = gpa.layout((4, 6), (4, 6))
    assert (layout.members.table[: len(alone.members), 0] - 1).equal(alone.members.table[:, 0])
    attention = TokenAttention(gpa, (4, 6), leading=1, trailing=2)
    q, k, v = tokens(27)
    seen = torch.zeros(27, dtype=torch.bool)
    seen[alone.members.order + 1] = True
    seen[[0, 25, 26]] = True
    out, wanted = attention(q, k, v), F.scaled_dot_product_attention(q, k, v, seen.expand(27, 27))
    assert_close([out[:, :, 1:25]], [wanted[:, :, 1:25]])


@pytest.mark.filterwarnings("ignore:.*encountered:RuntimeWarning")  # numpy, under the interpreter
def test_triton_sees_global_keys_as_the_reference_does():
    device = "cuda" if torch.cuda.is_available() else "cpu"
    grid, qkv = (4, 6), (x[:1, :1].detach().float() for x in tokens(1 + 24 + 5))
    q, k, v = (x.to(device).requires_grad_() for x in qkv)
    for kappa in (2, ALL):
        fused, plain = (
            with_gradients(TokenAttention(image(kappa, backend=backend), grid, leading=1, trailing=5), q, k, v)
            for backend in ("triton", "reference")
        )
        assert_close(fused, plain, atol=1e-5)


def test_a_causal_sequence_is_the_causal_function():
    attention = TokenAttention(gpa_nd.audio(4, 5, ALL, causal=True), lambda n: (n,))
    qkv = tokens(37)
    dense = with_gradients(F.scaled_dot_product_attention, *qkv, is_causal=True)
    assert_close(with_gradients(attention, *qkv, is_causal=True), dense)


def test_all_keys_of_another_grid_selected_is_the_function_too():
    gpa = gpa_nd.GPA(GridPartitioner(2), GridDownsampler(2), key_downsampler=GridDownsampler((2, 1)), kappa=ALL)
    attention = TokenAttention(gpa, (8, 6), key_grid=(4, 3), leading=1)
    qkv = tokens(49, 13)
    assert_close(with_gradients(attention, *qkv), with_gradients(F.scaled_dot_product_attention, *qkv))


def test_text_may_be_of_any_length():
    attention = TokenAttention(image(backend="torch"), (7, 9), trailing="rest")
    for text in (0, 1, 12):
        qkv = tokens(63 + text)
        assert_close(with_gradients(attention, *qkv), with_gradients(F.scaled_dot_product_attention, *qkv))


def test_a_grid_may_follow_from_the_number_of_tokens():
    attention = TokenAttention(image(backend="torch"), AspectGrid(4, 3), leading=1)
    for n in (12, 48, 108):
        qkv = tokens(1 + n)
        assert_close(with_gradients(attention, *qkv), with_gradients(F.scaled_dot_product_attention, *qkv))


def test_a_call_may_bring_its_grid():
    q, k, v = (x.detach() for x in tokens(1 + 48))
    for made_with in (None, (7, 7), AspectGrid(1, 1)):
        attention = TokenAttention(image(2), made_with, leading=1)
        for grid in ((4, 12), (8, 6)):
            fixed = TokenAttention(image(2), grid, leading=1)
            assert attention(q, k, v, grid=grid).equal(fixed(q, k, v))
            assert attention.layout(q, k, grid=grid).query_cells.labels.equal(fixed.layout(q, k).query_cells.labels)
            assert attention.on_grid(q, grid=grid).equal(fixed.on_grid(q))


def test_sides_of_an_aspect_are_found_however_they_were_rounded():
    for height, width, factor in product(range(1, 40, 3), range(1, 40, 5), range(1, 5)):
        rows, columns = AspectGrid(height, width)(-(-height // factor) * -(-width // factor))
        assert rows * columns == -(-height // factor) * -(-width // factor)
        scaled = height * factor, width * factor
        assert AspectGrid(height, width)(scaled[0] * scaled[1]) == scaled


def test_under_autocast_it_casts_as_the_function_does():
    attention = TokenAttention(image(backend="torch"), (7, 9), leading=1)
    q, k, v = (x.detach().float() for x in tokens(64))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out, dense = attention(q, k.bfloat16(), v), F.scaled_dot_product_attention(q, k.bfloat16(), v)
    assert out.dtype == dense.dtype == torch.bfloat16
    torch.testing.assert_close(out, dense, atol=2e-2, rtol=0)


def test_a_compiled_call_is_the_same():
    attention = TokenAttention(image(2), (7, 9), leading=1, trailing=2)
    qkv = tokens(66)
    compiled = torch.compile(attention, backend="aot_eager", fullgraph=True)
    assert_close(with_gradients(compiled, *qkv), with_gradients(attention, *qkv))


def test_the_mass_that_is_captured_counts_global_keys():
    attention = TokenAttention(image(2), (7, 9), leading=1, trailing=5)
    q, k, _ = (x.detach() for x in tokens(69))
    layout, on_grid = attention.layout(q, k), attention.on_grid(q)
    everything, some = (gpa_nd.select_keys(on_grid, k, layout, kappa=kappa) for kappa in (ALL, 2))
    assert captured_mass(on_grid, k, layout, everything).mean == pytest.approx(1)
    chosen = (some[:, :, layout.fine_cells.labels, :, None] == layout.key_groups.labels).any(-2)
    weights = (on_grid @ k.mT / 8**0.5).softmax(-1)
    assert captured_mass(on_grid, k, layout, some).mean == pytest.approx(float((weights * chosen).sum(-1).mean()))


def test_it_has_no_state():
    attention = TokenAttention(image(2), (7, 9), leading=1)
    assert not attention.state_dict()
    assert "leading=1" in repr(attention)


def square(n, leading=0, trailing=0, **settings):
    return lambda **call: TokenAttention(image(2, **settings), (4, 4), leading=leading, trailing=trailing)(
        *(x.detach() for x in tokens(n)), **call
    )


def causal_call(**call):
    return TokenAttention(gpa_nd.audio(4, 2, 2, causal=True), (16,))(*tokens(16), **call)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: TokenAttention(None, (4, 4)), TypeError, "gpa: expected a GPA, got NoneType"),
        (lambda: TokenAttention(image(affinity="euclidean"), (4, 4)), ValueError, "gpa: expected affinity='dot'"),
        (lambda: TokenAttention(image(), 16), TypeError, "grid: expected a tuple of ints or a function"),
        (lambda: TokenAttention(image(), (4, 4), key_grid=[2, 2]), TypeError, "key_grid: expected a tuple"),
        (
            lambda: TokenAttention(image(), ()),
            ValueError,
            r"grid: expected a tuple of ints .*, one at least .* got \(\)",
        ),
        (lambda: TokenAttention(image(), (4, 4), key_grid=(-2, -2)), ValueError, "key_grid: .* none of them negative"),
        (
            lambda: TokenAttention(image(), lambda n: (-4, -4))(*tokens(16)),
            ValueError,
            r"grid: expected a function that returns a tuple of ints, one at least .* negative, got \(-4, -4\)",
        ),
        (
            lambda: TokenAttention(image(), None)(*tokens(16)),
            ValueError,
            "grid: expected that of this call, .* got None",
        ),
        (lambda: square(16)(grid=[4, 4]), TypeError, r"grid: expected a tuple of ints, got \[4, 4\]"),
        (lambda: TokenAttention(image(), (4, 4), leading=-1), ValueError, "leading: expected at least 0, got -1"),
        (lambda: TokenAttention(image(), (4, 4), trailing="all"), TypeError, "trailing: expected an int, got 'all'"),
        (
            lambda: TokenAttention(image(), (4, 4), leading="rest", trailing="rest"),
            ValueError,
            "leading, trailing: expected 'rest' for one of them",
        ),
        (lambda: TokenAttention(image(), AspectGrid(1, 1), leading="rest"), ValueError, "and grids that are tuples"),
        (
            lambda: TokenAttention(image(causal=(True, False)), (4, 4), leading=1),
            ValueError,
            "leading, trailing: expected 0 with a causal GPA",
        ),
        (square(17), ValueError, r"query: expected 16 tokens, those of the grid \(4, 4\), got 17 in \(2, 2, 17, 8\)"),
        (square(16, leading=1), ValueError, r"query: expected 17 tokens, .* and 1 global ones, got 16"),
        (square(15, leading="rest"), ValueError, r"query: expected 16 or more tokens"),
        (
            lambda: TokenAttention(image(), (4, 4))(*tokens(16, 20)),
            ValueError,
            "key: expected 16 tokens as query has, got 20 .* need key_grid",
        ),
        (lambda: square(16)(dropout_p=0.1), ValueError, "dropout_p: expected 0, .* got 0.1; set the attention dropout"),
        (lambda: square(16)(is_causal=True), ValueError, r"is_causal: expected False on the grid \(4, 4\)"),
        (lambda: causal_call(), ValueError, "is_causal: expected True as the GPA was made, got False"),
        (lambda: square(16)(scale="1"), TypeError, "scale: expected a number or None"),
        (lambda: square(16)(attn_mask=[1]), TypeError, "attn_mask: expected a tensor, got list"),
        (lambda: square(16)(attn_mask=torch.ones(16).int()), TypeError, "attn_mask: expected a boolean or floating"),
        (lambda: square(16)(attn_mask=torch.ones(15)), ValueError, r"attn_mask: .* = \(2, 2, 16, 16\), got \(15,\)"),
        (
            lambda: square(16)(attn_mask=torch.ones(1, 2, 2, 16, 16)),
            ValueError,
            "attn_mask: expected a shape that is broadcast",
        ),
        (
            lambda: square(16)(attn_mask=torch.ones(16, 16).tril().bool()),
            ValueError,
            r"attn_mask: expected one row for all queries, .* shape \(2, 1, 1, 16\), got \(16, 16\)",
        ),
        (
            lambda: TokenAttention(image(), (4, 4))(
                *tokens(16, heads=(4, 2)), attn_mask=torch.ones(2, 4, 1, 16), enable_gqa=True
            ),
            ValueError,
            "attn_mask: expected one row for all heads, or one for each of 2 that key has, got 4",
        ),
        (
            lambda: TokenAttention(image(), (4, 4))(*(x[0] for x in tokens(16))),
            ValueError,
            r"query: expected shape \(batch, heads, tokens, channels\), got \(",
        ),
        (
            lambda: TokenAttention(image(), (4, 4))(*(x.unflatten(2, (4, 4)) for x in tokens(16))),
            ValueError,
            "query: expected shape .*, got .*; tokens that lie on axes of their own go to the GPA itself, or x.flatten",
        ),
        (
            lambda: TokenAttention(image(), (4, 4)).layout(tokens(16)[0], tokens(16)[1][0]),
            ValueError,
            r"key: expected shape \(batch, heads, tokens, channels\), got \(",
        ),
        (
            lambda: TokenAttention(image(), (4, 4)).on_grid(tokens(16)[0].transpose(1, 2)),
            ValueError,
            r"query: expected 16 tokens, those of the grid \(4, 4\), got .*; its heads stand after its tokens: x.trans",
        ),
        (
            lambda: TokenAttention(image(), (4, 2, 2)),
            ValueError,
            r"grid: expected 2 axes, as GridPartitioner\(.*\) of the GPA has, got \(4, 2, 2\)",
        ),
        (
            lambda: TokenAttention(image(), lambda n: (n,))(*tokens(16)),
            ValueError,
            r"grid: expected 2 axes, as GridPartitioner\(.*\) of the GPA has, got \(16,\)",
        ),
        (
            lambda: TokenAttention(image(), (4, 4), key_grid=(16,)),
            ValueError,
            r"key_grid: expected 2 axes, as GridDownsampler\(.*\) of the GPA has, got \(16,\)",
        ),
        (lambda: TokenAttention(image(), (4, 4))(1, 2, 3), TypeError, "query: expected a tensor, got int"),
        (
            lambda: TokenAttention(image(), lambda n: n)(*tokens(16)),
            TypeError,
            "grid: expected a function that returns",
        ),
        (lambda: AspectGrid(1, 1)(17), ValueError, "n: expected the tokens of a grid as high .* 1 : 1, got 17, which"),
        (lambda: AspectGrid(0, 1), ValueError, "height: expected at least 1, got 0"),
        (lambda: gpa_nd.with_global_keys(None), TypeError, "layout: expected a Layout, got NoneType"),
        (lambda: image().layout((4, 4), (4, 4), global_keys=(0, -1)), ValueError, "trailing: expected at least 0"),
        (
            lambda: image(causal=True).layout((4, 4), (4, 4), global_keys=(1, 0)),
            ValueError,
            r"layout: expected one that is not causal, .* got the causal Layout\(16 queries",
        ),
    ],
)
def test_bad_input_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()
