"""
Batches of graphs
=================

Graphs of different sizes go through attention in one call, with :mod:`gpa_nd.pyg` for PyTorch Geometric. Here they are
made up so that messages along edges cannot do the task: what a node needs to know stands at the other end of its graph.
"""

import time

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from torch import Tensor, nn
from torch_geometric.data import Batch, Data
from torch_geometric.nn import GCNConv

from gpa_nd.pyg import AddPartitions, PartitionedGPSConv, graph_layout

torch.manual_seed(0)
COLOURS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7"]
CODES = 6

# %%
# Districts that are asked, and districts that know
# -------------------------------------------------
#
# A graph is a winding road through 4 to 12 districts of 5 to 14 nodes. Half of the districts know a colour. Each of
# them has a partner somewhere on the road that bears the same code, and is asked for that colour.


def winding_road(generator: torch.Generator) -> Data:
    """One graph: x holds the code of a node, whether it is asked, and, if it is not, its colour."""

    def draw(low: int, high: int) -> int:
        return int(torch.randint(low, high, (), generator=generator))

    pairs = draw(2, CODES + 1)
    codes = torch.randperm(CODES, generator=generator)[:pairs].repeat(2)
    colours = torch.randint(len(COLOURS), (pairs,), generator=generator).repeat(2)
    asked = torch.arange(2 * pairs) >= pairs
    order = torch.randperm(2 * pairs, generator=generator)
    positions, edges, district = [], [], []
    for place in range(2 * pairs):
        size, first = draw(5, 15), len(district)
        centre = torch.tensor([place % 4 if place // 4 % 2 == 0 else 3 - place % 4, -(place // 4)])
        positions.append(centre + 0.32 * (torch.rand(size, 2, generator=generator) * 2 - 1))
        near = torch.cdist(positions[-1], positions[-1]).fill_diagonal_(9).topk(2, largest=False).indices
        edges += [(first + i, first + int(j)) for i in range(size) for j in near[i]]
        edges += [(first + i, first + i + 1) for i in range(size - 1)] + [(first - 1, first)] * (place > 0)
        district += [int(order[place])] * size
    label = torch.tensor(district)
    colour = F.one_hot(colours[label], len(COLOURS)) * ~asked[label, None]
    x = torch.cat([F.one_hot(codes[label], CODES), asked[label, None], colour], dim=1).float()
    edge_index = torch.tensor(edges).T
    edge_index = torch.cat([edge_index, edge_index.flip(0)], dim=1)
    return Data(x=x, edge_index=edge_index, pos=torch.cat(positions), y=colours[label], asked=asked[label])


# %%
# A transform divides each graph once
# -----------------------------------
#
# Groups of up to four nodes, cells of about two groups. Every batch of such graphs carries them on.

transform = AddPartitions(downsample=4, groups_per_cell=2)
generator = torch.Generator().manual_seed(0)
graphs = [transform(winding_road(generator)) for _ in range(96)]
train, test = graphs[:80], Batch.from_data_list(graphs[80:])
sizes = [graph.num_nodes for graph in graphs]
print(f"{len(graphs)} graphs of {min(sizes)} to {max(sizes)} nodes")
print(test)
print(graph_layout(test))

# %%
# GPS with and without attention
# ------------------------------
#
# The layout is made once for each batch, by tensor operations; every layer takes it. Without attention, a layer is left
# with the messages of its neighbours.


class Roads(nn.Module):
    """Two layers between two projections."""

    def __init__(self, channels: int, attention: bool) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(CODES + 1 + len(COLOURS), channels), nn.Linear(channels, len(COLOURS))
        self.layers = nn.ModuleList(
            PartitionedGPSConv(channels, GCNConv(channels, channels), heads=2, kappa=3) if attention
            else GCNConv(channels, channels)
            for _ in range(2)
        )  # fmt: skip

    def forward(self, batch: Batch) -> Tensor:
        """A score for each colour at every node."""
        x, layout = self.first(batch.x), graph_layout(batch)
        for layer in self.layers:
            if isinstance(layer, PartitionedGPSConv):
                x = layer(x, batch.edge_index, batch.batch, layout=layout)
            else:
                x = x + layer(x, batch.edge_index).relu()
        return self.last(x)


def right(model: nn.Module, batch: Batch) -> float:
    """The share of the nodes that are asked whose answer is right."""
    with torch.no_grad():
        answers = model.eval()(batch).argmax(1)
    return float((answers == batch.y)[batch.asked].float().mean())


models = {"messages alone": Roads(32, attention=False), "with GPA": Roads(32, attention=True)}
curves: dict[str, list[float]] = {}
for name, model in models.items():
    started, optimizer, curves[name] = time.perf_counter(), torch.optim.Adam(model.parameters(), lr=0.01), []
    for step in range(120):
        some = torch.randperm(len(train), generator=generator)[:16].tolist()
        batch = Batch.from_data_list([train[i] for i in some])
        loss = F.cross_entropy(model.train()(batch)[batch.asked], batch.y[batch.asked])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 10 == 9:
            curves[name].append(right(model, test))
    print(f"{name}: {curves[name][-1]:.0%} right, {time.perf_counter() - started:.0f} s")

# %%
# What they answer
# ----------------
#
# A graph that neither has seen; letters are codes. Grey nodes are asked; one colour in four is right by chance.


def draw_graph(axis: Axes, graph: Data, colour: list[str], title: str) -> None:
    """Nodes in their colours, the edges between them, and the code of each district."""
    axis.add_collection(
        LineCollection(graph.pos[graph.edge_index.T].tolist(), colors="#bbbbbb", linewidths=0.6, zorder=0)
    )
    axis.scatter(*graph.pos.T.tolist(), c=colour, s=22)
    for centre in graph.pos.round().unique(dim=0):
        node = int((graph.pos - centre).norm(dim=1).argmin())
        axis.text(*(centre - 0.45).tolist(), "ABCDEF"[int(graph.x[node, :CODES].argmax())], weight="bold")
    axis.set(title=title, xticks=[], yticks=[], aspect="equal")
    axis.spines[:].set_visible(False)


graph = max(test.to_data_list(), key=lambda graph: graph.num_nodes)
known = ["#c8c8c8" if asked else COLOURS[y] for y, asked in zip(graph.y.tolist(), graph.asked.tolist(), strict=True)]
figure, axes = plt.subplots(2, 2, figsize=(10, 7.6), layout="constrained")
draw_graph(axes[0, 0], graph, known, "what is known")
for axis, (name, model) in zip(axes.flat[1:], models.items(), strict=False):
    with torch.no_grad():
        answers = model.eval()(Batch.from_data_list([graph])).argmax(1)
    answers = torch.where(graph.asked, answers, graph.y)
    share = float((answers == graph.y)[graph.asked].float().mean())
    draw_graph(axis, graph, [COLOURS[y] for y in answers.tolist()], f"{name}: {share:.0%} of the grey nodes right")
for name, curve in curves.items():
    axes[1, 1].plot(range(10, 121, 10), curve, marker="o", label=name)
axes[1, 1].axhline(1 / len(COLOURS), color="#999999", linestyle=":", label="by chance")
axes[1, 1].set(title="grey nodes in 16 unseen graphs", xlabel="training step", ylabel="share right", ylim=(0, 1.02))
axes[1, 1].legend(loc="center right")
plt.show()
