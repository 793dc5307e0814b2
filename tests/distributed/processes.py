"""Four gloo processes that go through all claims together: ``python -m tests.distributed.processes FOLDER``.

Each writes ``{claim: error or ""}`` into the folder. PyTorch is imported once; then they are forked, before anything is
computed. What one process computes is computed by all of them, each for itself.
"""

from __future__ import annotations

import json
import multiprocessing
import re
import sys
import traceback
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import torch._dynamo  # once for all, since a forward pass marks itself with it
import torch.distributed as dist
from torch import Tensor

import gpa_nd
from gpa_nd import GPA
from gpa_nd.always import GlobalElements, GridNeighbourhood
from gpa_nd.distributed import ContextParallel, context_parallel
from gpa_nd.distributed.shards import elements_of
from gpa_nd.ops import GridDownsampler
from gpa_nd.partitioners import GridPartitioner
from tests.conftest import EveryOther, LargestTensor, coarsened_graph, grid, labelled

SEQUENCE, IMAGE, VIDEO = grid((61,), (3,), (7,)), grid((13, 9), (2, 3), (5, 2)), grid((9, 5, 6), (2, 2, 3), (4, 2, 2))
GRAPH = coarsened_graph(60, 150, factor=4, cells=9, name="graph")


@dataclass(frozen=True)
class Case:
    """A GPA, what it attends to, and by how many processes."""

    name: str
    make: Callable[..., GPA]
    query_shape: tuple[int, ...]
    key_shape: tuple[int, ...]
    settings: dict[str, Any] = field(default_factory=dict)
    processes: int = 4
    dtype: torch.dtype = torch.float64
    heads: tuple[int, int] = (2, 2)  # of queries, and of keys
    mask: bool = False
    bias: bool = False

    def gpa(self) -> GPA:
        return self.make(**{"kappa": 3, "backend": "torch", **self.settings})

    def tensors(self) -> dict[str, Tensor]:
        rng = torch.Generator().manual_seed(7)

        def randn(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=rng, dtype=torch.float64).to(self.dtype).requires_grad_()

        found = {"q": randn(2, self.heads[0], *self.query_shape, 6), "k": randn(2, self.heads[1], *self.key_shape, 6)}
        found["v"] = randn(2, self.heads[1], *self.key_shape, 4)
        if self.mask:
            found["key_mask"] = torch.rand(2, *self.key_shape, generator=rng) > 0.3
        if self.bias:
            found["key_bias"] = randn(2, self.heads[1], *self.key_shape)
        return found


def case(name: str, of: Any, **more: Any) -> Case:
    names = ("processes", "dtype", "heads", "mask", "bias")
    beside = {key: more.pop(key) for key in names if key in more}
    return Case(name, of.make, of.query_shape, of.key_shape, more, **beside)


def levels(shape: tuple[int, ...], kappa: tuple[int, ...], **settings: Any) -> Any:
    def make(**more: Any) -> GPA:
        two = (GridPartitioner(6), GridPartitioner(3)), (GridDownsampler(2), GridDownsampler(3))
        return GPA(*two, **{**more, "kappa": kappa}, **settings)

    return type("Levels", (), {"make": staticmethod(make), "query_shape": shape, "key_shape": shape})


def sampled(**settings: Any) -> GPA:
    down = GridDownsampler((3, 2))
    return GPA(GridPartitioner((4, 2)), down, key_upsampler=EveryOther(down), **settings)


SAMPLED = type("Sampled", (), {"make": staticmethod(sampled), "query_shape": (13, 10), "key_shape": (13, 10)})

CASES = [
    case("a sequence", SEQUENCE),
    case("a sequence in one process", SEQUENCE, processes=1),
    case("a sequence over three", SEQUENCE, processes=3),
    case("an image", IMAGE),
    case("an image over three", IMAGE, processes=3, ranking="rms"),
    case("a video", VIDEO),
    case("four axes", grid((5, 4, 3, 3), (1, 2, 2, 2), (4, 2, 1, 2))),
    case("sizes that divide", grid((32, 8), (2, 4), (4, 2))),
    case("a graph", GRAPH),
    case("a graph over three", GRAPH, processes=3, kappa=5),
    case("shuffled groups of one size", labelled("", torch.arange(24) % 8, torch.arange(8) % 4)),
    case("an image looks at audio", grid((10, 14), (4, 4), (3, 2), key_shape=(33,), key_factor=(5,))),
    case("audio looks at video", grid((31,), (4,), (5,), key_shape=(3, 6, 5), key_factor=(2, 2, 2))),
    case("keys in other groups than queries", grid((36,), (3,), (6,), key_shape=(36,), key_factor=(2,))),
    case("fewer cells than processes", grid((12, 8), (4, 4), (2, 2))),
    case("one cell", grid((12, 8), 2, 1)),
    case("members that leave elements out", SAMPLED),
    case("all keys", IMAGE, kappa=99),
    case("float32", VIDEO, dtype=torch.float32),
    case("bfloat16", SEQUENCE, dtype=torch.bfloat16, mask=True),
    case("the reference", VIDEO, backend="reference", bias=True),
    case("the reference, a causal sequence", SEQUENCE, backend="reference", causal=True),
    case("shared heads", IMAGE, heads=(4, 2), enable_gqa=True, bias=True),
    case("euclidean", IMAGE, affinity="euclidean", scale=0.7),
    case("moments", VIDEO, ranking="moments", mask=True),
    case("rms with a mass", SEQUENCE, ranking="rms", mass=0.5, kappa=6),
    case("rerank", grid((61,), (9,), (5,)), ranking="rerank", kappa=1),
    case("rerank over three, masked, with a mass", VIDEO, ranking="rerank", mask=True, mass=0.6, processes=3),
    case("rerank, large groups, euclidean", grid((40, 24), (8, 8), (5, 2)), ranking="rerank", affinity="euclidean"),
    case("rerank, all keys", VIDEO, ranking="rerank", kappa=99),
    case("a causal sequence", SEQUENCE, causal=True),
    case("a causal sequence over three, reranked", grid((90,), (9,), (9,)), causal=True, ranking="rerank", processes=3),
    case("a video, causal in time", VIDEO, causal=(True, False, False)),
    case("an image, causal along both axes", IMAGE, causal=True, bias=True),
    case("a neighbourhood", IMAGE, always=[GridNeighbourhood(1)], heads=(4, 2), enable_gqa=True),
    case("sinks, causal", SEQUENCE, causal=True, always=[GlobalElements(torch.arange(4))], mask=True),
    case("masked keys", IMAGE, mask=True),
    case("biased keys", SEQUENCE, bias=True, mask=True),
    case("two levels", levels((50,), (3, 2))),
    case("two levels, rms, masked", levels((20, 12), (2, 2)), ranking="rms", mask=True, processes=3),
    case("two levels, causal", levels((70,), (3, 2)), causal=True),
    case("two levels, reranked", levels((70,), (2, 2)), ranking="rerank"),
]

EXACT = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 2e-2}


def one_process(case: Case, tensors: dict[str, Tensor]) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """What a GPA answers and selects; and the gradients."""
    found = []

    def remember(*arguments: Any) -> Tensor:
        found.append(phase1_select(*arguments))
        return found[-1]

    from gpa_nd.engine import backends

    phase1_select, backends.select = backends.select, remember
    try:
        gpa = case.gpa()
        out = gpa(**tensors)
    finally:
        backends.select = phase1_select
    out.backward(weights_of(out))
    return out.detach(), found[0], {name: x.grad for name, x in tensors.items() if x.requires_grad}


def weights_of(out: Tensor) -> Tensor:
    """Some gradient of the result."""
    return torch.arange(out.numel(), dtype=torch.float64).view_as(out).sin().to(out.dtype)


def together(
    case: Case, tensors: dict[str, Tensor], group: Any
) -> tuple[ContextParallel, Tensor, Tensor, dict[str, Tensor], dict[str, Tensor]]:
    """The same by all processes: what this one has of the result, of the selection and of the gradients."""
    attention, found = ContextParallel(case.gpa(), group), []
    shards = attention.shards(case.query_shape, case.key_shape)
    rows = {name: shards.queries if name == "q" else shards.keys for name in tensors}
    axes = {name: 1 if name == "key_mask" else 2 for name in tensors}
    own = {name: attention.shard(x.detach(), axes[name], rows[name]) for name, x in tensors.items()}
    for name, x in own.items():
        x.requires_grad_(tensors[name].requires_grad)

    def remember(*arguments: Any) -> Tensor:
        found.append(select_keys(*arguments))
        return found[-1]

    select_keys, context_parallel.select_keys = context_parallel.select_keys, remember
    try:
        out = attention(**own)
    finally:
        context_parallel.select_keys = select_keys
    whole = attention.unshard(out.detach(), 2, shards.queries)
    out.backward(attention.shard(weights_of(whole), 2, shards.queries))
    return attention, whole, found[0], {name: x.grad for name, x in own.items() if x.requires_grad}, rows


def parity(case: Case, group: Any) -> None:
    tensors = case.tensors()
    attention, whole, chosen, gradients, rows = together(case, tensors, group)
    again = together(case, tensors, group)
    out, relevant, expected = one_process(case, tensors)
    tolerance = EXACT[case.dtype]
    torch.testing.assert_close(whole, out, rtol=tolerance, atol=tolerance)
    assert whole.equal(again[1])
    rank = attention.peers.rank
    mine = elements_of(rows["q"][rank], case.query_shape)
    cells = case.gpa().layout(case.query_shape, case.key_shape).fine_cells.labels[mine].unique()
    torch.testing.assert_close(chosen, relevant.index_select(2, cells), rtol=0, atol=0)
    for name, gradient in gradients.items():
        wanted = expected[name].index_select(2, rows[name][rank])
        torch.testing.assert_close(gradient, wanted, rtol=tolerance, atol=tolerance, msg=lambda m, n=name: f"{n}: {m}")
        assert gradient.equal(again[3][name]), name


CLAIMS: dict[str, Callable[[dict[int, Any]], None]] = {}


def claim(function: Callable[[dict[int, Any]], None]) -> Callable[[dict[int, Any]], None]:
    CLAIMS[function.__name__] = function
    return function


@claim
def a_process_sends_each_block_that_others_want_once_and_no_other(groups: dict[int, Any]) -> None:
    """Eight groups of four elements, two for each process; all cells want group 1, which process 0 has, or nothing."""
    gpa = gpa_nd.audio(downsample=4, cells=4, kappa=1, backend="torch")
    code = 30 * torch.eye(8, dtype=torch.float64).repeat_interleave(4, 0)[None, None]
    asked = code[:, :, 4:5].expand(1, 3, 32, 8)
    attention = ContextParallel(gpa)
    rank = attention.peers.rank
    k, v = code.expand(1, 3, 32, 8).contiguous(), torch.randn(1, 3, 32, 5, dtype=torch.float64)
    own = [attention.shard(x).requires_grad_() for x in (asked, k, v)]
    out = attention(*own)
    assert out.allclose(v[:, :, 4:8].mean(2, keepdim=True), atol=1e-9)
    told = attention.traffic
    assert told.coarse == 3 * (2 * 3 * 8) * 8  # of three processes: two coarse keys, three heads, eight channels
    rows = 9 if rank == 0 else 3 * 4 * (8 + 5)  # process 0 hears what three others want, for three heads
    assert told.blocks == (3 + rows) * 8  # and all hear from all how many blocks
    assert told.everything == 24 * 3 * (8 + 5) * 8
    out.sum().backward()
    gradient = torch.zeros(1, 3, 8, 5, dtype=torch.float64)
    if rank == 0:
        gradient[:, :, 4:] = 8.0  # all 32 queries, over four values each
    assert own[2].grad.allclose(gradient)  # of processes from which nothing is wanted, too


@claim
def nothing_is_sent_where_one_process_has_all_that_its_cells_want(groups: dict[int, Any]) -> None:
    gpa = gpa_nd.audio(downsample=4, cells=4, kappa=2, backend="torch")
    q = 30 * torch.eye(4).repeat_interleave(8, 0)[None, None]
    attention = ContextParallel(gpa)
    own = attention.shard(q)
    attention(own, own, own)
    assert attention.traffic.blocks == 3 * 8  # how many blocks each of the others wants: none


@claim
def a_nan_spoils_what_may_see_it_and_nothing_else(groups: dict[int, Any]) -> None:
    """In the first head of the second entry; keys of process 3, whichever way they are ranked."""
    settings: list[tuple[Any, dict[str, Any]]] = [
        (IMAGE, {}),
        (IMAGE, {"ranking": "rerank", "always": [GridNeighbourhood(1)]}),
        (levels((20, 12), (2, 2)), {}),
    ]
    for of, more in settings:
        case = Case("", of.make, of.query_shape, of.key_shape, more)
        _, whole, *_ = together(case, case.tensors(), None)
        for name, value in (("q", torch.nan), ("k", torch.nan), ("k", torch.inf), ("v", torch.nan)):
            tensors = {key: x.detach().clone() for key, x in case.tensors().items()}
            tensors[name][1, 0, -1, 3] = value
            tensors = {key: x.requires_grad_() for key, x in tensors.items()}
            attention, found, _, gradients, rows = together(case, tensors, None)
            out, _, expected = one_process(case, tensors)
            finite = found.isfinite()
            assert finite.equal(out.isfinite()), name
            assert not finite.all()
            if name == "k":
                assert not finite[1, 0].any()
            clean = torch.ones_like(finite)
            clean[1, 0] = False
            assert found[clean].equal(whole[clean]), name  # bit for bit
            torch.testing.assert_close(found, out, rtol=1e-12, atol=1e-12, equal_nan=True)
            for key, gradient in gradients.items():
                wanted = expected[key].index_select(2, rows[key][attention.peers.rank])
                torch.testing.assert_close(gradient, wanted, rtol=1e-12, atol=1e-12, equal_nan=True)


@claim
def a_causal_output_does_not_change_with_what_comes_later(groups: dict[int, Any]) -> None:
    case = Case("", SEQUENCE.make, SEQUENCE.query_shape, SEQUENCE.key_shape, {"causal": True})
    _, before, *_ = together(case, case.tensors(), None)
    tensors = case.tensors()
    for x in tensors.values():
        x.data[:, :, 40:] = torch.nan
    _, after, *_ = together(case, tensors, None)
    assert after[:, :, :40].equal(before[:, :, :40])
    assert after[:, :, 40:].isnan().all()


@claim
def coarse_keys_are_those_of_one_process_bit_for_bit(groups: dict[int, Any]) -> None:
    from gpa_nd.distributed.selection import CoarseKeys
    from gpa_nd.engine.backends import phase1_of
    from gpa_nd.engine.phase1 import Keys

    for backend in ("reference", "torch"):
        for each in (
            *(SEQUENCE, IMAGE, VIDEO, GRAPH, grid((120,), (50,), (4,)), grid((64, 6), (8, 3), (4, 1))),
            *(grid((53, 40), (11, 7), (4, 1)), grid((41, 33, 5), (10, 8, 3), (4, 1, 1))),
        ):
            case = Case("", each.make, each.query_shape, each.key_shape, {"backend": backend})
            attention = ContextParallel(case.gpa())
            k = case.tensors()["k"].detach()
            share = attention._share(case.query_shape, case.key_shape, k.device)
            own = attention.shard(k).flatten(2, -2)
            phase1 = phase1_of(backend, 1.0, "dot")
            pooled = share.key_groups
            groups_of = Keys(pooled.with_zeros(own), None, phase1).pooled(pooled.groups)
            found = CoarseKeys.of(
                *(groups_of, groups_of.means(), False, False, pooled.own, share.coarse_keys, attention.peers)
            )
            whole = phase1.pool(k.flatten(2, -2), case.gpa().layout(case.query_shape, case.key_shape).key_groups)
            assert found.means.equal(whole), (backend, case.query_shape)


@claim
def empty_batches_and_structures_without_keys_have_results_and_gradients(groups: dict[int, Any]) -> None:
    attention = ContextParallel(IMAGE.make(kappa=2))
    rows = attention.shards((13, 9)).queries[attention.peers.rank]
    q = torch.randn(0, 2, len(rows), 9, 4, requires_grad=True)
    out = attention(q, q, q)
    assert out.shape == q.shape
    out.sum().backward()
    assert q.grad.shape == q.shape
    attention = ContextParallel(grid((13, 9), (2, 3), (5, 2), key_shape=(0,), key_factor=2).make(kappa=2))
    q, k = torch.randn(1, 2, len(rows), 9, 4, requires_grad=True), torch.randn(1, 2, 0, 4, requires_grad=True)
    out = attention(q, k, k)
    assert out.equal(torch.zeros_like(q))
    out.sum().backward()
    assert q.grad.equal(torch.zeros_like(q))


@claim
def no_process_holds_all_keys(groups: dict[int, Any]) -> None:
    gpa = gpa_nd.audio(downsample=16, cells=64, kappa=2, backend="torch")
    x = ContextParallel(gpa).shard(torch.randn(1, 1, 16384, 32)).requires_grad_()
    attention = ContextParallel(gpa)
    attention(x, x, x)  # makes the layout
    with LargestTensor() as largest:
        attention(x, x, x).sum().backward()
    assert largest.numel < 16384 * 32 * 0.7


@claim
def shards_are_cut_between_cells_and_between_groups(groups: dict[int, Any]) -> None:
    for each in (SEQUENCE, IMAGE, VIDEO, GRAPH, *(grid((n,), (3,), (c,)) for n in (9, 40, 61) for c in (1, 3, 5, 30))):
        shards = ContextParallel(each.make(kappa=1)).shards(each.query_shape, each.key_shape)
        assert torch.cat(shards.queries).sort().values.equal(torch.arange(each.query_shape[0]))
        layout = each.layout()
        for part in (layout.fine_cells, layout.key_groups):
            owners = [part.labels[elements_of(rows, each.query_shape)].unique() for rows in shards.queries]
            assert torch.cat(owners).sort().values.equal(torch.arange(len(part)))
    sizes = [len(rows) for rows in ContextParallel(gpa_nd.audio(4, 64, 2)).shards((1024,)).queries]
    assert sizes == [256] * 4
    sizes = [len(rows) for rows in ContextParallel(gpa_nd.audio(4, 5, 2), groups[4]).shards((40,)).queries]
    assert sizes == [8, 8, 8, 16]


@claim
def a_shard_and_its_way_back_are_the_tensor(groups: dict[int, Any]) -> None:
    attention = ContextParallel(IMAGE.make(kappa=1))
    x = torch.arange(2 * 13 * 9 * 3).view(2, 13, 9, 3)
    assert attention.unshard(attention.shard(x, axis=1), axis=1).equal(x)
    graph = ContextParallel(GRAPH.make(kappa=1))
    x = torch.randn(2, 1, 60, 3)
    assert graph.unshard(graph.shard(x)).equal(x)
    mask = torch.rand(2, 13, 9) > 0.5
    rows = attention.shards((13, 9)).keys
    assert attention.unshard(attention.shard(mask, 1, rows), 1, rows).equal(mask)


@claim
def a_mesh_is_a_group_and_a_copy_of_a_model_talks_to_the_same_processes(groups: dict[int, Any]) -> None:
    mesh = dist.init_device_mesh("cpu", (2, 2), mesh_dim_names=("data", "sequence"))
    attention = ContextParallel(SEQUENCE.make(kappa=2, backend="torch"), mesh["sequence"])
    x = torch.randn(1, 1, 61, 4)
    copied = deepcopy(attention)
    for each in (attention, copied):
        own = each.shard(x)
        assert len(own[0, 0]) in (30, 31, 27, 34)
        assert each.unshard(each(own, own, own)).allclose(SEQUENCE.make(kappa=2)(x, x, x), atol=1e-6)
    assert attention.state_dict() == {}


@claim
def an_error_in_one_process_is_an_error_in_all(groups: dict[int, Any]) -> None:
    attention = ContextParallel(SEQUENCE.make(kappa=2))
    rank = attention.peers.rank
    good = attention.shard(torch.randn(1, 2, 61, 4))
    bad: dict[str, tuple[Any, str]] = {  # what process 2 passes as k, and what the others hear
        "no tensor": (None, "process 2: its arguments are wrong"),
        "a dtype": (good.double(), "process 2: its arguments are wrong"),
        "channels": (good[..., :3], "process 2: its arguments are wrong"),
        "heads": (good[:, :1], "process 2: its arguments are wrong"),
        "rows": (good[:, :, :-1], "process 2: its arguments are wrong"),
    }
    for what, (k, said) in bad.items():
        with pytest.raises((TypeError, ValueError), match="^[kv]: expected" if rank == 2 else said):
            attention(good, k if rank == 2 else good, good)
        assert what
    wrong = {
        "q: its dtype: expected the same": [good.double()] * 3,
        "q: its shape: expected the same in every process, got (1, 2, rows, 4) in process 0 and (2, 2, rows": [
            good.expand(2, -1, -1, -1)
        ] * 3,
        "q: expected [": [good[:, :, 1:]] * 3,
        "v: its shape": [good, good, good[..., :2]],
        "requires_grad: expected the same in every process, got none of them in process 0 and v in process 2": [
            good, good, good.clone().requires_grad_(),
        ],
    }  # fmt: skip
    for said, tensors in wrong.items():
        with pytest.raises(ValueError, match=re.escape(said)):
            attention(*(tensors if rank == 2 else [good] * 3))
    with pytest.raises(ValueError, match="key_mask: expected the same in every process, got None in process 0"):
        attention(good, good, good, key_mask=torch.ones(1, good.shape[2], dtype=torch.bool) if rank == 2 else None)
    with pytest.raises(ValueError, match=r"x: expected \[.*\] rows along the first axis"):
        attention.unshard(good[:, :, rank // 2 :])
    with pytest.raises(
        ValueError, match=r"q: expected \[.*\] rows .*, got \[61, 61, 61, 61\]; ContextParallel.shard cuts"
    ):
        attention(*[torch.randn(1, 2, 61, 4)] * 3)  # the whole in every process
    attention(good, good, good)  # and nobody waits for anybody


@claim
def another_setting_in_one_process_is_an_error_in_all_that_names_it(groups: dict[int, Any]) -> None:
    of_process_2: list[tuple[str, Any, str]] = [
        ("kappa", 3, "got 2 in process 0 and 3 in process 2"),
        ("causal", True, "got False in process 0 and True in process 2"),
        ("scale", 0.5, "got None in process 0 and 0.5 in process 2"),
        ("affinity", "euclidean", "got 'dot' in process 0 and 'euclidean' in process 2"),
        ("ranking", "rms", "got 'mean' in process 0 and 'rms' in process 2"),
        ("mass", 0.5, "got None in process 0 and 0.5 in process 2"),
        ("enable_gqa", True, "got False in process 0 and True in process 2"),
        ("backend", "reference", "got 'auto' in process 0 and 'reference' in process 2"),
    ]
    for name, value, said in of_process_2:
        settings = {"kappa": 2, "backend": "auto", **({name: value} if dist.get_rank() == 2 else {})}
        attention = ContextParallel(SEQUENCE.make(**settings))
        x = attention.shard(torch.randn(1, 2, 61, 4))
        with pytest.raises(ValueError, match=f"gpa.{name}: expected the same in every process, {said}"):
            attention(x, x, x)


@claim
def another_geometry_in_one_process_is_an_error_in_all(groups: dict[int, Any]) -> None:
    """Process 2 has another one than the others: what all of them hear of it, and the two."""
    down, cells, sinks = GridDownsampler(3), GridPartitioner(7), [GlobalElements(torch.arange(3))]

    def gpa(partitioner: Any = cells, downsampler: Any = down, **more: Any) -> GPA:
        return GPA(partitioner, downsampler, kappa=2, **more)

    unlike = {
        "partitioner: expected the same in every process, got 7 cells in process 0 and 5 cells in process 2": (
            gpa(), gpa(GridPartitioner(5)),
        ),
        "downsampler: expected the same in every process, got 21 groups of queries in process 0 and 16 groups": (
            gpa(), gpa(downsampler=GridDownsampler(4)),
        ),
        "key_downsampler: expected the same in every process, got 21 groups of keys in process 0 and 16 groups": (
            gpa(), gpa(key_downsampler=GridDownsampler(4)),
        ),
        "key_upsampler: expected the same in every process, got 61 keys under coarse keys in process 0 and 41 keys": (
            gpa(), gpa(key_upsampler=EveryOther(down)),
        ),
        "always: expected the same in every process, got 0 coarse keys that are always on in process 0 and 7 coarse": (
            gpa(), gpa(always=sinks),
        ),
        "always: expected the same in every process, got 7 coarse keys that are always on in process 0 and 7 other": (
            gpa(always=sinks), gpa(always=[GlobalElements(torch.arange(3, 6))]),
        ),
        "process 2: its arguments are wrong": (gpa(), gpa(GridPartitioner((5, 2)))),
    }  # fmt: skip
    good = ContextParallel(gpa())
    rank = good.peers.rank
    x = good.shard(torch.randn(1, 2, 61, 4))
    for said, pair in unlike.items():
        attention = ContextParallel(pair[rank == 2])
        own = "partitioner: " if rank == 2 and said.startswith("process") else said
        for call in (lambda of=attention: of(x, x, x), lambda of=attention: of.unshard(x)):
            with pytest.raises(ValueError, match=re.escape(own)):
                call()
    with pytest.raises(ValueError, match=r"rows: expected the same in every process, got None in process 0 and \["):
        good.unshard(x, rows=good.shards((61,)).queries if rank == 2 else None)
    assert good.unshard(good(x, x, x)).shape == (1, 2, 61, 4)  # and nobody waits for anybody


def work(rank: int, folder: Path, only: str) -> None:
    torch.set_num_threads(1)
    store = dist.FileStore(str(folder / "store"), 4)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=4, timeout=timedelta(seconds=30))
    groups = {4: None, 3: dist.new_group([0, 1, 2]), 1: dist.new_group([3])}
    found: dict[str, str] = {}
    for case in CASES:
        if only in case.name and groups[case.processes] is not dist.GroupMember.NON_GROUP_MEMBER:
            found[case.name] = error_of(parity, case, groups[case.processes])
    for name, function in CLAIMS.items():
        if only in name:
            found[name] = error_of(function, groups)
    (folder / f"{rank}.json").write_text(json.dumps(found))
    dist.destroy_process_group()


def error_of(function: Callable[..., None], *arguments: Any) -> str:
    try:
        torch.manual_seed(0)
        function(*arguments)
    except BaseException:
        return traceback.format_exc()
    return ""


def main(folder: Path, only: str = "") -> None:
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=work, args=(rank, folder, only)) for rank in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
