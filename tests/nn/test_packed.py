"""Structures side by side: each as if it were alone."""

import warnings
from dataclasses import fields

import pytest
import torch

import gpa_nd
from gpa_nd import GPA, Layout, Partition
from gpa_nd.always import AlwaysOn, GlobalElements, GridNeighbourhood
from gpa_nd.ops import Downsampler, GraphDownsampler, GridDownsampler
from gpa_nd.partitioners import GraphPartitioner, GridPartitioner, Partitioner

LENGTHS = [(5,), (40,), (17,), (2,), (40,)]
IMAGES = [(4, 5), (9, 2), (1, 1), (7, 6)]
VOLUMES = [(4, 3, 5), (2, 2, 2), (5, 4, 3)]
SINKS, NEAR = GlobalElements(torch.tensor([1, 0])), GridNeighbourhood(2)


class Pairs(Downsampler):
    """A geometry of somebody's own, which knows nothing about packs."""

    def groups(self, shape):
        return Partition.from_labels(torch.arange(shape[0]) // 2)


class Halves(Partitioner):
    def cells(self, shape):
        return Partition.from_labels(torch.arange(shape[0]) * min(2, shape[0]) // max(1, shape[0]))


class OwnGroups(AlwaysOn):
    def keys(self, cells, query_shape, key_downsampler, key_shape):
        labels = key_downsampler.groups(key_shape).labels
        return torch.stack([labels[cells.order[start]] for start in cells.offsets[:-1]])[:, None]


def graphs(**settings):
    labels, cells = torch.tensor([0, 1, 0, 2, 2]), torch.tensor([1, 0, 1])
    return GPA(GraphPartitioner(cells), GraphDownsampler(labels), **settings)


MAKERS = {
    "sequences": (lambda **more: gpa_nd.audio(4, 3, **more), LENGTHS, {}),
    "sequences, causal": (lambda **more: gpa_nd.audio(4, 3, causal=True, **more), LENGTHS, {}),
    "sequences, always": (lambda **more: gpa_nd.audio(4, 3, always=[SINKS, NEAR], **more), LENGTHS, {}),
    "sequences, causal, always": (
        lambda **more: gpa_nd.audio(2, 5, causal=True, always=[NEAR, SINKS], **more),
        LENGTHS,
        {},
    ),
    "sequences, causal, more cells than are compared at once": (
        lambda **more: gpa_nd.audio(1, 90, causal=True, always=[NEAR], **more),
        [(100,), (37,), (90,), (100,), (60,)],
        {},
    ),
    "sequences, levels": (lambda **more: gpa_nd.audio(2, 5, always=[NEAR], **more), LENGTHS, {"levels": 3}),
    "sequences, causal, levels": (lambda **more: gpa_nd.audio(2, 5, causal=True, **more), LENGTHS, {"levels": 2}),
    "images": (lambda **more: gpa_nd.image((2, 3), 2, always=[NEAR], **more), IMAGES, {}),
    "images, causal rows": (lambda **more: gpa_nd.image(2, 2, causal=(True, False), **more), IMAGES, {}),
    "images, causal everywhere": (lambda **more: gpa_nd.image(2, 2, causal=True, **more), IMAGES, {"levels": 2}),
    "volumes": (lambda **more: gpa_nd.video((2, 1, 2), (2, 3, 1), **more), VOLUMES, {"levels": 2}),
    "graphs of one shape": (graphs, [(5,), (5,), (5,)], {}),
    "a geometry of one's own": (
        lambda **more: GPA(Halves(), Pairs(), always=[OwnGroups()], **more),
        [(7,), (2,), (7,), (12,)],
        {},
    ),
}


@pytest.fixture(params=MAKERS)
def many(request):
    make, shapes, more = MAKERS[request.param]
    levels = more.get("levels", 1)

    def with_kappa(kappa, **settings):
        return make(kappa=(kappa,) * levels if levels > 1 else kappa, **settings)

    return with_kappa, shapes


def assert_same(one, other):
    """Layouts, partitions and tensors that say the same."""
    assert type(one) is type(other)
    if isinstance(one, torch.Tensor):
        assert one.equal(other)
    elif isinstance(one, tuple):
        for a, b in zip(one, other, strict=True):
            assert_same(a, b)
    elif isinstance(one, Partition):
        assert_same((one.order, one.offsets, one.host_offsets), (other.order, other.offsets, other.host_offsets))
    elif isinstance(one, Layout):
        for field in fields(one):
            if field.name in ("pooled", "first_look", "second_look"):  # which say the same once more
                continue
            assert_same(getattr(one, field.name), getattr(other, field.name))
        assert_same(one.members, other.members)


def as_seen(layout):
    """What each cell may select, in place of the two ways to say it: ranges and positions of coarse keys."""
    number = torch.arange(len(layout.key_groups))
    seen = (layout.key_ranges[:, :1] <= number) & (number < layout.key_ranges[:, 1:])
    if layout.coarse_positions is not None:
        cells, keys = layout.coarse_positions
        seen &= (keys <= cells[:, None]).all(-1)
    layout.key_ranges, layout.coarse_positions = seen, None
    layout.host_ranges = None
    if layout.coarser is not None:
        as_seen(layout.coarser)
    return layout


def test_a_layout_made_at_once_is_that_of_each_side_by_side(many):
    make, shapes = many
    gpa = make(2)
    at_once = gpa._structure.layout(tuple(shapes), tuple(shapes))
    one_by_one = Layout.concat([gpa._structure.layout((shape,), (shape,)) for shape in shapes])
    assert_same(as_seen(at_once), as_seen(one_by_one))


@pytest.mark.parametrize("kappa", [2, 10**6])
def test_packed_is_each_structure_alone(many, backend, kappa):
    make, shapes = many
    gpa = make(kappa, backend=backend)
    ends = torch.tensor([torch.Size(shape).numel() for shape in shapes]).cumsum(0).tolist()
    q, k, v = (torch.randn(2, 2, ends[-1], c, dtype=torch.float64) for c in (4, 4, 3))
    out = gpa.packed(q, k, v, shapes)
    for shape, start, end in zip(shapes, [0, *ends], ends, strict=False):
        alone = gpa(*(x[:, :, start:end].unflatten(2, shape) for x in (q, k, v))).flatten(2, -2)
        assert (out[:, :, start:end] - alone).abs().max() < 1e-12


@pytest.mark.parametrize("causal", [False, True])
def test_all_keys_of_a_pack_are_dense_attention_with_a_block_diagonal_mask(backend, causal):
    gpa = gpa_nd.audio(4, 3, kappa=10**6, causal=causal, backend=backend)
    q, k, v = torch.randn(3, 1, 2, 104, 4, dtype=torch.float64)
    structure = torch.arange(5).repeat_interleave(torch.tensor([5, 40, 17, 2, 40]))
    seen = structure[:, None] == structure
    seen = seen.tril() if causal else seen
    expected = (q @ k.mT / 2).masked_fill(~seen, -torch.inf).softmax(-1) @ v
    offsets = torch.tensor([0, 5, 45, 62, 64, 104])
    assert (gpa.packed(q, k, v, offsets) - expected).abs().max() < 1e-12


def test_keys_may_live_on_other_structures_and_some_structures_have_none(backend):
    cut, down = GridPartitioner(2), GridDownsampler((2, 2))
    gpa = GPA(cut, down, key_downsampler=GridDownsampler(3), kappa=2, backend=backend)
    q, k, v = (torch.randn(1, 2, n, 4, dtype=torch.float64) for n in (12 + 6 + 4, 8 + 5, 8 + 5))
    out = gpa.packed(q, k, v, [(3, 4), (2, 3), (2, 2)], torch.tensor([0, 8, 8, 13]))
    first = gpa(q[:, :, :12].unflatten(2, (3, 4)), k[:, :, :8], v[:, :, :8])
    assert (out[:, :, :12] - first.flatten(2, 3)).abs().max() < 1e-12
    assert out[:, :, 12:18].eq(0).all()
    last = gpa(q[:, :, 18:].unflatten(2, (2, 2)), k[:, :, 8:], v[:, :, 8:])
    assert (out[:, :, 18:] - last.flatten(2, 3)).abs().max() < 1e-12


@pytest.mark.parametrize("causal", [False, True])
def test_empty_structures_change_nothing(backend, causal):
    gpa = gpa_nd.audio(4, 3, kappa=2, causal=causal, backend=backend)
    q, k, v = torch.randn(3, 1, 2, 25, 4)
    expected = gpa.packed(q, k, v, [(20,), (5,)])
    assert gpa.packed(q, k, v, torch.tensor([0, 0, 20, 20, 20, 25, 25])).equal(expected)
    assert gpa.packed(q[:, :, :0], k[:, :, :0], v[:, :, :0], [(0,), (0,)]).shape == (1, 2, 0, 4)


def test_masks_biases_and_shared_heads_mean_the_same(backend):
    gpa = gpa_nd.audio(4, 3, kappa=1, enable_gqa=True, backend=backend)
    q, (k, v) = torch.randn(2, 4, 45, 4, dtype=torch.float64), torch.randn(2, 2, 2, 45, 4, dtype=torch.float64)
    mask, bias = torch.rand(2, 45) > 0.3, torch.randn(2, 2, 45, dtype=torch.float64)
    out = gpa.packed(q, k, v, [(30,), (15,)], key_mask=mask, key_bias=bias)
    for some in (slice(0, 30), slice(30, 45)):
        alone = gpa(*(x[:, :, some] for x in (q, k, v)), key_mask=mask[:, some], key_bias=bias[..., some])
        assert (out[:, :, some] - alone).abs().max() < 1e-12


def test_layouts_of_packs_are_kept(backend):
    gpa = gpa_nd.audio(4, 3, kappa=2)
    layout = gpa.packed_layout([(5,), (9,)])
    assert gpa.packed_layout(torch.tensor([0, 5, 14], dtype=torch.int32)) is layout
    assert gpa.packed_layout([(5,)]) is gpa.layout((5,), (5,))


def nested(*lengths, requires_grad=False, **settings):
    x = torch.randn(sum(lengths), 2, 4, requires_grad=requires_grad, **settings)
    offsets = torch.tensor([0, *lengths]).cumsum(0)
    return x, torch.nested.nested_tensor_from_jagged(x, offsets)


@pytest.fixture(autouse=True)
def _nested_tensors_are_a_prototype():
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The PyTorch API of nested tensors", UserWarning)
        yield


def test_jagged_nested_tensors_come_back_jagged_with_gradients(backend):
    gpa = gpa_nd.audio(4, 3, kappa=2, backend=backend)
    x, jagged = nested(5, 0, 40, requires_grad=True, dtype=torch.float64)
    q = jagged.transpose(1, 2)  # (batch, heads, elements, channels), as for scaled_dot_product_attention
    out = gpa(q, q, q)
    assert out.is_nested
    assert out.layout is torch.jagged
    assert out.shape == q.shape
    packed = x.transpose(0, 1)[None]
    expected = gpa.packed(packed, packed, packed, q.offsets())
    assert out.values().equal(expected[0])
    assert out.transpose(1, 2).contiguous().offsets().tolist() == [0, 5, 5, 45]
    weights = torch.randn_like(expected)
    (grad,) = torch.autograd.grad((out.values() * weights[0]).sum(), x)
    (expected_grad,) = torch.autograd.grad((expected * weights).sum(), x)
    assert (grad - expected_grad).abs().max() < 1e-12


def test_nested_keys_of_other_lengths():
    gpa = gpa_nd.audio(4, 3, kappa=2, backend="reference")
    (_, q), (_, k) = nested(5, 9), nested(7, 30)
    q, k = q.transpose(1, 2), k.transpose(1, 2)
    out = gpa(q, k, k)
    assert (out.unbind()[1] - gpa(q.unbind()[1][None], *[k.unbind()[1][None]] * 2)[0]).abs().max() < 1e-6


GPA_1D = gpa_nd.audio(4, 3, kappa=2, backend="reference")
X = torch.randn(1, 2, 14, 4)


@pytest.mark.parametrize(
    ("shapes", "key_shapes", "error", "message"),
    [
        (torch.tensor([1, 5, 14]), None, ValueError, "query_shapes: expected offsets that start at 0, got 1"),
        (torch.tensor([0, 9, 5, 14]), None, ValueError, "ascending offsets, got 5 after 9 at 2"),
        (torch.tensor([0, 5, 13]), None, ValueError, "query_shapes: they add up to 13 elements, but q has 14"),
        (torch.tensor([0, 14]), torch.tensor([0, 15]), ValueError, "key_shapes: they add up to 15 .* k has 14"),
        (torch.tensor([[0, 14]]), None, ValueError, r"offsets of shape \(structures \+ 1,\), got \(1, 2\)"),
        (torch.tensor([0]), None, ValueError, r"offsets of shape \(structures \+ 1,\), got \(1,\)"),
        (torch.tensor([0.0, 14.0]), None, TypeError, "query_shapes: expected an int64 or int32 tensor"),
        ([(5,), (9, 1)], None, ValueError, r"the same number of axes, got \[1, 2\]"),
        ([(5,), (10,)], None, ValueError, "add up to 15 elements, but q has 14"),
        ([(5,), (-1,)], None, ValueError, "none negative"),
        ([()], None, ValueError, "at least one axis"),
        ([(5.0,)], None, TypeError, "expected shapes of ints"),
        ([0, 5, 14], None, TypeError, r"or a tensor of offsets, got \[0, 5, 14\]; offsets are torch.tensor\("),
        (14, None, TypeError, "expected a sequence of shapes or a tensor of offsets, got 14"),
        ([], None, ValueError, "expected at least one structure"),
        ([(5,), (9,)], [(14,)], ValueError, "key_shapes: expected 2 structures as query_shapes has, got 1"),
        (
            [(7, 1), (7, 1)],
            None,
            ValueError,
            r"downsampler: does not fit queries of shape \(7, 1\) and \(7, 1\) and keys .*, sizes without batch, heads",
        ),
        (
            [(14, 1)],
            None,
            ValueError,
            r"downsampler: does not fit .* \(14, 1\), sizes without batch, heads and channels",
        ),
    ],
)
def test_shapes_that_do_not_fit(shapes, key_shapes, error, message):
    gpa = gpa_nd.audio((4,), (3,), kappa=2, backend="reference")
    with pytest.raises(error, match=message):
        gpa.packed(X, X, X, shapes, key_shapes)


def test_tensors_that_do_not_fit_the_pack():
    with pytest.raises(ValueError, match=r"q: expected shape \(batch, heads, elements, channels\)"):
        GPA_1D.packed(*[X.unflatten(2, (7, 2))] * 3, [(7, 2)])


def test_nested_tensors_that_do_not_fit():
    (_, a), (_, b) = nested(5, 9), nested(9, 5)
    x, y = a.transpose(1, 2), b.transpose(1, 2)
    with pytest.raises(ValueError, match=r"x.transpose\(1, 2\)"):
        GPA_1D(a, a, a)
    with pytest.raises(TypeError, match=r"k: expected a nested tensor of layout torch.jagged, .*torch.strided"):
        GPA_1D(x, X, X)
    with pytest.raises(ValueError, match="v: expected the offsets that k has"):
        GPA_1D(x, x, y)
    with pytest.raises(ValueError, match=r"key_mask and key_bias: expected None with nested .*x.offsets\(\)"):
        GPA_1D(x, x, x, key_mask=torch.ones(2, 9, dtype=torch.bool))
    gaps = torch.nested.nested_tensor_from_jagged(
        torch.randn(14, 2, 4), torch.tensor([0, 5, 14]), torch.tensor([3, 9])
    ).transpose(1, 2)
    with pytest.raises(ValueError, match="without gaps"):
        GPA_1D(gaps, gaps, gaps)
