"""Rankings other than by the mean, and masses: the fused kernels choose what the reference chooses."""

import pytest
import torch

pytest.importorskip("triton")

import gpa_nd
from gpa_nd import select_keys
from gpa_nd.engine import fused
from tests.engine.fused.test_attention import DEVICE, pytestmark  # noqa: F401
from tests.seeing import EVERYTHING, KEY_HEADS, ROWS

NAMES = (
    "video looks at an image",
    "causal audio of three lengths",
    "2-D (9, 8) d=(2, 3) cells=(3, 2) mask bias heads",
    "2-D (8, 9) d=(2, 2) cells=(4, 3) causal=(0, 1)",
    "1-D (40,) d=(2,) cells=(10,) levels=3",
    "graph on two levels",
    EVERYTHING.name,
)


@pytest.fixture(params=NAMES)
def row(request):
    (found,) = (row for row in ROWS if row.name.startswith(request.param))
    return found


@pytest.mark.parametrize("mass", [None, 0.5])
@pytest.mark.parametrize("ranking", ["mean", "rms", "rerank"])
def test_the_reference_s_keys_are_chosen(row, ranking, mass):
    tokens = {name: x.float() if x.is_floating_point() else x for name, x in row.tokens(c=16, batch=1).items()}
    del tokens["v"]
    settings = {"kappa": 2, "ranking": ranking, "mass": mass, "enable_gqa": row.heads > KEY_HEADS}
    tokens = {name: x.to(DEVICE) for name, x in tokens.items()}
    layout = row.layout().to(DEVICE)
    one, other = (
        select_keys(layout=layout, backend=backend, **tokens, **settings) for backend in ("triton", "reference")
    )
    assert one.equal(other)


@pytest.mark.parametrize("scale", [4.0, 0.0, -1.0])
def test_candidates_are_ranked_with_any_scale(scale):
    layout = gpa_nd.audio(4, 4, 1, ranking="rerank").layout((64,), (64,))
    q, k = torch.randn(2, 1, 2, 64, 16, generator=torch.Generator().manual_seed(0)).to(DEVICE)
    one, other = (
        select_keys(q, k, layout.to(DEVICE), kappa=3, scale=scale, ranking="rerank", backend=backend)
        for backend in ("triton", "reference")
    )
    assert one.equal(other)


def test_bad_input_of_more_parts_than_the_kernels_number_is_refused():
    layout = gpa_nd.audio(4, 2, 1, ranking="rerank").layout((16,), (16,)).second_look
    q = torch.zeros(1, 1, 1, 16).expand(1, 1, 2**23 + 1, 16)
    with pytest.raises(ValueError, match=r"k: backend 'triton' takes up to 8,388,608 parts of groups, got 8,388,609"):
        fused.select_by_members(q, q, layout, 1, 0.25, None, torch.zeros(1, 1, 2, 1, dtype=torch.int64))
