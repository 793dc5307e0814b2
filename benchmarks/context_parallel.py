"""What context parallelism moves, and what it costs: ``python -m benchmarks.context_parallel``.

Gloo processes on one machine, each with one thread, float32, 64 channels, one head. Bytes are those that came to a
process in a forward pass, the most of all; everything is what would have come, had all keys and values been gathered.
Random tensors select blocks anywhere; features of real things (:mod:`benchmarks.features`) select what corresponds.
Work is the processor time of all processes together, against that of one process: not how long it takes, since the
processes share the processors of one machine. The answer must be that of one process.
"""

from __future__ import annotations

import multiprocessing
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from benchmarks import geometries, report
from benchmarks.contestants import Attend, passes
from benchmarks.features import CHANNELS, sources
from benchmarks.geometries import Geometry
from benchmarks.report import Found, Section
from benchmarks.tables import Table, mebibytes, times
from gpa_nd.distributed import ContextParallel


@dataclass(frozen=True)
class Item:
    """A structure, and over how many processes it is spread.

    Attributes:
        geometry: the grid.
        processes: how many.
        features: the kind of features that its tokens are; random ones without.
        quick: whether these are the tiny ones.
    """

    geometry: Geometry
    processes: int
    features: str = ""
    quick: bool = False

    def __str__(self) -> str:
        return f"{self.features or 'random'}, {self.geometry}, {self.processes} processes"

    def tokens(self) -> list[Tensor]:
        """q, k and v (1, 1, *shape, 64); they require gradients."""
        if self.features:
            source = next(s for s in sources(quick=self.quick) if s.kind == self.features)
            found = list(source.tokens(8 if self.quick else 64))
        else:
            rng = torch.Generator().manual_seed(0)
            found = [torch.randn(1, 1, self.geometry.elements, CHANNELS, generator=rng) for _ in range(3)]
        return [x.unflatten(2, self.geometry.shape).requires_grad_() for x in found]


def items(quick: bool) -> list[Item]:
    """A long sequence over more and more processes, other structures over four, and features of real things."""
    if quick:
        return [
            Item(geometries.audio(256, 4, 16, 2), 2),
            Item(geometries.image(16, 4, 4, 2), 2, "photographs", quick=True),
        ]
    long = geometries.audio(2**17, cells=512, kappa=8)
    return [
        *(Item(long, processes) for processes in (2, 4, 8)),
        Item(geometries.image(256, cells=16, kappa=8), 4),
        Item(geometries.video((32, 64, 64), (2, 4, 4), (8, 8, 8), 8), 4),
        Item(geometries.image(128, cells=16, kappa=8), 4, "photographs"),
        Item(geometries.video((8, 32, 32), (2, 4, 4), (4, 4, 4), 8), 4, "video"),
        Item(geometries.audio(4096, 8, 256, 8), 4, "audio"),
    ]


def main() -> None:
    """The command line."""
    options = report.parser("context_parallel", __doc__).parse_args()
    section = Section("context_parallel", items(options.quick), lambda item: measure(item, options.rounds), tables)
    report.run("context_parallel", [section], options)


def measure(item: Item, rounds: int) -> dict[str, Any]:
    """Bytes and processor seconds of all processes, and the seconds of one.

    Raises:
        RuntimeError: the answer is not that of one process.
    """
    (one,), many = (together(replace(item, processes=p), rounds) for p in (1, item.processes))
    apart = max(each["apart"] for each in many)
    if apart > 1e-4:
        raise RuntimeError(f"{item}: the answer differs by {apart:.1e} from that of one process")
    return {
        **{name: max(each[name] for each in many) for name in ("coarse", "blocks", "everything", "rows")},
        **{f"{name} of one": one[name] for name in ("forward", "both")},
        **{name: sum(each[name] for each in many) for name in ("forward", "both")},
        "apart": apart,
    }


def together(item: Item, rounds: int) -> list[dict[str, Any]]:
    """What each process found."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch._dynamo", "gpa_nd.distributed", "benchmarks.features"])
    with tempfile.TemporaryDirectory() as folder, ProcessPoolExecutor(item.processes, mp_context=context) as pool:
        started = [pool.submit(alone, item, rank, Path(folder), rounds) for rank in range(item.processes)]
        return [each.result() for each in started]


def alone(item: Item, rank: int, folder: Path, rounds: int) -> dict[str, Any]:
    """What one of the processes finds."""
    torch.set_num_threads(1)
    store = dist.FileStore(str(folder / "store"), item.processes)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=item.processes)
    gpa, tokens = item.geometry.gpa(), item.tokens()
    if item.processes == 1:
        return {name: seconds(gpa, tokens, backward, rounds) for name, backward in (("forward", False), ("both", True))}
    attention = ContextParallel(gpa)
    own = [attention.shard(x.detach()).requires_grad_() for x in tokens]
    with torch.no_grad():
        expected = attention.shard(gpa(*tokens))
        found: dict[str, Any] = {"apart": float((attention(*own) - expected).abs().max())}
    traffic = attention.traffic
    assert traffic is not None
    found |= {"coarse": traffic.coarse, "blocks": traffic.blocks, "everything": traffic.everything}
    found["rows"] = own[0].shape[2]
    del tokens, expected
    found |= {
        name: seconds(attention, own, backward, rounds) for name, backward in (("forward", False), ("both", True))
    }
    dist.destroy_process_group()
    return found


def seconds(attend: Attend, tokens: list[Tensor], backward: bool, rounds: int) -> float:
    """Processor seconds of a pass, the median; all processes take as many rounds."""
    run, found = passes(attend, tokens, backward=backward), []
    for _ in range(1 + rounds):
        start = time.process_time()
        run()
        found.append(time.process_time() - start)
    return median(found[1:])


def tables(found: Found) -> list[Table]:
    """Bytes, and work."""
    moved = Table(
        "How much comes to a process?",
        ["structure", "coarse keys", "selected blocks", "all keys and values", "a part of"],
        note="Forward. The backward pass sends the gradients of the selected blocks back.",
    )
    work = Table(
        "How much more work is it for all processes together?",
        ["structure", "forward", "with backward"],
        note="Processor time, which counts copies through the system as well.",
    )
    for row in found:
        moved.add(
            row["item"],
            *(mebibytes(row[name]) for name in ("coarse", "blocks", "everything")),
            f"{(row['coarse'] + row['blocks']) / row['everything']:.1%}",
        )
        work.add(row["item"], *(times(row[name] / row[f"{name} of one"]) for name in ("forward", "both")))
    return [moved, work]


if __name__ == "__main__":
    main()
