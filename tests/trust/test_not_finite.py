"""NaN and infinity in places that hypothesis draws: what docs/backends.md says of them, and never finite but wrong."""

from collections import Counter

import pytest
import torch
from hypothesis import strategies as st
from torch import Tensor

from gpa_nd import Layout, gpa_attention, select_keys
from tests.seeing import KEY_HEADS
from tests.trust.calls import Call, calls

pytestmark = pytest.mark.filterwarnings("ignore:.*encountered:RuntimeWarning")  # numpy, under Triton's interpreter

BAD = (torch.nan, torch.inf, -torch.inf)


@pytest.mark.parametrize(
    ("backends", "in_ci", "nightly"),
    [(("reference", "torch", "torch", "auto"), 200, 2000), (("triton",), 2, 40)],
    ids=["eager", "triton"],
)
def test_what_is_not_finite_spoils_what_the_rule_says_and_no_bit_of_anything_else(
    each_of, figure, backends, in_ci, nightly
):
    seen: Counter[str] = Counter()

    def check(drawn: tuple[Call, str, float, int]) -> None:
        call, name, bad, place = drawn
        layout, tokens = call.row.layout(), call.tokens()
        if name not in tokens:
            tokens[name] = torch.zeros(tokens["k"].shape[:3], dtype=torch.float64)
        settings = {"layout": layout, **call.settings}
        clean = gpa_attention(**tokens, **settings)
        planted = tokens | {name: tokens[name].clone()}
        at = torch.unravel_index(torch.tensor(place % tokens[name].numel()), tokens[name].shape)
        at = tuple(int(x) for x in at)
        planted[name][at] = bad
        must, may = SPOILT[name](call, layout, tokens, at)
        if name == "key_bias" and bad == -torch.inf:  # masks the key
            must, may = torch.zeros_like(must), torch.zeros_like(may)
            clean = without(call, layout, tokens, at, clean)
        out = gpa_attention(**planted, **settings)
        if name == "v":
            assert not out[must].isfinite().any()
        else:
            assert out[must].isnan().all()
        unchanged = (out == clean) | (out.isnan() & clean.isnan())
        assert unchanged[~may].all()
        assert (unchanged | ~out.isfinite()).all()
        seen[name] += 1

    places = st.tuples(
        calls(backends, learned=False),
        st.sampled_from(["q", "k", "v", "key_bias"]),
        st.sampled_from(BAD),
        st.integers(0, 10**6),
    )
    each_of(places, in_ci, nightly, check)
    figure(f"{seen.total()} places {dict(seen)}")


# Where each must spoil the result (B, H, n_q, c_v), and where it may


def of_query(call: Call, layout: Layout, tokens: dict[str, Tensor], at: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Its row, if it sees anything; its cell, and those for which that ranks, at every level."""
    batch, head, row, _ = at
    ones = tokens | {"v": torch.ones_like(tokens["v"])}
    must, may = (torch.zeros(shape_of(tokens), dtype=torch.bool) for _ in range(2))
    must[batch, head, row] = gpa_attention(layout=layout, **ones, **call.settings)[batch, head, row] != 0
    may[batch, head] = ranked_with(layout, row)[layout.fine_cells.labels][:, None]
    may[batch, head, row] = True
    return must, may


def ranked_with(layout: Layout, row: int) -> Tensor:
    """(m,) the cell of this query, those that are ranked by it, and those under cells above of which the same holds."""
    group = int(layout.query_groups.labels[row])
    own = layout.query_cells.labels[group]
    ranked_by = torch.arange(len(layout.query_cells)) if layout.ranked_by is None else layout.ranked_by
    with_it = (ranked_by == own) | (torch.arange(len(ranked_by)) == own)
    return with_it if layout.coarser is None else with_it | ranked_with(layout.coarser, group)[layout.parents]


def of_key(call: Call, layout: Layout, tokens: dict[str, Tensor], at: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Every output that may see it, selected or not."""
    batch, head, key = at[:3]
    spoilt = torch.zeros(shape_of(tokens), dtype=torch.bool)
    shared = call.row.heads // KEY_HEADS
    if "key_mask" not in tokens or tokens["key_mask"][batch, key]:
        spoilt[batch, head * shared : (head + 1) * shared, call.row.seen()[:, key].bool()] = True
    return spoilt, spoilt


def of_value(call: Call, layout: Layout, tokens: dict[str, Tensor], at: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Exactly those that attend to its key."""
    others = {name: x for name, x in tokens.items() if name != "v"}
    relevant = select_keys(layout=layout, **others, **call.selecting())
    attending = (relevant == layout.key_groups.labels[at[2]]).any(-1)[..., layout.fine_cells.labels]
    spoilt = torch.zeros(shape_of(tokens), dtype=torch.bool)
    spoilt[..., at[3]] = of_key(call, layout, tokens, at)[0][..., 0] & attending
    return spoilt, spoilt


SPOILT = {"q": of_query, "k": of_key, "v": of_value, "key_bias": of_key}


def shape_of(tokens: dict[str, Tensor]) -> tuple[int, ...]:
    return (*tokens["q"].shape[:3], tokens["v"].shape[-1])


def without(call: Call, layout: Layout, tokens: dict[str, Tensor], at: tuple[int, ...], clean: Tensor) -> Tensor:
    """The clean result, and in the heads of this key that of a call in which it is masked."""
    batch, head, key = at
    mask = tokens.get("key_mask", torch.ones(tokens["k"].shape[0], tokens["k"].shape[2], dtype=torch.bool)).clone()
    mask[batch, key] = False
    masked = gpa_attention(layout=layout, **tokens | {"key_mask": mask}, **call.settings)
    shared = call.row.heads // KEY_HEADS
    result = clean.clone()
    result[batch, head * shared : (head + 1) * shared] = masked[batch, head * shared : (head + 1) * shared]
    return result
