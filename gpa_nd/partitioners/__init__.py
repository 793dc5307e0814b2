"""Spatial partitioning and composition: Definitions 3, 4 and 5."""

from gpa_nd.partitioners.base import Partitioner
from gpa_nd.partitioners.graph import GraphPartitioner
from gpa_nd.partitioners.grid import GridPartitioner

__all__ = ["GraphPartitioner", "GridPartitioner", "Partitioner"]
