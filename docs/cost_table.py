"""The table of costs on the page of that name: counted by ``gpa_nd.diagnostics.cost`` whenever the docs are built.

A directive for Sphinx, ``{cost-table}``. Constructors stand here as they stand in the table, so that what is shown is
what was counted.
"""

from __future__ import annotations

import ast
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from docutils.nodes import Node
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective
from torch_geometric.utils import grid

import gpa_nd
from gpa_nd import GPA
from gpa_nd.diagnostics import cost
from gpa_nd.diagnostics.cost import mebibytes, short
from gpa_nd.ops import GridDownsampler
from gpa_nd.partitioners import GridPartitioner

CHANNELS = 64
NODES = 50_000
EDGES = grid(200, 250)[0]  # each node is joined to its eight neighbours


@dataclass(frozen=True)
class Row:
    """What it is, the axes of q, those of k and v, and what makes the attention: its line stands in the table."""

    name: str
    queries: tuple[int, ...]
    keys: tuple[int, ...]
    make: Callable[[], GPA]

    @property
    def constructor(self) -> str:
        """The code of ``make``."""
        (call,) = (
            node.body
            for node in ast.walk(ast.parse(SOURCE))
            if isinstance(node, ast.Lambda) and node.lineno == self.make.__code__.co_firstlineno
        )
        return (ast.get_source_segment(SOURCE, call) or "").replace("EDGES, NODES", "edge_index, num_nodes")


SOURCE = Path(__file__).read_text(encoding="utf-8")
ROWS = (
    Row("audio", (16_000,), (16_000,), lambda: gpa_nd.audio(16, 64, 8)),
    Row("causal audio", (16_000,), (16_000,), lambda: gpa_nd.audio(16, 64, 8, causal=True)),
    Row("audio on two levels", (480_000,), (480_000,), lambda: gpa_nd.audio(16, 2048, (8, 8))),
    Row("image", (64, 64), (64, 64), lambda: gpa_nd.image(4, 8, 12)),
    Row("image", (256, 256), (256, 256), lambda: gpa_nd.image(4, 32, 12)),
    Row("image, reranked", (256, 256), (256, 256), lambda: gpa_nd.image(4, 32, 12, ranking="rerank")),
    Row("image", (512, 512), (512, 512), lambda: gpa_nd.image(8, 32, 12)),
    Row("image on two levels", (1024, 1024), (1024, 1024), lambda: gpa_nd.image(4, 128, (12, 12))),
    Row("video", (16, 64, 64), (16, 64, 64), lambda: gpa_nd.video((2, 4, 4), (8, 16, 16), 32)),
    Row(
        "causal video",
        (16, 64, 64),
        (16, 64, 64),
        lambda: gpa_nd.video((1, 4, 4), (16, 16, 16), 32, causal=(True, False, False)),
    ),
    Row("video on two levels", (32, 128, 128), (32, 128, 128), lambda: gpa_nd.video((2, 4, 4), (16, 32, 32), (32, 16))),
    Row("nodes of a graph", (NODES,), (NODES,), lambda: gpa_nd.graph(EDGES, NODES, 16, 256, 8)),
    Row(
        "image looks at audio",
        (64, 64),
        (16_000,),
        lambda: GPA(GridPartitioner(16), GridDownsampler(4), key_downsampler=GridDownsampler(16), kappa=8),
    ),
)
COLUMNS = ("data", "constructor", "keys of a query", "multiply-adds", "dense ÷ these", "memory", "with gradients")


def markdown() -> str:
    """The whole table."""
    lines = ["| " + " | ".join(COLUMNS) + " |", "|---|---" + "|---:" * (len(COLUMNS) - 2) + "|"]
    for row in ROWS:
        gpa = row.make()
        forward, training = (
            cost(gpa, row.queries, row.keys, channels=CHANNELS, backward=back) for back in (False, True)
        )
        data = f"{row.name} {size(row.queries)}" + (f" ← {size(row.keys)}" if row.keys != row.queries else "")
        figures = (
            f"{forward.keys_per_query:,.0f}",
            short(forward.total.multiply_adds),
            f"{forward.dense.multiply_adds / forward.total.multiply_adds:,.0f}",
            mebibytes(forward.torch_bytes),
            mebibytes(training.torch_bytes),
        )
        lines.append(f"| {data} | `{row.constructor}` | " + " | ".join(map(unbroken, figures)) + " |")
    return "\n".join(lines)


def size(shape: tuple[int, ...]) -> str:
    """As one says it: 16,000 or 64×64."""
    return "×".join(f"{length:,}" for length in shape)


def unbroken(figure: str) -> str:
    """A number and its unit on one line."""
    return figure.replace(" ", "\N{NO-BREAK SPACE}")


class CostTable(SphinxDirective):
    """``{cost-table}`` without arguments."""

    def run(self) -> list[Node]:
        """The table, counted now."""
        return self.parse_text_to_nodes(markdown())


def setup(app: Sphinx) -> dict[str, bool]:
    """Add the directive."""
    app.add_directive("cost-table", CostTable)
    return {"parallel_read_safe": True}
