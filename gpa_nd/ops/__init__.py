"""The operators of Definitions 1 and 2: downsampling, and upsampling of indices."""

from gpa_nd.ops.base import Downsampler, IndexUpsampler
from gpa_nd.ops.graph import GraphDownsampler, GraphIndexUpsampler
from gpa_nd.ops.grid import GridDownsampler, GridIndexUpsampler

__all__ = [
    "Downsampler",
    "GraphDownsampler",
    "GraphIndexUpsampler",
    "GridDownsampler",
    "GridIndexUpsampler",
    "IndexUpsampler",
]
