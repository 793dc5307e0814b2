"""GraphAttention: multi-head GPA over the nodes of a graph, or of many in one call."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch_geometric.data import Data

from gpa_nd.checks import check_int, check_tensor
from gpa_nd.engine import Affinity, Backend, gpa_attention
from gpa_nd.engine.arguments import check_choices
from gpa_nd.layout import Layout
from gpa_nd.pyg.graph_layout import graph_layout


class GraphAttention(nn.Module):
    """Every node attends to the nodes of its own graph in the groups that are relevant to its cell.

    Weights have the names, shapes and start of :class:`torch.nn.MultiheadAttention`, whose answer it gives where kappa
    takes in all groups of a graph; a state dict of one fits the other.

    Args:
        channels: of the nodes, in and out.
        heads: attention heads.
        kappa: relevant groups of each cell; a tuple has a number for each level, finest first.
        bias: whether the projections have one.
        scale: factor of the affinity; 1/√(channels / heads) by default.
        affinity: ``"dot"`` or ``"euclidean"``, as in :class:`~gpa_nd.GPA`.
        backend: ``"reference"``, ``"torch"``, ``"triton"``, or ``"auto"``, the fastest that can run.

    Raises:
        TypeError: a number of another type.
        ValueError: a number below 1, channels that heads do not divide, a scale that is not finite, an unknown
            affinity or backend.

    Example:
        >>> import torch
        >>> from torch_geometric.data import Batch, Data
        >>> from gpa_nd.pyg import AddPartitions, GraphAttention, graph_layout
        >>> ring = torch.stack([torch.arange(12), (torch.arange(12) + 1) % 12])
        >>> graph = AddPartitions(downsample=2)(Data(x=torch.randn(12, 16), edge_index=ring))
        >>> batch = Batch.from_data_list([graph] * 3)
        >>> GraphAttention(16, heads=2, kappa=2)(batch.x, graph_layout(batch)).shape
        torch.Size([36, 16])
    """

    def __init__(
        self,
        channels: int,
        heads: int = 1,
        kappa: int | tuple[int, ...] = 8,
        *,
        bias: bool = True,
        scale: float | None = None,
        affinity: Affinity = "dot",
        backend: Backend = "auto",
    ) -> None:
        super().__init__()
        numbers = kappa if isinstance(kappa, tuple) else (kappa,)
        for name, number in (("channels", channels), ("heads", heads), *(("kappa", number) for number in numbers)):
            check_int(name, number, at_least=1)
        if channels % heads:
            raise ValueError(f"channels: expected a multiple of heads = {heads}, got {channels}")
        check_choices(scale, affinity, backend)
        self.channels, self.heads, self.kappa = channels, heads, kappa
        self.scale, self.affinity, self.backend = scale, affinity, backend
        self.in_proj_weight = nn.Parameter(torch.empty(3 * channels, channels))
        self.in_proj_bias = nn.Parameter(torch.empty(3 * channels)) if bias else None
        self.out_proj = nn.Linear(channels, channels, bias=bias)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weights anew, as multi-head attention does."""
        nn.init.xavier_uniform_(self.in_proj_weight)
        self.out_proj.reset_parameters()
        for bias in (self.in_proj_bias, self.out_proj.bias):
            if bias is not None:
                nn.init.zeros_(bias)

    _reset_parameters = reset_parameters  # the name by which GPSConv knows it

    def forward(self, x: Float[Tensor, "n channels"], layout: Layout | Data) -> Float[Tensor, "n channels"]:
        """Attend within each graph.

        Args:
            x: (n, channels) the nodes of all graphs.
            layout: what :func:`graph_layout` makes of the graph or batch; given the ``Data`` or ``Batch`` itself, this
                call makes it.

        Raises:
            TypeError: ``x`` is no tensor, or ``layout`` neither a layout nor a ``Data``.
            ValueError: ``x`` of another shape, another number of levels than kappa has, or what :func:`graph_layout`
                raises.
        """
        check_tensor("x", x)
        if not isinstance(layout, Layout | Data):
            raise TypeError(
                f"layout: expected a Layout, as gpa_nd.pyg.graph_layout makes it, or a torch_geometric Data or Batch, "
                f"got {type(layout).__name__}"
            )
        layout = layout if isinstance(layout, Layout) else graph_layout(layout)
        n = layout.query_groups.num_elements
        if x.shape != (n, self.channels):
            raise ValueError(f"x: expected shape ({n}, {self.channels}), nodes and channels, got {tuple(x.shape)}")
        if isinstance(self.kappa, tuple) and len(self.kappa) != layout.levels:
            raise ValueError(f"kappa: expected one number for each of {layout.levels} levels, got {self.kappa}")
        qkv = F.linear(x, self.in_proj_weight, self.in_proj_bias)
        q, k, v = qkv.view(n, 3, 1, self.heads, self.channels // self.heads).permute(
            1, 2, 3, 0, 4
        )  # (1, heads, n, channels / heads) each
        out = gpa_attention(
            q,
            k,
            v,
            layout,
            kappa=self.kappa,
            scale=self.scale,
            affinity=self.affinity,
            backend=self.backend,
        )
        attended: Tensor = self.out_proj(out[0].transpose(0, 1).flatten(1))
        return attended

    def extra_repr(self) -> str:
        """What the module was made with."""
        return f"{self.channels}, heads={self.heads}, kappa={self.kappa}, backend={self.backend!r}"
