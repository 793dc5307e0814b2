"""The table of costs on the page of that name: counted by ``gpa_nd.diagnostics.cost`` whenever the docs are built.

A directive for Sphinx, ``{cost-table}``. Constructors stand here as they stand in the table, so that what is shown is
what was counted.
"""

from __future__ import annotations

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
ROWS = (  # what it is, the axes of q, those of k and v, and what makes the attention
    ("audio", (16_000,), (16_000,), "gpa_nd.audio(16, 64, 8)"),
    ("causal audio", (16_000,), (16_000,), "gpa_nd.audio(16, 64, 8, causal=True)"),
    ("audio on two levels", (480_000,), (480_000,), "gpa_nd.audio(16, 2048, (8, 8))"),
    ("image", (64, 64), (64, 64), "gpa_nd.image(4, 8, 12)"),
    ("image", (256, 256), (256, 256), "gpa_nd.image(4, 32, 12)"),
    ("image, reranked", (256, 256), (256, 256), 'gpa_nd.image(4, 32, 12, ranking="rerank")'),
    ("image", (512, 512), (512, 512), "gpa_nd.image(8, 32, 12)"),
    ("image on two levels", (1024, 1024), (1024, 1024), "gpa_nd.image(4, 128, (12, 12))"),
    ("video", (16, 64, 64), (16, 64, 64), "gpa_nd.video((2, 4, 4), (8, 16, 16), 32)"),
    ("video on two levels", (32, 128, 128), (32, 128, 128), "gpa_nd.video((2, 4, 4), (16, 32, 32), (32, 16))"),
    ("nodes of a graph", (50_000,), (50_000,), "gpa_nd.graph(edge_index, 50_000, 16, 256, 8)"),
    (
        "image looks at audio",
        (64, 64),
        (16_000,),
        "GPA(GridPartitioner(16), GridDownsampler(4), key_downsampler=GridDownsampler(16), kappa=8)",
    ),
)
COLUMNS = ("data", "constructor", "keys of a query", "multiply-adds", "dense ÷ these", "memory", "with gradients")


def markdown() -> str:
    """The whole table."""
    lines = ["| " + " | ".join(COLUMNS) + " |", "|---|---" + "|---:" * (len(COLUMNS) - 2) + "|"]
    names = {"gpa_nd": gpa_nd, "GPA": GPA, "GridDownsampler": GridDownsampler, "GridPartitioner": GridPartitioner}
    names["edge_index"] = grid(200, 250)[0]  # each node is joined to its eight neighbours
    for name, queries, keys, code in ROWS:
        gpa = eval(code, dict(names))
        forward, training = (cost(gpa, queries, keys, channels=CHANNELS, backward=back) for back in (False, True))
        data = f"{name} {size(queries)}" + (f" ← {size(keys)}" if keys != queries else "")
        figures = (
            f"{forward.keys_per_query:,.0f}",
            short(forward.total.multiply_adds),
            f"{forward.dense.multiply_adds / forward.total.multiply_adds:,.0f}",
            mebibytes(forward.torch_bytes),
            mebibytes(training.torch_bytes),
        )
        lines.append(f"| {data} | `{code}` | " + " | ".join(map(unbroken, figures)) + " |")
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
