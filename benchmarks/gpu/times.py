"""How fast is it? Phases and kernels, dense attention, FlexAttention given the same blocks, and the torch backend."""

from __future__ import annotations

import statistics
import warnings
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks.clock import Stopwatch, captured, flush, median_seconds
from benchmarks.contestants import Skipped, flex_over
from benchmarks.floor import Floor, attended_pairs, backward_work, forward_work
from benchmarks.gpu.phases import attend, select, whole
from benchmarks.gpu.replacing import in_place_of
from benchmarks.gpu.rows import Row, Tokens, tokens
from benchmarks.memory import peak_bytes

DENSE = (SDPBackend.FLASH_ATTENTION, SDPBackend.CUDNN_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH)
LARGEST_MATRIX = 2**34  # bytes of scores that the MATH backend may hold


def time_row(row: Row, dtype: torch.dtype, device: torch.device, floor: Floor, rounds: int) -> dict[str, Any]:
    """Seconds, peak bytes and errors of everything that this row is compared with."""
    data = tokens(row, dtype, device)

    def choose() -> Tensor:
        return select(data, row.kappa)

    relevant, on_gpu = choose(), device.type == "cuda"
    q, k, v = (x.detach() for x in data.inputs[:3])
    forward = forward_work(q, k, v, data.layout, relevant)
    both = forward + backward_work(q, k, v, data.layout, relevant)
    found: dict[str, Any] = {
        "sparsity": 1 - attended_pairs(data.layout, relevant) / (row.heads * q.shape[2] * k.shape[2]),
        "floor": {"forward": floor.seconds(forward), "both": floor.seconds(both)},
        "fused": timed(lambda: whole(data, row.kappa, "triton"), data, device, rounds, memory=True, graph=on_gpu),
        "phase 1": {"forward": attempt(lambda: median_seconds(choose, device, rounds=rounds))},
        "phase 2": timed(lambda: attend(data, relevant, "triton"), data, device, rounds),
        "kernels": attempt(lambda: kernel_seconds(data, row.kappa, device, min(rounds, 10))),
    }  # fmt: skip
    found["torch"] = timed(lambda: whole(data, row.kappa, "torch"), data, device, min(rounds, 5), memory=True)
    if row.dense:
        found["dense"] = {}
        for backend in DENSE:
            if backend is SDPBackend.MATH and row.heads * q.shape[2] * k.shape[2] * 4 > LARGEST_MATRIX:
                found["dense"][backend.name] = {"error": "its matrix of scores would not fit"}
                continue
            run = dense(data, backend)
            found["dense"][backend.name] = timed(run, data, device, min(rounds, 10), memory=True)
    try:
        run = flex(data, relevant)
        run()
    except Skipped as reason:
        found["flex"] = {"error": str(reason)}
    except Exception as error:
        found["flex"] = {"error": short(error)}
    else:
        found["flex"] = timed(run, data, device, rounds, memory=True)
        found["flex"]["differs"] = attempt(lambda: difference(run, lambda: attend(data, relevant, "triton")))
    return found


def timed(
    run: Callable[[], Tensor],
    data: Tokens,
    device: torch.device,
    rounds: int,
    *,
    memory: bool = False,
    graph: bool = False,
) -> dict[str, Any]:
    """Forward, and forward with backward: seconds, on request also peak bytes and seconds as one CUDA graph."""

    def forward() -> object:
        with torch.no_grad():
            return run()

    def both() -> object:
        return torch.autograd.grad(run(), data.inputs[:3], data.gradient)

    found: dict[str, Any] = {}
    for name, pass_ in (("forward", forward), ("both", both)):
        found[name] = attempt(lambda: median_seconds(pass_, device, rounds=rounds))  # noqa: B023
        if memory:
            found[f"{name} bytes"] = attempt(lambda: peak_bytes(pass_, device))  # noqa: B023
        if graph:
            found[f"{name} graph"] = attempt(
                lambda: median_seconds(captured(pass_, device), device, rounds=rounds)  # noqa: B023
            )
    return found


def attempt(measurement: Callable[[], Any]) -> Any:
    """The measurement, or what went wrong: one failure is no reason to lose the rest."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return measurement()
        except Exception as error:
            torch.cuda.empty_cache()
            return {"error": short(error)}


def short(error: Exception) -> str:
    """An error in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


def dense(data: Tokens, backend: SDPBackend) -> Callable[[], Tensor]:
    """Dense attention over the same tokens, by one backend of PyTorch."""

    def run() -> Tensor:
        with sdpa_kernel(backend):
            return F.scaled_dot_product_attention(data.q, data.k, data.v, enable_gqa=data.shares_heads)

    return run


def flex(data: Tokens, relevant: Tensor) -> Callable[[], Tensor]:
    """FlexAttention given the same blocks."""
    attend_blocks = flex_over(data.layout, relevant, enable_gqa=data.shares_heads)
    return lambda: attend_blocks(data.q, data.k, data.v)


def difference(run: Callable[[], Tensor], other: Callable[[], Tensor]) -> float:
    """The largest difference between two results, over the largest value."""
    with torch.no_grad():
        a, b = run().float(), other().float()
    return float((a - b).abs().max() / b.abs().max())


def kernel_seconds(data: Tokens, kappa: int, device: torch.device, rounds: int) -> dict[str, float]:
    """Seconds of each kernel in one forward and backward pass, each launch between two events; medians over rounds."""
    found: dict[str, list[float]] = {}
    launches: list[tuple[str, Stopwatch]] = []

    def launch(kernel: Any, grid: Any, *arguments: object, **settings: object) -> None:
        watch = Stopwatch(device)
        original(kernel, grid, *arguments, **settings)
        launches.append((kernel.fn.__name__, watch.stop()))

    from gpa_nd.engine.fused import launch as launching

    original = launching.launch
    with in_place_of({original: launch}):
        for number in range(rounds + 1):
            flush(device)
            launches.clear()
            torch.autograd.grad(whole(data, kappa, "triton"), data.inputs[:3], data.gradient)
            if number:  # the first one warms up
                sums: dict[str, float] = {}
                for name, watch in launches:
                    sums[name] = sums.get(name, 0.0) + watch.seconds
                for name, value in sums.items():
                    found.setdefault(name, []).append(value)
    return {name: statistics.median(values) for name, values in found.items()}
