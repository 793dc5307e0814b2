"""GPA for PyTorch Geometric: a transform that divides each graph once, and layers over batches of graphs."""

from gpa_nd.pyg.gps import PartitionedGPSConv
from gpa_nd.pyg.graph_attention import GraphAttention
from gpa_nd.pyg.graph_layout import graph_layout
from gpa_nd.pyg.transform import AddPartitions

__all__ = ["AddPartitions", "GraphAttention", "PartitionedGPSConv", "graph_layout"]
