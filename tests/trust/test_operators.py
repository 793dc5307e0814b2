"""Every operator that the library registers keeps its four promises to PyTorch, wherever a public call reaches it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

import gpa_nd
import gpa_nd.engine.fused
from gpa_nd import gpa_attention
from gpa_nd.selection import SoftTopK

pytestmark = pytest.mark.filterwarnings("ignore:.*encountered:RuntimeWarning")  # numpy, under Triton's interpreter

CALLS = {
    "plain": {},
    "reranked": {"ranking": "rerank"},
    "for a mass": {"mass": 0.5, "kappa": 3},
    "weighed": {"selection": SoftTopK(0.7, candidates=4)},
    "pooled": {"unselected": "pooled"},
}


class Reached(TorchDispatchMode):
    """The operators of the library that are called, each with its first arguments, and whether it has a gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: dict[str, tuple] = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if func.namespace == "gpa_nd":
            results = [x for x in (out if isinstance(out, tuple) else (out,)) if x.numel()]
            derived = all(x.is_floating_point() for x in results) and not func.name().endswith("_backward")
            self.calls.setdefault(func.name(), (func, args, derived))
        return out


def reached(backend: str) -> dict[str, tuple]:
    """What a call and its gradients reach, over all that a call may ask for."""
    found = {}
    for settings in CALLS.values():
        gpa = gpa_nd.audio(2, 2, 2, causal=True, ranking=settings.get("ranking", "mean"))
        q, k, v = torch.randn(3, 1, 1, 8, 4, generator=torch.Generator().manual_seed(0))
        inputs = [x.requires_grad_() for x in (q, k, v, torch.zeros(1, 1, 8))]
        with Reached() as here:
            out = gpa_attention(
                *inputs[:3],
                gpa.layout((8,), (8,)),
                **{"kappa": 1, "key_bias": inputs[3], "backend": backend} | settings,
            )
            torch.autograd.grad(out.square().sum(), inputs)
        found |= {name: call for name, call in here.calls.items() if name not in found}
    return found


def registered() -> set[str]:
    return {name for name in torch._C._dispatch_get_all_op_names() if name.startswith("gpa_nd::")}


def test_every_registered_operator_is_checked(figure):
    found = reached("torch") | reached("triton")
    assert set(found) == registered(), "an operator that no call of CALLS reaches: add one that does"

    for name, (func, args, derived) in found.items():

        def fresh(x: object, derived: bool = derived) -> object:
            return x.detach().clone().requires_grad_(derived and x.is_floating_point()) if isinstance(x, Tensor) else x

        args = tree_map(fresh, args)
        checked = torch.library.opcheck(func, args)
        assert list(checked.values()) == ["SUCCESS"] * 4, f"{name}: {checked}"
    figure(f"{len(found)} operators, 4 of 4 checks each")
