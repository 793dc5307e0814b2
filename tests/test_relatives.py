"""The recipes of docs/relatives.md compute BiFormer's, VSA's and MoBA's attention, stated here in dense PyTorch."""

import re
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from gpa_nd import GPA
from gpa_nd.ops import GridDownsampler

PAGE = Path(__file__).parents[1] / "docs" / "relatives.md"
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5}


@pytest.fixture(scope="module")
def recipes() -> SimpleNamespace:
    """What the page defines, as a reader pastes it."""
    page = {}
    exec("\n".join(re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)), page)
    return SimpleNamespace(**page)


def blocks(shape, size):
    """(n,) the block of each element of a grid, row-major; those at the end of an axis may be smaller."""
    label = torch.zeros((), dtype=torch.int64)
    for length, step in zip(shape, size, strict=True):
        label = label[..., None] * -(-length // step) + torch.arange(length) // step
    return label.flatten()


def means(x, block):
    member = F.one_hot(block).to(x.dtype)
    return member.mT @ x / member.sum(0)[:, None]


def best(scores, topk):
    """Whether a score is one of the topk in its row."""
    index = scores.topk(min(topk, scores.shape[-1])).indices
    return torch.zeros_like(scores, dtype=torch.bool).scatter(-1, index, True)


def dense(q, k, v, seen, scale):
    return (q @ k.mT * scale).masked_fill(~seen, -torch.inf).softmax(-1) @ v


def biformer(q, k, v, s, topk):
    """Regions of ⌊H/S⌋ × ⌊W/S⌋; A = Qʳ Kʳᵀ over the channels of all heads; attention to the tokens of the topk."""
    _, heads, height, width, c = q.shape
    region, scale = blocks((height, width), (height // s, width // s)), (heads * c) ** -0.5
    q, k, v = (x.flatten(2, 3) for x in (q, k, v))
    q_all, k_all = (x.transpose(1, 2).flatten(2) for x in (q, k))
    routed = best(means(q_all, region) @ means(k_all, region).mT, topk)
    return dense(q, k, v, routed[:, region][:, None, :, region], scale).unflatten(2, (height, width))


def vsa(q, k, v, gate_coarse, gate_fine, topk, size):
    """G_c ⊙ O_c + G_f ⊙ O_f: attention between the means of tiles, and to the tokens of the topk tiles."""
    shape, scale = q.shape[2:5], q.shape[-1] ** -0.5
    of_q, of_k = blocks(shape, size), blocks(k.shape[2:5], size)
    q, k, v = (x.flatten(2, 4) for x in (q, k, v))
    scores = means(q, of_q) @ means(k, of_k).mT * scale
    coarse = (scores.softmax(-1) @ means(v, of_k))[:, :, of_q]
    fine = dense(q, k, v, best(scores, topk)[:, :, of_q][..., of_k], scale)
    return gate_coarse * coarse.unflatten(2, shape) + gate_fine * fine.unflatten(2, shape)


def moba(q, k, v, size, topk):
    """s_i = ⟨q, mean(K_i)⟩, −∞ for blocks to come and ∞ for the query's own; the topk, causally."""
    k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], dim=1) for x in (k, v))
    n = q.shape[2]
    block = torch.arange(n) // size
    number = torch.arange(-(-n // size))
    gate = (q @ means(k, block).mT).masked_fill(number > block[:, None], -torch.inf)
    chosen = best(gate.masked_fill(number == block[:, None], torch.inf), topk)
    return dense(q, k, v, chosen[..., block] & torch.ones(n, n, dtype=torch.bool).tril(), q.shape[-1] ** -0.5)


def each(attention, q, k, v, lengths):
    """Attention sequence by sequence, in a loop."""
    parts = zip(*(x.split(lengths, dim=2) for x in (q, k, v)), strict=True)
    return torch.cat([attention(*part) for part in parts if part[0].shape[2]], dim=2)


def draw(shapes, dtype):
    return [torch.randn(shape, dtype=dtype) for shape in shapes]


def videos(shape, key_shape, dtype):
    """q, k, v and both gates."""
    shapes = (*shape, 6), (*key_shape, 6), (*key_shape, 5), (*shape, 5), (*shape, 5)
    return draw([(2, 2, *sizes) for sizes in shapes], dtype)


def results(attention, inputs):
    """The output, and the gradient of every input for one random gradient of the output."""
    inputs = [x.clone().requires_grad_() for x in inputs]
    out = attention(*inputs)
    weight = torch.randn(out.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(out.dtype)
    return [out.detach(), *torch.autograd.grad((out * weight).sum(), inputs)]


def weights(attention, inputs):
    """(B, H, n_q, n_k) attention itself: the output for values that are one for a key of its own each."""
    q, k, v, *gates = inputs
    n_k = k.shape[2:-1].numel()
    values = torch.eye(n_k, dtype=q.dtype).view(*k.shape[2:-1], n_k).expand(*v.shape[:-1], n_k)
    fine_alone = [torch.full_like(gate[..., :1], number) for number, gate in enumerate(gates)]  # the coarse one is 0
    return attention(q, k, values, *fine_alone).detach()


def assert_same(recipe, formula, inputs):
    """The same keys for every query, the same attention, and the same output and gradients."""
    got, wanted = weights(recipe, inputs), weights(formula, inputs)
    assert (got > 0).equal(wanted > 0)
    tolerance = TOLERANCE[inputs[0].dtype]
    for x, y in zip([got, *results(recipe, inputs)], [wanted, *results(formula, inputs)], strict=True):
        torch.testing.assert_close(x, y, atol=tolerance, rtol=tolerance)


@pytest.fixture(params=TOLERANCE, ids=str)
def dtype(request) -> torch.dtype:
    return request.param


@pytest.mark.parametrize(
    ("heads", "height", "width", "s", "topk"),
    [
        (1, 14, 14, 7, 4),
        (3, 12, 8, 4, 3),
        (2, 7, 5, 2, 2),  # regions of 3 × 2, the last ones of 1 × 1
        (2, 15, 13, 4, 5),
        (2, 9, 11, 3, 100),  # all regions
    ],
)
def test_biformer_routes_regions_once_for_all_heads(recipes, backend, dtype, heads, height, width, s, topk):
    gpa = recipes.regions(height, width, s, topk, backend=backend)
    inputs = draw([(2, heads, height, width, c) for c in (6, 6, 5)], dtype)
    assert_same(partial(recipes.bi_level_routing, gpa), partial(biformer, s=s, topk=topk), inputs)


def test_biformer_with_one_head_is_gpa_alone(recipes, backend, dtype):
    gpa = recipes.regions(15, 13, 4, 5, backend=backend)
    inputs = draw([(2, 1, 15, 13, 6)] * 3, dtype)
    assert_same(gpa, partial(biformer, s=4, topk=5), inputs)


def test_regions_have_the_means_that_biformers_code_takes(recipes):
    x = torch.randn(1, 6, 15, 13, dtype=torch.float64)
    pooled = F.avg_pool2d(x, (3, 3), ceil_mode=True, count_include_pad=False)
    down = recipes.regions(15, 13, 4, 5).downsampler
    torch.testing.assert_close(down(x.permute(0, 2, 3, 1)), pooled.permute(0, 2, 3, 1), atol=1e-12, rtol=0)


@pytest.mark.parametrize(
    ("shape", "key_shape", "size", "topk"),
    [
        ((8, 8, 4), (8, 8, 4), (4, 4, 4), 2),
        ((5, 9, 6), (5, 9, 6), (4, 4, 4), 4),  # partial tiles
        ((3, 4, 3), (3, 4, 3), (2, 2, 2), 3),
        ((6, 7, 5), (4, 5, 10), (4, 4, 4), 3),  # k and v of another video
        ((4, 6, 5), (4, 6, 5), (4, 4, 4), 100),  # all tiles
    ],
)
def test_vsa_adds_a_gated_coarse_branch(recipes, backend, dtype, shape, key_shape, size, topk):
    recipe = partial(recipes.video_sparse_attention, recipes.tiles(topk, size, backend=backend))
    assert_same(recipe, partial(vsa, topk=topk, size=size), videos(shape, key_shape, dtype))


@pytest.mark.parametrize(
    ("n", "block", "topk", "heads", "key_heads"),
    [
        (32, 4, 3, 2, 2),
        (32, 4, 2, 4, 2),
        (30, 4, 3, 2, 1),
        (59, 8, 4, 1, 1),
        (3, 4, 2, 2, 2),  # shorter than a block
        (41, 1, 5, 2, 2),
        (41, 6, 100, 2, 2),  # all blocks
    ],
)
def test_moba_always_attends_to_the_block_of_a_query(recipes, backend, dtype, n, block, topk, heads, key_heads):
    inputs = draw([(2, heads, n, 6), (2, key_heads, n, 6), (2, key_heads, n, 5)], dtype)
    assert_same(recipes.moba(block, topk, backend=backend), partial(moba, size=block, topk=topk), inputs)


@pytest.mark.parametrize("lengths", [(11, 3, 0, 8, 1, 15), (64, 30, 7), (1, 1, 1, 1)], ids=str)
def test_moba_packs_sequences(recipes, backend, dtype, lengths):
    gpa = recipes.moba(4, 3, backend=backend)
    inputs = draw([(2, heads, sum(lengths), c) for heads, c in ((4, 6), (2, 6), (2, 5))], dtype)
    cu_seqlens = torch.tensor([0, *lengths]).cumsum(0)
    in_a_loop = partial(each, partial(moba, size=4, topk=3), lengths=lengths)
    assert_same(partial(gpa.packed, query_shapes=cu_seqlens), in_a_loop, inputs)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs Triton's interpreter")
@pytest.mark.filterwarnings("ignore:.*encountered:RuntimeWarning")  # numpy, under the interpreter
@pytest.mark.parametrize("peer", ["BiFormer", "VSA", "MoBA"])
def test_fused_kernels_run_the_recipes(recipes, peer):
    pytest.importorskip("triton")
    match peer:
        case "BiFormer":
            recipe = partial(recipes.bi_level_routing, recipes.regions(5, 4, 2, 2, backend="triton"))
            formula, inputs = partial(biformer, s=2, topk=2), draw([(1, 2, 5, 4, 6)] * 3, torch.float32)
        case "VSA":
            recipe = partial(recipes.video_sparse_attention, recipes.tiles(2, (2, 2, 2), backend="triton"))
            formula, inputs = partial(vsa, topk=2, size=(2, 2, 2)), videos((3, 2, 3), (3, 2, 3), torch.float32)
        case "MoBA":
            gpa = recipes.moba(3, 2, backend="triton")
            recipe = partial(gpa.packed, query_shapes=torch.tensor([0, 10, 11, 18]))
            formula = partial(each, partial(moba, size=3, topk=2), lengths=(10, 1, 7))
            inputs = draw([(1, heads, 18, 6) for heads in (2, 1, 1)], torch.float32)
    assert_same(recipe, formula, inputs)


def test_heads_that_route_for_themselves_are_not_biformer(recipes):
    q, k, v = draw([(1, 2, 12, 8, 6)] * 3, torch.float64)
    gpa = GPA(recipes.ONE_EACH, GridDownsampler((3, 2)), kappa=3, scale=12**-0.5)
    assert (gpa(q, k, v) - biformer(q, k, v, s=4, topk=3)).abs().max() > 0.1


def test_moba_needs_the_block_of_a_query_always_on(recipes):
    """Without it, the last query of a block may lose the block to an earlier one, and no other query differs."""
    q, k, v = draw([(1, 2, 32, 6)] * 3, torch.float64)
    gpa = GPA(recipes.ONE_EACH, GridDownsampler(1), key_downsampler=GridDownsampler(4), kappa=1, causal=True)
    differs = (gpa(q, k, v) - moba(q, k, v, size=4, topk=2)).abs().amax((0, 1, 3)) > 1e-6
    assert differs[3::4][1:].any()
    differs[3::4] = False
    assert not differs.any()
