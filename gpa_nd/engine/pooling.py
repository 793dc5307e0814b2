"""How each backend takes means."""

from __future__ import annotations

from torch import Tensor

from gpa_nd.engine import blocked
from gpa_nd.engine.choice import Chosen
from gpa_nd.engine.steps import Pool
from gpa_nd.partition import Partition


def pooling(chosen: Chosen) -> Pool:
    """From x (B, H, n, c) and a partition to the means of its cells, differentiable."""
    match chosen:
        case "reference":
            return mean
        case "torch" | "triton":
            return blocked.pool
        case "portable":
            from gpa_nd.engine import portable

            return portable.pool


def mean(x: Tensor, groups: Partition) -> Tensor:
    """:meth:`.Partition.mean`."""
    return groups.mean(x)
