"""One table of geometries, crossed with the backends by every law. To test a geometry of your own, add a row."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

os.environ["GPA_ND_TUNED"] = ""  # what was tuned on this machine is not what is tested
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # before Triton is imported: its kernels then run on the CPU

if "PYTEST_XDIST_WORKER" in os.environ:
    torch.set_num_threads(1)  # the workers share the processors already

from torch.utils._python_dispatch import TorchDispatchMode

from gpa_nd import GPA, Layout
from gpa_nd.engine import Backend
from gpa_nd.ops import GraphDownsampler, GridDownsampler
from gpa_nd.ops.base import IndexUpsampler
from gpa_nd.partition import Partition
from gpa_nd.partitioners import GraphPartitioner, GridPartitioner
from tests.few import few_of_each

BACKENDS: tuple[Backend, ...] = ("reference", "torch")


LONG = ("test_compiling.py", "test_kill.py")
"""Files whose tests take minutes: they begin first, so that no worker is left alone with one in the end."""
FUSED = Path(__file__).with_name("engine") / "fused"
FEW_INTERPRETED = 6


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--nightly", action="store_true", help="as many cases as docs/trust.md says, which takes hours")
    parser.addoption(
        "--few",
        type=int,
        metavar="N",
        help="at most N cases of every test, the same ones each time, and 0 for all; without it all, but "
        f"{FEW_INTERPRETED} of those of the fused kernels where Triton's interpreter runs them and it is not --nightly",
    )


@pytest.fixture(scope="session")
def cases(request: pytest.FixtureRequest) -> Callable[[int, int], int]:
    """``cases(20, 1000)``: how many cases to try, 20 in CI and 1,000 with ``--nightly``."""
    return lambda in_ci, nightly: nightly if request.config.getoption("--nightly") else in_ci


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    few, interpreted = config.getoption("--few"), "TRITON_INTERPRET" in os.environ
    slow = interpreted and not config.getoption("--nightly")

    def at_most(item: pytest.Item) -> int:
        return (FEW_INTERPRETED if slow and FUSED in item.path.parents else 0) if few is None else few

    kept = few_of_each(items, at_most)
    if len(kept) < len(items):
        config.hook.pytest_deselected(items=list(set(items).difference(kept)))
    items[:] = sorted(kept, key=lambda item: item.path.name not in LONG)


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Every test draws the same numbers, whichever tests ran before it."""
    torch.manual_seed(0)


@dataclass(frozen=True)
class Case:
    """A geometry: what makes its GPA, and the shapes of queries and keys."""

    name: str
    make: Callable[..., GPA]
    query_shape: tuple[int, ...]
    key_shape: tuple[int, ...]

    def layout(self) -> Layout:
        return self.make(kappa=1).layout(self.query_shape, self.key_shape)

    def tokens(self, *, batch=2, heads=2, c=8, c_v=5, dtype=torch.float64, seed=0):
        """Random q, k, v (batch, heads, *shape, channels)."""
        rng = torch.Generator().manual_seed(seed)
        shapes = ((*self.query_shape, c), (*self.key_shape, c), (*self.key_shape, c_v))
        return tuple(torch.randn(batch, heads, *shape, generator=rng, dtype=dtype) for shape in shapes)

    def flat_tokens(self, **settings):
        return tuple(x.flatten(2, -2) for x in self.tokens(**settings))


def grid(shape, factor, cells, key_shape=None, key_factor=None) -> Case:
    def make(**settings) -> GPA:
        keys = None if key_factor is None else GridDownsampler(key_factor)
        return GPA(GridPartitioner(cells), GridDownsampler(factor), key_downsampler=keys, **settings)

    key_shape = shape if key_shape is None else key_shape
    name = f"{len(shape)}-D {shape} d={factor} cells={cells}" + ("" if key_shape == shape else f" keys={key_shape}")
    return Case(name, make, shape, key_shape)


def labelled(name, labels, cells) -> Case:
    labels, cells = torch.as_tensor(labels), torch.as_tensor(cells)

    def make(**settings) -> GPA:
        return GPA(GraphPartitioner(cells), GraphDownsampler(labels), **settings)

    return Case(name, make, (len(labels),), (len(labels),))


def coarsened_graph(num_nodes, num_edges, factor, cells, name) -> Case:
    rng = torch.Generator().manual_seed(num_nodes)
    edges = torch.randint(num_nodes, (2, num_edges), generator=rng)

    def make(**settings) -> GPA:
        downsampler = GraphDownsampler.from_edges(edges, num_nodes, factor)
        return GPA(GraphPartitioner.from_edges(edges, downsampler, cells), downsampler, **settings)

    return Case(name, make, (num_nodes,), (num_nodes,))


CASES = [
    grid((24,), (4,), (3,)),
    grid((23,), (4,), (4,)),
    grid((16, 16), (4, 4), (2, 2)),
    grid((13, 18), (4, 3), (3, 2)),
    grid((4, 8, 6), (2, 2, 3), (2, 2, 1)),
    grid((5, 7, 6), (2, 3, 2), (2, 2, 2)),
    grid((4, 4, 2, 4), (2, 2, 1, 2), (2, 1, 2, 1)),
    grid((3, 5, 4, 3), (2, 2, 2, 2), (2, 2, 1, 2)),
    grid((12, 8), 2, 1),  # m = 1: one relevant key set for all queries
    grid((12, 8), (4, 4), (9, 9)),  # more cells than coarse queries: one each
    grid((6, 9), (1, 1), (2, 3)),  # no downsampling
    grid((10, 14), (4, 4), (2, 2), key_shape=(33,), key_factor=(5,)),  # an image looks at audio
    grid((31,), (4,), (3,), key_shape=(3, 6, 5), key_factor=(2, 2, 2)),  # audio looks at video
    labelled("graph, equal groups", [0, 1, 2, 0, 1, 2, 3, 3, 4, 4, 5, 5], [0, 1, 0, 1, 2, 2]),
    labelled("graph, one giant group", [0] * 17 + [1, 2, 2, 3], [1, 0, 0, 0]),
    coarsened_graph(60, 150, factor=4, cells=5, name="graph from edges"),
    coarsened_graph(40, 20, factor=3, cells=4, name="graph of many components"),
]


@pytest.fixture(params=CASES, ids=lambda case: case.name)
def case(request) -> Case:
    return request.param


@pytest.fixture(params=BACKENDS)
def backend(request) -> Backend:
    return request.param


class EveryOther(IndexUpsampler):
    """Half of each group's elements: a sampling that leaves elements out (the paper's remark on line 15)."""

    def __init__(self, downsampler) -> None:
        self.downsampler = downsampler

    def members(self, shape) -> Partition:
        groups = self.downsampler.groups(shape)
        rank = torch.empty_like(groups.order)
        rank[groups.order] = torch.arange(groups.num_elements) - groups.offsets[groups.labels[groups.order]]
        kept = (rank % 2 == 0).nonzero()[:, 0]
        return Partition.from_labels(groups.labels[kept], kept)


@pytest.fixture
def every_other() -> type[EveryOther]:
    return EveryOther


class LargestTensor(TorchDispatchMode):
    """Remembers the largest tensor that any operation returns, within the library's own operators as well."""

    def __init__(self):
        super().__init__()
        self.numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.namespace == "gpa_nd" and not func.name().startswith("gpa_nd::fused"):
            with self:
                return func.redispatch(torch._C.DispatchKeySet(torch._C.DispatchKey.CPU), *args, **(kwargs or {}))
        out = func(*args, **(kwargs or {}))
        for x in out if isinstance(out, tuple | list) else (out,):
            if isinstance(x, torch.Tensor):
                self.numel = max(self.numel, x.numel())
        return out


@pytest.fixture
def largest_tensor() -> type[LargestTensor]:
    return LargestTensor
