"""Coarse keys that are always on: each cell attends to them beside those that it selects."""

from gpa_nd.always.base import AlwaysOn
from gpa_nd.always.elements import GlobalElements
from gpa_nd.always.graph import GraphNeighbourhood
from gpa_nd.always.grid import GridNeighbourhood

__all__ = ["AlwaysOn", "GlobalElements", "GraphNeighbourhood", "GridNeighbourhood"]
