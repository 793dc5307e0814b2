"""GPA against dense attention over all tokens, in one run: ``python -m benchmarks.attention``.

Every row times one forward pass of a ready GPA, both phases and all rearranging counted, and one forward pass of
``torch.nn.functional.scaled_dot_product_attention`` over the same tokens, turn by turn on the same machine. Machines
are noisy, so that only the ratio means anything. Dense attention is left out above ``--dense-limit`` tokens, where it
takes minutes.

GPA is many short parallel steps. Beside other busy processes, OpenMP's threads wait for one another far longer than
they work, unless ``OMP_WAIT_POLICY=passive`` or ``OMP_NUM_THREADS=1`` is set: measure on an idle machine.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F

import gpa_nd


@dataclass(frozen=True)
class Row:
    """One geometry to be measured."""

    name: str
    gpa: gpa_nd.GPA
    shape: tuple[int, ...]
    channels: int = 64

    @property
    def tokens(self) -> int:
        """How many elements attend to each other."""
        return torch.Size(self.shape).numel()


def rows() -> list[Row]:
    """The geometries, the paper's pivot at 256 × 256 first."""
    return [
        Row("image 256×256, m=32×32, d=4, κ=12", gpa_nd.image(4, (32, 32), 12), (256, 256)),
        Row("image 128×128, m=32×32, d=2, κ=12", gpa_nd.image(2, (32, 32), 12), (128, 128)),
        Row("audio 65,536, m=64, d=16, κ=8", gpa_nd.audio(16, 64, 8), (65536,)),
        Row("video 16×48×80, m=8×16×16, d=2×4×4, κ=32", gpa_nd.video(kappa=32), (16, 48, 80)),
        Row("graph 65,536 nodes of a grid, d=16, m=256, κ=8", grid_graph(256), (65536,)),
    ]


def grid_graph(size: int) -> gpa_nd.GPA:
    """GPA over the nodes of a square grid graph, coarsened by its edges."""
    node = torch.arange(size * size).view(size, size)
    across = torch.stack([node[:, :-1].flatten(), node[:, 1:].flatten()])
    down = torch.stack([node[:-1].flatten(), node[1:].flatten()])
    return gpa_nd.graph(torch.cat([across, down], dim=1), size * size)


def seconds(run: Callable[[], object], device: torch.device) -> float:
    """How long one run takes."""
    start = time.perf_counter()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def measure(row: Row, device: torch.device, dense_limit: int, rounds: int) -> str:
    """One line of the table: medians over rounds, in each of which GPA and dense attention take turns."""
    q, k, v = torch.randn(3, 1, 1, *row.shape, row.channels, device=device)
    flat = [x.flatten(2, -2) for x in (q, k, v)]
    row.gpa(q, k, v)  # makes the layout
    sparse, dense = [], []
    for _ in range(rounds):
        sparse.append(seconds(lambda: row.gpa(q, k, v), device))
        if row.tokens <= dense_limit:
            dense.append(seconds(lambda: F.scaled_dot_product_attention(*flat), device))
    line = f"{row.name:<50} {row.tokens:>8,} {statistics.median(sparse) * 1e3:>10.1f} ms"
    if not dense:
        return f"{line} {'–':>13} {'–':>7}"
    ratio = statistics.median(dense) / statistics.median(sparse)
    return f"{line} {statistics.median(dense) * 1e3:>10.1f} ms {ratio:>6.0f}×"


@torch.no_grad()
def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", help="where to measure (default: cpu)")
    parser.add_argument("--dense-limit", type=int, default=70_000, help="most tokens for dense attention")
    parser.add_argument(
        "--rounds", type=int, default=5, help="how often GPA and dense attention take turns (default: 5)"
    )
    parser.add_argument("--only", default="", help="measure only the rows whose name contains this")
    options = parser.parse_args()
    device = torch.device(options.device)
    print(
        f"torch {torch.__version__}, {device}, {torch.get_num_threads()} threads, float32, forward, batch 1, one head"
    )
    print(f"{'':<50} {'tokens':>8} {'GPA':>13} {'dense':>13} {'ratio':>7}")
    for row in rows():
        if options.only in row.name:
            print(measure(row, device, options.dense_limit, options.rounds), flush=True)


if __name__ == "__main__":
    main()
