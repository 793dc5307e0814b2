"""Which backend runs."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Literal

import torch
from torch import Tensor

from gpa_nd.engine.rankings import Ranking

Affinity = Literal["dot", "euclidean"]
Backend = Literal["auto", "reference", "torch", "triton"]
Unselected = Literal["ignored", "pooled"]
Chosen = Literal["reference", "torch", "triton", "portable"]
"""What runs: a backend, or what stands for it where a call is written as ONNX."""


def choose(backend: Backend, tensors: tuple[Tensor, ...], affinity: Affinity, ranking: Ranking = "mean") -> Chosen:
    """The backend itself where it was asked for by name; for ``"auto"`` the fastest that can run.

    For ONNX both are ``"portable"``: what runs there has none of our backends.

    Raises:
        ValueError: the backend cannot run; the message says why, and which ones could.
    """
    if backend == "reference" and torch.compiler.is_exporting():
        raise ValueError("backend: 'reference' cannot be exported; 'auto' and 'torch' can")
    if writes_onnx():
        if backend == "triton":
            raise ValueError("backend: 'triton' cannot be written as ONNX; 'auto' and 'torch' can")
        return "portable"
    if backend in ("reference", "torch"):
        return backend
    if backend == "auto" and tensors[0].device.type != "cuda":
        return "torch"
    reason = why_not_triton(tensors, affinity, ranking)
    if backend == "triton" and reason:
        raise ValueError(f"backend: 'triton' cannot run: {reason}; 'torch' and 'reference' can")
    return "torch" if reason else "triton"


def writes_onnx() -> bool:
    """Whether this call is traced by ``torch.onnx.export``, which knows PyTorch's own operators alone."""
    return torch.compiler.is_exporting() and torch.onnx.is_in_onnx_export()


def why_not_triton(tensors: tuple[Tensor, ...], affinity: Affinity, ranking: Ranking = "mean") -> str | None:
    """What keeps the fused kernels from running on these tensors; None if nothing does."""
    x = tensors[0]
    if affinity != "dot":
        return f"it computes affinity='dot' only, and got {affinity!r}"
    if ranking == "moments":
        return "it has no ranking='moments'; 'mean', 'rms' and 'rerank' it has"
    if x.dtype not in (torch.float16, torch.bfloat16, torch.float32):
        return f"it computes float16, bfloat16 and float32, and got {x.dtype}: its kernels add up in float32"
    if bad := [t.shape[-1] for t in tensors if t.shape[-1] > 256]:
        return f"its kernels take up to 256 channels, and got {bad[0]}"
    return _why_not_device(x.device)


def _why_not_device(device: torch.device) -> str | None:
    if find_spec("triton") is None:
        return "the package triton is not installed (the extra of that name has it)"
    from gpa_nd.engine.fused import launch

    if launch.interpreted():
        return None
    if device.type != "cuda":
        how = "TRITON_INTERPRET=1, set before Python starts, tests it without one"
        return f"it needs a GPU of CUDA or ROCm ({how}), and the tensors are on {device}"
    return launch.why_not_chip(device)


_why_not_device._dynamo_marked_constant = True  # type: ignore[attr-defined]  # as torch.compiler.assume_constant_result
