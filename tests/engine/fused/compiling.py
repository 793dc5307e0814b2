"""Compile what the fused backend would launch, for GPUs that are not there.

``python tests/engine/fused/compiling.py --chip sm_90`` runs the host functions on CPU tensors that nobody fills, with
``launch`` replaced by one that compiles: Triton's own launch path specialises the arguments (divisibility by 16, equal
to 1, below 2 GB), so that the code is what a GPU would get. Every distinct compilation is reported and judged once:

- nothing spills: no stack, no registers kept in memory;
- shared (and on sm_100 tensor) memory within the chip's limits, no more warps than a program may have;
- every matrix product of float16 and bfloat16 runs on matrix units, and their instructions are in the code;
- no float32 product is rounded to tf32.

The process must not have ``TRITON_INTERPRET`` set. Without ``--chip`` it starts a process for each.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import queue
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext, redirect_stdout
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import triton
from triton.backends.compiler import GPUTarget

from gpa_nd import GPA, Layout
from gpa_nd.engine.bias import CoarseBias
from gpa_nd.engine.fused import call
from gpa_nd.engine.fused import launch as launching
from gpa_nd.engine.fused.launch import Chip
from gpa_nd.ops import GraphDownsampler, GridDownsampler
from gpa_nd.partitioners import GraphPartitioner, GridPartitioner

SHARED_BYTES = {
    "sm_80": 163 * 1024,
    "sm_89": 99 * 1024,
    "sm_90": 227 * 1024,
    "sm_100": 227 * 1024,
    "sm_120": 99 * 1024,
    "gfx942": 64 * 1024,
}
TARGETS = {
    "sm_80": (GPUTarget("cuda", 80, 32), 108),
    "sm_89": (GPUTarget("cuda", 89, 32), 128),
    "sm_90": (GPUTarget("cuda", 90, 32), 132),
    "sm_100": (GPUTarget("cuda", 100, 32), 148),
    "sm_120": (GPUTarget("cuda", 120, 32), 170),
    "gfx942": (GPUTarget("hip", "gfx942", 64), 304),
}
MATRIX_INSTRUCTIONS = {
    "cuda": {"mma": r"\bmma\.sync\.", "wgmma": r"\bwgmma\.mma_async\.", "tcgen05": r"\btcgen05\.mma\."},
    "hip": {"mfma": r"\bv_s?mfmac?_"},
}
TENSOR_MEMORY_COLUMNS = 512
THREADS = 1024
HALF = (torch.bfloat16, torch.float16)


class AbsentGPU:
    """Stands where Triton's driver stands, and only ever says which chip to compile for."""

    def __init__(self, target: GPUTarget) -> None:
        self.target = target

    def get_current_target(self) -> GPUTarget:
        return self.target

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0


@dataclass
class Compiled:
    """One compilation, or the attempt: what it is, where it was wanted, what it takes, and what is wrong with it."""

    kernel: str
    chip: str
    settings: dict[str, object]
    arguments: str
    cases: list[str] = field(default_factory=list)
    registers: int = 0
    spills: int = 0
    shared: int = 0
    matrix: dict[str, int] = field(default_factory=dict)
    products: int = 0
    seconds: float = 0.0
    faults: list[str] = field(default_factory=list)


class Recorder:
    """Takes the place of ``launch`` and compiles instead."""

    def __init__(self, chip: str, only: str = "", report: Callable[[Compiled], None] = lambda compiled: None) -> None:
        self.chip, self.only, self.report = chip, only, report
        self.case, self.half = "", False
        self.compiled: dict[object, Compiled] = {}
        self.problems: list[str] = []

    def launch(self, kernel: Any, grid: Any, *arguments: object, **settings: object) -> None:
        """What :func:`gpa_nd.engine.fused.launch.launch` would run, compiled."""
        name = kernel.fn.__name__
        if self.only and self.only not in name:
            return
        if not all(isinstance(n, int) and n >= 0 for n in grid) or len(grid) > 3:
            self.problems.append(f"{name} [{self.case}]: grid {tuple(grid)}")
        if any(n > limit for n, limit in zip(grid, (2**31 - 1, 65535, 65535), strict=False)):
            self.problems.append(f"{name} [{self.case}]: grid {tuple(grid)} is more than a GPU takes")
        key = identity(kernel, arguments, settings)
        if key not in self.compiled:
            self.compiled[key] = self.compile(kernel, grid, arguments, settings)
            self.report(self.compiled[key])
        if self.case not in self.compiled[key].cases:
            self.compiled[key].cases.append(self.case)

    def compile(self, kernel: Any, grid: Any, arguments: tuple[object, ...], settings: dict[str, object]) -> Compiled:
        shown = {name: str(value).removeprefix("torch.") for name, value in settings.items()}
        result = Compiled(kernel.fn.__name__, self.chip, shown, describe(kernel, arguments), [self.case])
        start = time.perf_counter()
        try:
            binary = kernel.warmup(*arguments, grid=tuple(grid), **settings)
        except Exception as error:  # whatever it is, it is this configuration that cannot be built
            result.faults.append(f"does not compile: {type(error).__name__}: {first_lines(error)}")
        else:
            measure(binary, result, self.half)
        result.seconds = round(time.perf_counter() - start, 2)
        return result


def identity(kernel: Any, arguments: tuple[object, ...], settings: dict[str, object]) -> object:
    """What tells two compilations apart, as Triton itself tells them apart."""
    _, _, _, _, bind = kernel.device_caches[0]
    bound = bind(*arguments, **settings)
    return kernel.fn.__qualname__, str(bound[1]), str(sorted(bound[2].items()))


def describe(kernel: Any, arguments: tuple[object, ...]) -> str:
    """The arguments that are not in ``settings``, for people."""
    words = []
    for name, value in zip(kernel.arg_names, arguments, strict=False):
        if isinstance(value, torch.Tensor):
            aligned = "" if value.data_ptr() % 16 == 0 else "(unaligned)"
            words.append(f"{name}:{str(value.dtype).removeprefix('torch.')}{aligned}")
        else:
            words.append(f"{name}={value}")
    return " ".join(words)


def first_lines(error: Exception) -> str:
    return " | ".join(line.strip() for line in str(error).splitlines() if line.strip())[:600]


def measure(binary: Any, result: Compiled, half: bool) -> None:
    """Fill in what the compiled code takes, and judge it; ``half``: the tokens are float16 or bfloat16."""
    chip, assembly, metadata = result.chip, binary.asm, binary.metadata
    target, _ = TARGETS[chip]
    if target.backend == "cuda":
        usage = resource_usage(assembly["cubin"])
        result.registers, result.spills = usage["REG"], usage["STACK"] + usage["LOCAL"]
        code = assembly["ptx"]
    else:
        code = assembly["amdgcn"]
        result.registers = amd_number(code, "vgpr_count")
        # Scalars without a register wait in a lane of a vector register (sgpr_spill_count), never in memory.
        result.spills = sum(amd_number(code, name) for name in ("vgpr_spill_count", "private_segment_fixed_size"))
    result.shared = metadata.shared
    counts = {name: len(re.findall(p, code)) for name, p in MATRIX_INSTRUCTIONS[target.backend].items()}
    result.matrix = {name: count for name, count in counts.items() if count}

    if result.spills:
        result.faults.append(f"spills {result.spills}")
    if result.shared > SHARED_BYTES[chip]:
        result.faults.append(f"{result.shared} bytes of shared memory, {SHARED_BYTES[chip]} are there")
    if (getattr(metadata, "tmem_size", None) or 0) > TENSOR_MEMORY_COLUMNS:
        result.faults.append(f"{metadata.tmem_size} columns of tensor memory, {TENSOR_MEMORY_COLUMNS} are there")
    if metadata.num_warps * target.warp_size > THREADS:
        result.faults.append(f"{metadata.num_warps} warps, more than a program may have")

    # Counted as they were written: what was optimised away altogether is a fault too.
    products = re.findall(r"\btt\.dot .*", assembly["source"])
    result.products = len(products)
    if half and products and not result.matrix:
        result.faults.append(f"{len(products)} matrix products and no matrix instruction")
    plain = re.findall(r"\btt\.dot .*#ttg\.dot_op<\{[^}]*parent = #blocked", assembly["ttgir"])
    if half and plain:
        result.faults.append(f"{len(plain)} matrix products by ordinary multiply-adds")
    if any(re.search(r"inputPrecision = tf32 .*xf32> \* tensor<", line) for line in products):
        result.faults.append("a float32 product is rounded to tf32")


def resource_usage(cubin: bytes) -> dict[str, int]:
    """Registers, stack and local bytes of the one kernel in a cubin."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        run = subprocess.run([cuobjdump(), "--dump-resource-usage", file.name], capture_output=True, text=True)
    usage = {name: int(number) for name, number in re.findall(r"\b(REG|STACK|LOCAL):(\d+)", run.stdout)}
    if set(usage) != {"REG", "STACK", "LOCAL"}:
        raise RuntimeError(f"cuobjdump said {run.stdout!r} {run.stderr!r}")
    return usage


@lru_cache
def cuobjdump() -> str:
    return str(Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump")


def amd_number(assembly: str, name: str) -> int:
    found = re.findall(rf"^\s*\.{name}:\s*(\d+)", assembly, re.MULTILINE)
    if not found:
        raise RuntimeError(f"no .{name} in the assembly")
    return max(map(int, found))


def stand_in(chip: str, recorder: Recorder) -> None:
    """Let every module of the fused backend believe that it launches on this chip."""
    target, processors = TARGETS[chip]
    triton.runtime.driver.set_active(AbsentGPU(target))
    absent = Chip(chip, processors)
    replaced = {
        launching.launch: recorder.launch,
        launching.chip_of: lambda device: absent,
    }
    for name, module in list(sys.modules.items()):
        if name.startswith("gpa_nd.engine.fused"):
            for attribute, value in list(vars(module).items()):
                if callable(value) and getattr(value, "__hash__", None) and value in replaced:
                    setattr(module, attribute, replaced[value])


# What is compiled -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """Tensors that somebody would call the host functions with."""

    geometry: str
    dtype: torch.dtype = torch.bfloat16
    c: int = 64
    c_v: int | None = None
    heads: int = 8
    key_heads: int = 8
    kappa: int = 12
    # What is beside: "logits", "ranges", "heads last", "far apart", "sums" (the log-sum-exp, with a gradient), or some
    # of: "positions" on one axis or on three "axes", a "bias" or a "mask", which has no gradient, with what Phase 1
    # knows of them, and "candidates".
    extras: str = ""

    def has(self, *words: str) -> bool:
        """Whether one of these is beside."""
        return any(word in self.extras.split() for word in words)

    @property
    def name(self) -> str:
        values = "" if self.c_v in (None, self.c) else f"/{self.c_v}"
        heads = "" if self.heads == self.key_heads else f" {self.heads}→{self.key_heads} heads"
        dtype = str(self.dtype).removeprefix("torch.")
        return f"{self.geometry} {dtype} c={self.c}{values}{heads}{' ' + self.extras if self.extras else ''}"


def grid(shape: tuple[int, ...], factor: tuple[int, ...], cells: tuple[int, ...]) -> Layout:
    return GPA(GridPartitioner(cells), GridDownsampler(factor), kappa=1).layout(shape, shape)


def ragged() -> Layout:
    """Groups of 1 to 63 elements, cells of 1 to 40 groups."""
    rng = torch.Generator().manual_seed(0)
    sizes = torch.randint(1, 64, (1000,), generator=rng)
    sizes[0] = 1 + (-int(sizes.sum())) % 16  # a number of elements that is divisible by 16
    labels = torch.arange(1000).repeat_interleave(sizes)
    cells = torch.arange(1000).repeat_interleave(torch.randint(1, 41, (1000,), generator=rng))[:1000]
    return GPA(GraphPartitioner(cells), GraphDownsampler(labels), kappa=1).layout((len(labels),), (len(labels),))


GEOMETRIES: dict[str, Callable[[], Layout]] = {
    "image G=16 cells of 64": lambda: grid((256, 256), (4, 4), (32, 32)),
    "image G=4 cells of 4": lambda: grid((256, 256), (2, 2), (128, 128)),
    "image G=4 cells of 16": lambda: grid((256, 256), (2, 2), (64, 64)),
    "points G=1 cells of 1": lambda: grid((4096,), (1,), (4096,)),
    "video G=64 cells of 512": lambda: grid((32, 64, 64), (4, 4, 4), (4, 8, 8)),
    "audio G=16 cells of 1024": lambda: grid((65536,), (16,), (64,)),
    "2,097,152 coarse keys": lambda: grid((2**21,), (1,), (64,)),
    "odd image": lambda: grid((250, 187), (4, 4), (20, 20)),
    "ragged graph": ragged,
}
PIVOT = "image G=16 cells of 64"
HEAD_SIZES = (16, 32, 64, 80, 96, 128, 192, 256)


def cases() -> list[Case]:
    """Every geometry, dtype, head size and argument that may change a configuration; not their whole product."""
    few = [Case(geometry) for geometry in GEOMETRIES]
    few += [Case(PIVOT, c=c) for c in HEAD_SIZES]
    few += [Case(PIVOT, torch.float32, c) for c in (32, 64, 80, 128, 256)]
    few += [Case(PIVOT, torch.float16), Case(PIVOT, c=17), Case(PIVOT, c_v=128), Case(PIVOT, key_heads=2)]
    for geometry in ("image G=4 cells of 4", "video G=64 cells of 512"):
        few += [Case(geometry, dtype, 256) for dtype in (torch.bfloat16, torch.float32)]
    few += [Case("video G=64 cells of 512", c=128), Case("video G=64 cells of 512", torch.float16)]
    few += [Case(PIVOT, torch.float32, extras=extras) for extras in ("logits", "positions", "far apart", "sums")]
    few += [Case(PIVOT, c=128, extras=extras) for extras in ("logits", "positions", "far apart")]
    few += [Case("ragged graph", extras=extras) for extras in ("logits", "positions", "ranges", "far apart")]
    few += [Case("ragged graph", torch.float32, 128), Case("points G=1 cells of 1", torch.float32)]
    few += [Case("image G=4 cells of 4", extras="positions"), Case("image G=4 cells of 4", extras="logits")]
    few += [Case(PIVOT, extras=extras) for extras in ("logits", "positions", "ranges", "heads last", "sums")]
    few += [Case(PIVOT, extras=extras) for extras in ("bias", "axes", "axes bias", "mask", "candidates")]
    few += [Case(PIVOT, c=c, extras="axes bias candidates") for c in (128, 256)]
    few += [Case(PIVOT, torch.float32, c, extras="axes bias candidates") for c in (64, 256)]
    few += [Case(PIVOT, torch.float32, extras="bias"), Case("image G=4 cells of 4", extras="bias")]
    few += [Case("image G=4 cells of 4", extras="axes bias candidates"), Case("ragged graph", extras="axes bias")]
    few += [Case("points G=1 cells of 1", extras="bias candidates"), Case("ragged graph", extras="candidates")]
    few += [Case("video G=64 cells of 512", extras=extras) for extras in ("axes bias", "candidates")]
    return list(dict.fromkeys(few))


def shared(wanted: list[Case], part: int, parts: int) -> list[Case]:
    """One of so many parts of these cases, and with each part those that need the most registers.

    Example:
        >>> parts = [shared(cases(), part, 4) for part in range(4)]
        >>> set().union(*parts) == set(cases()), max(map(len, parts)) < len(cases()) / 3
        (True, True)
    """
    return [case for i, case in enumerate(wanted) if i % parts == part or (case.geometry == PIVOT and case.c == 256)]


def all_cases() -> list[Case]:
    """The whole product; hours."""
    dtypes = (*HALF, torch.float32)
    product = [Case(geometry, dtype, c) for geometry in GEOMETRIES for dtype in dtypes for c in HEAD_SIZES]
    return list(dict.fromkeys([*cases(), *product]))


@lru_cache
def layout_of(geometry: str, with_ranges: bool) -> Layout:
    layout = GEOMETRIES[geometry]()
    if not with_ranges:
        return layout
    ends = torch.arange(1, len(layout.query_cells) + 1).clamp(max=len(layout.key_groups))
    ranges = torch.stack([torch.zeros_like(ends), ends], dim=1)
    return Layout(layout.query_groups, layout.query_cells, layout.key_groups, layout.key_members, ranges)


def tokens(heads: int, n: int, channels: int, case: Case) -> torch.Tensor:
    """Room for tokens that nobody fills, so that it costs nothing."""
    if case.extras == "heads last":
        return torch.empty(1, n, heads, channels, dtype=case.dtype).transpose(1, 2)
    return torch.empty(1, heads, n, channels, dtype=case.dtype)


def phases() -> dict[str, Callable[[Case], None]]:
    """The host functions that are there, each run for a case."""
    found: dict[str, Callable[[Case], None]] = {}
    selection, attention = (module_or_none(f"gpa_nd.engine.fused.{name}") for name in ("selection", "attention"))
    if selection:
        found["select"] = lambda case: run_select(selection, case)
    if attention:
        found["attend"] = lambda case: run_attend(attention, case)
    return found


def module_or_none(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name == name:
            return None
        raise


def run_select(selection: Any, case: Case) -> None:
    if case.extras == "far apart":
        return
    layout = layout_of(case.geometry, case.extras == "ranges")
    q = tokens(case.heads, layout.query_groups.num_elements, case.c, case)
    k = tokens(case.key_heads, layout.key_groups.num_elements, case.c, case)
    bias, candidates = None, None
    if case.has("bias", "mask"):
        bias = CoarseBias(*(torch.zeros(1, case.key_heads, k.shape[2])[..., : len(layout.key_groups)] for _ in "as"))
    if case.has("axes"):
        sizes = len(layout.query_cells), len(layout.key_groups)
        layout = replace(layout, coarse_positions=tuple(torch.empty(n, 3, dtype=torch.int64) for n in sizes))
    if case.has("candidates"):
        candidates = torch.arange(384).expand(1, case.heads, len(layout.query_cells), 384)
    selection.select_keys(q, k, layout, case.kappa, case.c**-0.5, bias, candidates, candidates is not None)


def run_attend(attention: Any, case: Case) -> None:
    if case.extras in ("ranges", "candidates"):
        return
    layout = layout_of(case.geometry, False)
    n_q, n_k = layout.query_groups.num_elements, layout.key_groups.num_elements
    q = tokens(case.heads, n_q, case.c, case).requires_grad_()
    k = tokens(case.key_heads, n_k, case.c, case).requires_grad_()
    v = tokens(case.key_heads, n_k, case.c_v or case.c, case).requires_grad_()
    chosen = torch.arange(case.kappa).expand(1, case.heads, len(layout.query_cells), case.kappa).contiguous()
    logits = torch.zeros(chosen.shape, requires_grad=True) if case.extras == "logits" else None
    bias = None
    if case.has("bias", "mask"):
        bias = torch.zeros(1, case.key_heads, n_k, requires_grad=case.has("bias"))
    if case.has("positions", "axes"):
        axes = 3 if case.has("axes") else 1
        positions = tuple(torch.empty(n, axes, dtype=torch.int64) for n in (n_q, n_k))
        layout = replace(layout, positions=positions)
    with patch.object(call, "reach", lambda x: 2**31) if case.extras == "far apart" else nullcontext():
        attend = attention.attend_with_sums if case.extras == "sums" else attention.attend
        outs = attend(q, k, v, layout, chosen, logits, bias, case.c**-0.5)
        outs = outs if case.extras == "sums" else (outs,)
        torch.autograd.backward(outs, [torch.empty_like(out) for out in outs])


# Running --------------------------------------------------------------------------------------------------------------


def compile_all(
    chip: str,
    wanted: list[Case],
    runs: dict[str, Callable[[Case], None]],
    *,
    only: str = "",
    report: Callable[[Compiled], None] = lambda compiled: None,
) -> Recorder:
    """Compile whatever these runs launch for these cases; ``only`` keeps the kernels whose name holds it."""
    recorder = Recorder(chip, only, report)
    stand_in(chip, recorder)
    for phase, run in runs.items():
        for case in wanted:
            recorder.case, recorder.half = f"{phase}: {case.name}", case.dtype in HALF
            try:
                run(case)
            except Exception as error:  # the host function itself refuses or breaks
                recorder.problems.append(f"[{recorder.case}]: {type(error).__name__}: {first_lines(error)}")
    return recorder


def run_chip(options: argparse.Namespace) -> int:
    """This process, one chip: JSON lines on standard output."""

    output = sys.stdout

    def emit(line: dict[str, Any]) -> None:
        print(json.dumps(line), file=output, flush=True)

    wanted = [case for case in (all_cases() if options.all else cases()) if options.case in case.name]
    wanted = shared(wanted, *options.part)
    runs = phases()
    if options.kernels:
        sys.path.insert(0, str(Path(__file__).parent))
        wanted, runs = [Case(PIVOT)], importlib.import_module(options.kernels).RUNS
    runs = {name: run for name, run in runs.items() if options.phase in name}
    with redirect_stdout(sys.stderr):  # where an assembler fails, Triton prints all it was given
        recorder = compile_all(options.chip, wanted, runs, only=options.only, report=lambda x: emit(asdict(x)))
    for problem in recorder.problems:
        emit({"chip": options.chip, "problem": problem})
    wrong = recorder.problems or any(compiled.faults for compiled in recorder.compiled.values())
    return 1 if wrong else 0


def lines_of(chips: list[str], arguments: list[str], at_once: int = 2) -> Iterator[dict[str, Any]]:
    """What the processes of these chips report, as it comes; at most ``at_once`` run side by side."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    lines: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()

    def run(chip: str) -> None:
        command = [sys.executable, __file__, "--json", "--chip", chip, *arguments]
        with tempfile.TemporaryFile("w+") as errors:
            settings = {"stdout": subprocess.PIPE, "stderr": errors, "text": True, "env": environment}
            with subprocess.Popen(command, **settings) as process:
                for line in process.stdout:
                    lines.put(json.loads(line))
            if process.returncode not in (0, 1):
                errors.seek(0)
                said = errors.read()[-800:]
                lines.put({"chip": chip, "problem": f"the process ended with {process.returncode}: {said}"})
        lines.put(None)

    with tempfile.TemporaryDirectory() as cache, ThreadPoolExecutor(at_once) as threads:
        environment.setdefault("TRITON_CACHE_DIR", cache)
        for chip in chips:
            threads.submit(run, chip)
        ended = 0
        while ended < len(chips):
            line = lines.get()
            if line is None:
                ended += 1
            else:
                yield line


def print_table(lines: Iterator[dict[str, Any]]) -> int:
    """A table for people; the number of faults."""
    faults = 0
    print(f"{'chip':<7} {'kernel':<22} {'regs':>4} {'spill':>5} {'shared':>7} {'matrix':<16} {'s':>5}  configuration")
    for line in lines:
        if "problem" in line:
            print(f"{line['chip']:<7} PROBLEM {line['problem']}", flush=True)
            faults += 1
            continue
        matrix = " ".join(f"{name}×{count}" for name, count in line["matrix"].items()) or "–"
        settings = " ".join(f"{name}={value}" for name, value in line["settings"].items())
        print(
            f"{line['chip']:<7} {line['kernel']:<22} {line['registers']:>4} {line['spills']:>5} {line['shared']:>7} "
            f"{matrix:<16} {line['seconds']:>5.1f}  {settings}  [{line['cases'][0]}]",
            flush=True,
        )
        for fault in line["faults"]:
            print(f"{'':<7} FAULT {fault}", flush=True)
        faults += len(line["faults"])
    return faults


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chip", choices=sorted(TARGETS), help="only this one (default: all)")
    parser.add_argument("--phase", default="", help="only this one: select, attend")
    parser.add_argument("--only", default="", help="only kernels whose name contains this")
    parser.add_argument("--case", default="", help="only cases whose name contains this, e.g. 'bfloat16 c=64'")
    parser.add_argument("--all", action="store_true", help="the whole product of geometries, dtypes and head sizes")
    parser.add_argument("--part", type=int, nargs=2, default=(0, 1), help="this one of so many parts of the cases")
    parser.add_argument("--json", action="store_true", help="JSON lines instead of the table")
    parser.add_argument("--kernels", help="a module beside this file whose RUNS are compiled instead")
    options = parser.parse_args()
    if options.json and options.chip:
        return run_chip(options)
    arguments = ["--phase", options.phase, "--only", options.only, "--case", options.case]
    arguments += ["--part", *map(str, options.part)]
    arguments += ["--all"] if options.all else []
    arguments += ["--kernels", options.kernels] if options.kernels else []
    chips = [options.chip] if options.chip else list(TARGETS)
    if options.json:
        lines = [line for line in lines_of(chips, arguments) if print(json.dumps(line), flush=True) is None]
        return 1 if any("problem" in line or line["faults"] for line in lines) else 0
    return 1 if print_table(lines_of(chips, arguments)) else 0


if __name__ == "__main__":
    sys.exit(main())
