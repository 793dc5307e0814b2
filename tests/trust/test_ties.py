"""Integer-valued tokens with duplicate coarse keys: all backends select the same ones wherever the cut is clear; and
all repeat bit for bit."""

from collections import Counter
from dataclasses import dataclass

import pytest
import torch
from hypothesis import strategies as st
from torch import Tensor

import gpa_nd
from gpa_nd import Layout, gpa_attention, select_keys
from tests.seeing import Row
from tests.trust.calls import DTYPES, rows

pytestmark = pytest.mark.filterwarnings("ignore:.*encountered:RuntimeWarning")  # numpy, under Triton's interpreter

CLEAR = 1e-5
"""How far, relatively, sums on the two sides of a cut are apart."""


@dataclass(frozen=True)
class Tied:
    """Integer-valued queries and keys.

    Attributes:
        row: the geometry.
        channels: of both; a power of four, so that 1/√c is exact.
        kinds: of coarse keys, fewer than there are, so that some are duplicates.
        largest: the largest integer of a kind.
        kappa: how many are selected.
        seed: that of the numbers.
    """

    row: Row
    channels: int
    kinds: int
    largest: int
    kappa: int
    seed: int

    def tokens(self, layout: Layout) -> tuple[Tensor, Tensor, Tensor]:
        """q, k (1, 2, n, c), whose groups have integers for means, and the kind of each coarse key (2, n_k')."""
        rng = torch.Generator().manual_seed(self.seed)

        def integers(*shape: int) -> Tensor:
            return torch.randint(-self.largest, self.largest + 1, shape, generator=rng).double()

        n_k = len(layout.key_groups)
        kind = torch.randint(self.kinds, (2, n_k), generator=rng)
        k_low = integers(2, self.kinds, self.channels).gather(1, kind[..., None].expand(-1, -1, self.channels))
        q_low = integers(2, len(layout.query_groups), self.channels)
        q, k = (spread_out(low, part, rng) for low, part in ((q_low, layout.query_groups), (k_low, layout.key_groups)))
        same = (k_low[:, :, None] == k_low[:, None]).all(-1)  # other kinds may be the same by chance
        return q[None], k[None], same.int().argmax(-1)


def spread_out(low: Tensor, groups, rng: torch.Generator) -> Tensor:
    """Elements with these means: neighbours in a group differ from it by opposite integers."""
    rank = torch.empty_like(groups.order)
    rank[groups.order] = torch.arange(groups.num_elements) - groups.offsets[groups.labels[groups.order]]
    first = groups.order[groups.offsets[:-1]]
    second = groups.order[(groups.offsets[:-1] + 1).clamp_max(max(0, groups.num_elements - 1))]
    x = low[:, groups.labels]
    pairs = groups.sizes > 1
    more = torch.randint(-2, 3, (len(low), int(pairs.sum()), low.shape[-1]), generator=rng).double()
    x[:, first[pairs]] += more
    x[:, second[pairs]] -= more
    return x


def exact_sums(q: Tensor, k: Tensor, kind: Tensor, layout: Layout) -> tuple[Tensor, Tensor]:
    """(2, m, n_k') the sum of the softmax of each coarse key, the same bits for duplicates; and what is selectable."""
    q_low, k_low = layout.query_groups.mean(q[0]), layout.key_groups.mean(k[0])
    keys = torch.arange(k_low.shape[1])
    seen = torch.ones(len(layout.query_cells), len(keys), dtype=torch.bool)
    if layout.key_ranges is not None:
        seen &= (layout.key_ranges[:, :1] <= keys) & (keys < layout.key_ranges[:, 1:])
    if layout.coarse_positions is not None:
        of_cells, of_keys = layout.coarse_positions
        seen &= (of_keys[None] <= of_cells[:, None]).all(-1)
    scores = (q_low @ k_low.mT * q.shape[-1] ** -0.5).gather(-1, kind[:, None].expand(-1, q_low.shape[1], -1))
    ranked_by = torch.arange(len(seen)) if layout.ranked_by is None else layout.ranked_by
    sums = []
    for cell, by in enumerate(ranked_by.tolist()):
        of_cell = scores[:, layout.query_cells.labels == by].masked_fill(~seen[cell], -torch.inf)
        total = of_cell.softmax(-1).nan_to_num(0).sum(1)
        # Of duplicates that the cell sees, each has the sum of the first one.
        first = (kind[:, :, None] == kind[:, None]) & seen[cell]
        sums.append(total.gather(-1, first.int().argmax(-1)))
    if layout.always is not None:
        seen = seen & ~(layout.always[:, :, None] == keys).any(1)
    return torch.stack(sums, 1), seen


@st.composite
def tied(draw, most: int) -> Tied:
    row = draw(rows(levels=False, masks=False, most=most))
    return Tied(
        row,
        channels=draw(st.sampled_from([4, 16])),
        kinds=draw(st.integers(1, 12)),
        largest=draw(st.integers(1, 4)),
        kappa=draw(st.integers(1, 8)),
        seed=draw(st.integers(0, 2**31 - 1)),
    )


@pytest.mark.parametrize(
    ("backends", "most", "in_ci", "nightly"),
    [(("reference", "torch"), 160, 100, 1000), (("reference", "torch", "triton"), 48, 4, 1000)],
    ids=["eager", "triton"],
)
def test_all_backends_select_the_same_keys_wherever_the_cut_is_a_tie_or_wide(
    each_of, figure, backends, most, in_ci, nightly
):
    cuts: Counter[str] = Counter()

    def check(drawn: tuple[Tied, torch.dtype]) -> None:
        case, dtype = drawn
        dtype = torch.float32 if "triton" in backends and dtype == torch.float64 else dtype
        layout = case.row.layout()
        q, k, kind = case.tokens(layout)
        sums, seen = exact_sums(q, k, kind, layout)
        kappa = min(case.kappa, len(layout.key_groups))
        found = [
            select_keys(q.to(dtype), k.to(dtype), layout, kappa=kappa, backend=backend)[0, ..., :kappa].tolist()
            for backend in backends
        ]
        cuts["cases"] += 1
        for head in range(2):
            for cell in range(len(seen)):
                ranked = sums[head, cell].masked_fill(~seen[cell], -1).sort(descending=True, stable=True)
                expected = ranked.indices[: min(kappa, int(seen[cell].sum()))].tolist()
                how = cut(ranked.values, ranked.indices, kind[head], len(expected), int(seen[cell].sum()))
                cuts[how] += 1
                if how != "unclear":
                    for of_backend in found:
                        chosen = [key for key in of_backend[head][cell] if key >= 0]
                        assert sorted(chosen) == sorted(expected)

    each_of(st.tuples(tied(most), st.sampled_from(DTYPES)), in_ci, nightly, check)
    figure(f"{' and '.join(backends)}: {dict(cuts)}")


def cut(values: Tensor, keys: Tensor, kind: Tensor, chosen: int, visible: int) -> str:
    """Between duplicates, with everything else further away than is clear; or wide; or neither, or no cut at all."""
    if chosen == visible:
        return "all selected"
    inside, outside = values[chosen - 1], values[chosen]
    if kind[keys[chosen - 1]] != kind[keys[chosen]]:
        return "wide" if inside - outside > CLEAR * inside else "unclear"
    others = values[:visible][kind[keys[:visible]] != kind[keys[chosen]]]
    return "planted tie" if ((others - inside).abs() > CLEAR * inside).all() else "unclear"


@pytest.fixture(params=[1, 2])
def threads(request):
    """So many threads, for one test."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


REPEATED = {
    "an image": gpa_nd.image(4, (8, 8), 6),
    "ragged and causal": gpa_nd.image((3, 4), (7, 5), 5, causal=True),
    "reranked, on two levels": gpa_nd.image(2, (8, 8), (6, 5), ranking="rerank", mass=0.9),
}


@pytest.mark.parametrize("name", REPEATED)
def test_fifty_runs_agree_bit_for_bit(name, threads, cases, figure):
    gpa, shape, runs = REPEATED[name], (56, 60), cases(3, 50)
    inputs = torch.randn(3, 2, 2, *shape, 16).unbind()
    inputs = [x.requires_grad_() for x in inputs]
    layout = gpa.layout(shape, shape)
    settings = {"kappa": gpa.kappa, "ranking": gpa.ranking, "mass": gpa.mass}

    def run() -> list[Tensor]:
        q, k, v = (x.flatten(2, 3) for x in inputs)
        out = gpa_attention(q, k, v, layout, **settings)
        return [select_keys(q, k, layout, **settings), out, *torch.autograd.grad(out.square().sum(), inputs)]

    assert torch.get_num_threads() == threads
    expected = run()
    for _ in range(runs - 1):
        assert all(x.equal(y) for x, y in zip(run(), expected, strict=True))
    figure(f"{name}, {threads} threads: {runs} runs")
