"""PartitionedGPSConv: GPS with GPA for its global attention."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch_geometric.data import Data
from torch_geometric.nn import GPSConv, MessagePassing

from gpa_nd.checks import check_tensor
from gpa_nd.engine import Affinity, Backend
from gpa_nd.layout import Layout
from gpa_nd.pyg.attached import check_batch
from gpa_nd.pyg.graph_attention import GraphAttention


class PartitionedGPSConv(GPSConv):  # type: ignore[misc]
    """A GPS layer whose global attention is :class:`GraphAttention`: no padding, and cost that grows with κ.

    Where a model has ``GPSConv(channels, conv, heads=4)``, write ``PartitionedGPSConv(channels, conv, heads=4,
    kappa=8)``; where it calls ``gps(x, edge_index, batch)``, call ``gps(x, edge_index, batch, layout=layout)``, with
    ``layout = graph_layout(data)`` once for each batch: ``layout`` is required, and ``batch`` is for norms alone. A
    state dict of a GPSConv with multi-head attention fits.

    Of GPSConv's arguments ``attn_type`` and ``attn_kwargs`` are gone, since the attention is always this one, which
    drops out no weights; those after ``heads`` are given by name.

    Args:
        channels: of the nodes, in and out.
        conv: local message passing, or None.
        heads: attention heads.
        kappa: relevant groups of each cell; a tuple has a number for each level, finest first.
        dropout: of the intermediate features.
        act: activation between, by PyG's name or as a module.
        act_kwargs: its arguments.
        norm: normalization, by PyG's name or as a module, or None.
        norm_kwargs: its arguments.
        affinity: ``"dot"`` or ``"euclidean"``, as in :class:`~gpa_nd.GPA`.
        backend: ``"reference"``, ``"torch"``, ``"triton"``, or ``"auto"``, the fastest that can run.

    Raises:
        TypeError: as :class:`GraphAttention`.
        ValueError: as :class:`GraphAttention`.

    Example:
        >>> import torch
        >>> from torch_geometric.data import Batch, Data
        >>> from torch_geometric.nn import GCNConv
        >>> from gpa_nd.pyg import AddPartitions, PartitionedGPSConv, graph_layout
        >>> ring = torch.stack([torch.arange(12), (torch.arange(12) + 1) % 12])
        >>> graph = AddPartitions(downsample=2)(Data(x=torch.randn(12, 16), edge_index=ring))
        >>> batch = Batch.from_data_list([graph] * 3)
        >>> gps = PartitionedGPSConv(16, GCNConv(16, 16), heads=2, kappa=2)
        >>> gps(batch.x, batch.edge_index, batch.batch, layout=graph_layout(batch)).shape
        torch.Size([36, 16])
    """

    def __init__(
        self,
        channels: int,
        conv: MessagePassing | None,
        heads: int = 1,
        *,
        kappa: int | tuple[int, ...] = 8,
        dropout: float = 0.0,
        act: str = "relu",
        act_kwargs: dict[str, Any] | None = None,
        norm: str | None = "batch_norm",
        norm_kwargs: dict[str, Any] | None = None,
        affinity: Affinity = "dot",
        backend: Backend = "auto",
    ) -> None:
        attention = GraphAttention(channels, heads, kappa, affinity=affinity, backend=backend)
        super().__init__(channels, conv, heads, dropout, act, act_kwargs, norm, norm_kwargs)
        self.attn, self.attn_type = attention, "gpa"

    def forward(
        self,
        x: Float[Tensor, "n channels"],
        edge_index: Int[Tensor, "2 e"],
        batch: Int[Tensor, " n"] | None = None,
        *,
        layout: Layout | Data,
        **kwargs: Any,
    ) -> Float[Tensor, "n channels"]:
        """Local messages and global attention, side by side, and a perceptron after their sum.

        Args:
            x: (n, channels) the nodes of all graphs.
            edge_index: (2, e), or whatever ``conv`` takes for it.
            batch: (n,) the graph of each node, for a normalization that asks for it.
            layout: as :class:`GraphAttention` takes it; required.
            **kwargs: passed on to ``conv``, such as ``edge_attr``.

        Raises:
            TypeError: as :class:`GraphAttention`, or a ``batch`` that is no integer tensor.
            ValueError: as :class:`GraphAttention`, or a ``batch`` that is not a number for each node.
        """
        check_tensor("x", x)
        if batch is not None:
            check_batch(batch, len(x))
        out = self._joined(self.norm2, x, self.attn(x, layout), batch)
        if self.conv is not None:
            out = self._joined(self.norm1, x, self.conv(x, edge_index, **kwargs), batch) + out
        return self._normed(self.norm3, out + self.mlp(out), batch)

    def _joined(self, norm: nn.Module | None, x: Tensor, new: Tensor, batch: Tensor | None) -> Tensor:
        return self._normed(norm, x + F.dropout(new, self.dropout, self.training), batch)

    def _normed(self, norm: nn.Module | None, x: Tensor, batch: Tensor | None) -> Tensor:
        if norm is None:
            return x
        normed: Tensor = norm(x, batch=batch) if self.norm_with_batch else norm(x)
        return normed
