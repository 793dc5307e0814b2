"""How fast is it? Phases and kernels, dense attention, FlexAttention given the same blocks, and the torch backend."""

from __future__ import annotations

import statistics
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

import gpa_nd
from benchmarks import measure
from benchmarks.gpu.rows import Row, Tokens, tokens

DENSE = (SDPBackend.FLASH_ATTENTION, SDPBackend.CUDNN_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH)
LARGEST_MATRIX = 2**34  # bytes of scores that the MATH backend may hold


class Skipped(Exception):
    """Why a comparison was left out."""


def time_row(
    row: Row, dtype: torch.dtype, device: torch.device, floor: measure.Floor, rounds: int, peers: bool = True
) -> dict[str, Any]:
    """Seconds, peak bytes and errors of everything that this row is compared with."""
    data = tokens(row, dtype, device)

    def choose() -> Tensor:
        return select(data, row.kappa)

    relevant, on_gpu = choose(), device.type == "cuda"
    q, k, v = (x.detach() for x in data.inputs[:3])
    forward = measure.forward_work(q, k, v, data.layout, relevant)
    both = forward + measure.backward_work(q, k, v, data.layout, relevant)
    found: dict[str, Any] = {
        "sparsity": 1 - measure.attended_pairs(data.layout, relevant) / (row.heads * q.shape[2] * k.shape[2]),
        "floor": {"forward": floor.seconds(forward), "both": floor.seconds(both)},
        "fused": timed(lambda: whole(data, row.kappa, "triton"), data, device, rounds, memory=True, graph=on_gpu),
        "phase 1": {"forward": attempt(lambda: measure.seconds(choose, device, rounds=rounds))},
        "phase 2": timed(lambda: attend(data, relevant, "triton"), data, device, rounds),
        "kernels": attempt(lambda: kernel_seconds(data, row.kappa, device, min(rounds, 10))),
    }  # fmt: skip
    if not peers:
        return found
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
        found[name] = attempt(lambda: measure.seconds(pass_, device, rounds=rounds))  # noqa: B023
        if memory:
            found[f"{name} bytes"] = attempt(lambda: measure.peak_bytes(pass_, device))  # noqa: B023
        if graph:
            found[f"{name} graph"] = attempt(
                lambda: measure.seconds(measure.captured(pass_, device), device, rounds=rounds)  # noqa: B023
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


def select(data: Tokens, kappa: int) -> Tensor:
    """Phase 1."""
    q, k = data.q.detach(), data.k.detach()
    return gpa_nd.select_keys(q, k, data.layout, kappa=kappa, enable_gqa=data.shares_heads, backend="triton")


def attend(data: Tokens, relevant: Tensor, backend: str) -> Tensor:
    """Phase 2."""
    return gpa_nd.attend(
        data.q, data.k, data.v, data.layout, relevant, enable_gqa=data.shares_heads, backend=backend
    )  # fmt: skip


def whole(data: Tokens, kappa: int, backend: str) -> Tensor:
    """Both phases."""
    return gpa_nd.gpa_attention(
        data.q, data.k, data.v, data.layout, kappa=kappa, enable_gqa=data.shares_heads, backend=backend
    )


def dense(data: Tokens, backend: SDPBackend) -> Callable[[], Tensor]:
    """Dense attention over the same tokens, by one backend of PyTorch."""

    def run() -> Tensor:
        with sdpa_kernel(backend):
            return F.scaled_dot_product_attention(data.q, data.k, data.v, enable_gqa=data.shares_heads)

    return run


def flex(data: Tokens, relevant: Tensor) -> Callable[[], Tensor]:
    """FlexAttention given the same blocks, compiled; putting tokens into blocks and back is part of its time.

    Raises:
        Skipped: cells or groups are no blocks.
    """
    from torch.nn.attention.flex_attention import BlockMask, flex_attention

    cells, members = data.layout.fine_cells, data.layout.members
    if not (cells.uniform and members.uniform and members.covers):
        raise Skipped("cells or groups differ in size, so that they are no blocks")
    rows, columns = cells.largest, members.largest
    if any(size < 16 or size & (size - 1) for size in (rows, columns)):
        raise Skipped(f"blocks of {rows} queries and {columns} keys: its tiles are powers of two from 16 on")
    chosen = torch.zeros(*relevant.shape[:3], len(members), dtype=torch.int32, device=relevant.device)
    chosen.scatter_add_(-1, relevant.clamp_min(0), (relevant >= 0).int())
    blocks = chosen.argsort(dim=-1, descending=True, stable=True).int()
    count = chosen.sum(-1, dtype=torch.int32)
    nothing = torch.zeros_like(count), torch.zeros_like(blocks)
    mask = BlockMask.from_kv_blocks(*nothing, count, blocks, BLOCK_SIZE=(rows, columns))
    tile = {"BLOCK_M": min(rows, 128), "BLOCK_N": min(columns, 64)}
    tile |= {"BLOCK_M1": min(rows, columns, 64), "BLOCK_N1": min(columns, 64)}
    tile |= {"BLOCK_M2": min(rows, 64), "BLOCK_N2": min(rows, columns, 64)}
    options = None if rows % 128 == 0 and columns % 128 == 0 else tile
    torch.compiler.reset()  # each row is a new program, and it gives up after a few
    compiled = torch.compile(flex_attention, dynamic=False)

    def run() -> Tensor:
        q = data.q.index_select(2, cells.order)
        k, v = (x.index_select(2, members.order) for x in (data.k, data.v))
        out = compiled(q, k, v, block_mask=mask, enable_gqa=data.shares_heads, kernel_options=options)
        return out.index_select(2, cells.inverse)

    run()
    return run


def difference(run: Callable[[], Tensor], other: Callable[[], Tensor]) -> float:
    """The largest difference between two results, over the largest value."""
    with torch.no_grad():
        a, b = run().float(), other().float()
    return float((a - b).abs().max() / b.abs().max())


def kernel_seconds(data: Tokens, kappa: int, device: torch.device, rounds: int) -> dict[str, float]:
    """Seconds of each kernel in one forward and backward pass, each launch between two events; medians over rounds."""
    found: dict[str, list[float]] = {}
    launches: list[tuple[str, measure.Stopwatch]] = []

    def launch(kernel: Any, grid: Any, *arguments: object, **settings: object) -> None:
        watch = measure.Stopwatch(device)
        original(kernel, grid, *arguments, **settings)
        launches.append((kernel.fn.__name__, watch.stop()))

    from gpa_nd.engine.fused import launch as launching

    original = launching.launch
    with in_place_of({original: launch}):
        for number in range(rounds + 1):
            measure.flush(device)
            launches.clear()
            torch.autograd.grad(whole(data, kappa, "triton"), data.inputs[:3], data.gradient)
            if number:  # the first one warms up
                sums: dict[str, float] = {}
                for name, watch in launches:
                    sums[name] = sums.get(name, 0.0) + watch.seconds
                for name, value in sums.items():
                    found.setdefault(name, []).append(value)
    return {name: statistics.median(values) for name, values in found.items()}


@contextmanager
def in_place_of(replacements: dict[Any, Any]) -> Iterator[None]:
    """Put other functions where modules of the fused backend name these."""
    places = [
        (module, attribute, value)
        for name, module in list(sys.modules.items())
        if name.startswith("gpa_nd.engine.fused")
        for attribute, value in list(vars(module).items())
        if callable(value) and getattr(value, "__hash__", None) and value in replacements
    ]
    for module, attribute, value in places:
        setattr(module, attribute, replacements[value])
    try:
        yield
    finally:
        for module, attribute, value in places:
            setattr(module, attribute, value)
