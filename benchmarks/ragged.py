"""Structures of different sizes in one call, against a loop over them: ``python -m benchmarks.ragged``.

256 graphs with the layer for PyTorch Geometric, and 256 sequences, float32; every case in a fresh process, in which one
call and the loop take turns. Layouts are made beforehand, and timed on their own: all at once, and one by one. Dense
attention pads all structures to the largest. What the loop answers must be what one call does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.data import Batch, Data
from torch_geometric.utils import to_dense_batch

import gpa_nd
from benchmarks import report
from benchmarks.clock import Run, medians
from benchmarks.contestants import Attend, passes
from benchmarks.fresh import in_fresh_process
from benchmarks.report import Found, Section
from benchmarks.tables import Table, milliseconds, times
from gpa_nd.pyg import AddPartitions, GraphAttention, graph_layout

CHANNELS, HEADS = 64, 4
ONE_CALL, LOOP, DENSE = "one call", "a loop", "dense, padded"


@dataclass(frozen=True)
class Item:
    """Structures of some kind, of random sizes.

    Attributes:
        kind: graphs or sequences.
        count: how many.
        sizes: the least elements and the most.
        giant: elements of one more structure.
        causal: whether sequences are.
    """

    kind: str
    count: int
    sizes: tuple[int, int]
    giant: int = 0
    causal: bool = False

    def __str__(self) -> str:
        name = f"{self.count} {'causal ' * self.causal}{self.kind} of {self.sizes[0]} … {self.sizes[1]:,}"
        return name + f", one of {self.giant:,}" * bool(self.giant)

    def drawn(self) -> list[int]:
        """The number of elements of each."""
        rng = torch.Generator().manual_seed(0)
        least, most = self.sizes
        sizes: list[int] = torch.randint(least, most + 1, (self.count,), generator=rng).tolist()
        return sizes + [self.giant] * bool(self.giant)


@dataclass(frozen=True)
class Ways:
    """What is compared.

    Attributes:
        tokens: what gradients are taken of, the first shaped as the result.
        attend: by the name of the way, what attends to all structures.
        layouts: what makes the layouts, by the same names.
    """

    tokens: list[Tensor]
    attend: dict[str, Attend]
    layouts: dict[str, Run]


def items(quick: bool) -> list[Item]:
    """Graphs and sequences; in one batch of graphs one is far larger than the others."""
    count, graphs, sequences = (8, (5, 20), (8, 64)) if quick else (256, (10, 59), (16, 1536))
    return [
        Item("graphs", count, graphs),
        Item("graphs", count, graphs, giant=60 if quick else 3000),
        Item("sequences", count, sequences),
        Item("sequences", count, sequences, causal=True),
    ]


def main() -> None:
    """The command line."""
    options = report.parser("ragged", __doc__).parse_args()
    section = Section(
        "ragged",
        items(options.quick),
        lambda item: in_fresh_process(measure, item, options.device, options.rounds),
        tables,
    )
    report.run("ragged", [section], options)


def measure(item: Item, device: torch.device, rounds: int) -> dict[str, Any]:
    """Seconds of every way, forward, with backward, and of the layouts, in this process.

    Raises:
        RuntimeError: the loop answers something else than one call.
    """
    ways = {"graphs": of_graphs, "sequences": of_sequences}[item.kind](item, device)
    with torch.no_grad():
        one, other = (ways.attend[name](*ways.tokens) for name in (ONE_CALL, LOOP))
    if not torch.allclose(one, other, atol=1e-4):
        raise RuntimeError(f"{item}: one call and the loop differ by {float((one - other).abs().max()):.1e}")
    forward = {name: passes(attend, ways.tokens, backward=False) for name, attend in ways.attend.items()}
    both = {name: passes(ways.attend[name], ways.tokens, backward=True) for name in (ONE_CALL, LOOP)}
    return {
        "structures": item.count + bool(item.giant),
        "elements": sum(item.drawn()),
        "forward": medians(forward, device, rounds=rounds),
        "both": medians(both, device, rounds=rounds, at_most=4.0),
        "layout": medians(ways.layouts, device, rounds=rounds),
    }


def of_graphs(item: Item, device: torch.device) -> Ways:
    """The PyG layer, with what its weights are in dense attention; groups of 8 nodes, κ = 4."""
    transform = AddPartitions(downsample=8, groups_per_cell=4)
    graphs = [transform(random_graph(n)).to(device) for n in item.drawn()]
    batch = Batch.from_data_list(graphs)
    attention = GraphAttention(CHANNELS, HEADS, kappa=4).to(device)
    dense = nn.MultiheadAttention(CHANNELS, HEADS, batch_first=True, device=device)
    dense.load_state_dict(attention.state_dict())
    layout, layouts = graph_layout(batch), [graph_layout(graph) for graph in graphs]

    def loop(x: Tensor, *parameters: Tensor) -> Tensor:
        return torch.cat([attention(*each) for each in zip(x.split(item.drawn()), layouts, strict=True)])

    def padded(x: Tensor, *parameters: Tensor) -> Tensor:
        rows, there = to_dense_batch(x, batch.batch)
        return dense(rows, rows, rows, key_padding_mask=~there, need_weights=False)[0][there]  # type: ignore[no-any-return]

    return Ways(
        [torch.randn(sum(item.drawn()), CHANNELS, device=device, requires_grad=True), *attention.parameters()],
        {ONE_CALL: lambda x, *parameters: attention(x, layout), LOOP: loop, DENSE: padded},
        {ONE_CALL: lambda: graph_layout(batch), LOOP: lambda: [graph_layout(graph) for graph in graphs]},
    )


def random_graph(nodes: int) -> Data:
    """A random tree and as many edges more, in both directions."""
    rng = torch.Generator().manual_seed(nodes)
    child = torch.arange(1, nodes)
    parent = (torch.rand(nodes - 1, generator=rng) * child).long()
    edges = torch.cat([torch.stack([child, parent]), torch.randint(nodes, (2, nodes), generator=rng)], dim=1)
    return Data(edge_index=torch.cat([edges, edges.flip(0)], dim=1), num_nodes=nodes)


def of_sequences(item: Item, device: torch.device) -> Ways:
    """Heads of 16 channels; groups of 16 elements, 16 cells in each sequence, κ = 8."""
    sizes, c = item.drawn(), CHANNELS // HEADS
    offsets = torch.tensor([0, *sizes]).cumsum(0)

    def make() -> gpa_nd.GPA:
        return gpa_nd.audio(downsample=16, cells=16, kappa=8, causal=item.causal)

    def one_by_one() -> list[gpa_nd.Layout]:
        gpa = make()
        return [gpa.layout((n,), (n,), device) for n in sizes]

    def all_at_once() -> gpa_nd.Layout:
        return make().packed_layout(offsets, device=device)

    layout, layouts = all_at_once(), one_by_one()

    def loop(*tokens: Tensor) -> Tensor:
        each = zip(*(x.split(sizes, dim=2) for x in tokens), layouts, strict=True)
        return torch.cat([gpa_nd.gpa_attention(q, k, v, own, kappa=8) for q, k, v, own in each], dim=2)

    there = torch.arange(max(sizes), device=device) < torch.tensor(sizes, device=device)[:, None]

    def padded(*tokens: Tensor) -> Tensor:
        rows = (nn.utils.rnn.pad_sequence(x[0].transpose(0, 1).split(sizes), batch_first=True) for x in tokens)
        q, k, v = (x.transpose(1, 2).contiguous() for x in rows)
        if item.causal:  # what is padded stands behind everything
            out = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        else:
            out = F.scaled_dot_product_attention(q, k, v, attn_mask=there[:, None, None])
        return out.transpose(1, 2)[there].transpose(0, 1)[None]

    return Ways(
        [torch.randn(1, HEADS, sum(sizes), c, device=device, requires_grad=True) for _ in range(3)],
        {ONE_CALL: lambda q, k, v: gpa_nd.gpa_attention(q, k, v, layout, kappa=8), LOOP: loop, DENSE: padded},
        {ONE_CALL: all_at_once, LOOP: one_by_one},
    )


def tables(found: Found) -> list[Table]:
    """Attention forward and with backward, and the layouts: one call, and how many times as long others take."""
    attention = Table(
        "How long does attention in structures of different sizes take?",
        [
            *("structures", "elements", "forward, one call", "a loop takes", "dense, padded, takes"),
            *("with backward, one call", "a loop takes"),
        ],
        note="Layouts are there already. Dense attention computes the same only where κ takes in everything.",
    )
    layouts = Table("How long do the layouts take?", ["structures", "all at once", "one by one"])
    for row in found:
        forward, both, layout = row["forward"], row["both"], row["layout"]
        attention.add(
            row["item"],
            f"{row['elements']:,}",
            milliseconds(forward[ONE_CALL]),
            times(forward[LOOP] / forward[ONE_CALL]),
            times(forward[DENSE] / forward[ONE_CALL]),
            milliseconds(both[ONE_CALL]),
            times(both[LOOP] / both[ONE_CALL]),
        )
        layouts.add(row["item"], milliseconds(layout[ONE_CALL]), milliseconds(layout[LOOP]))
    return [attention, layouts]


if __name__ == "__main__":
    main()
