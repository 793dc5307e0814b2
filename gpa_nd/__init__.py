"""Grid Partitioned Attention for any structure: audio, images, video, graphs, and attention between them."""

from gpa_nd.causal import causal
from gpa_nd.domains import audio, graph, image, video
from gpa_nd.engine import attend, gpa_attention, select_keys
from gpa_nd.engine.coarse import coarse_attention
from gpa_nd.global_keys import with_global_keys
from gpa_nd.layout import Layout
from gpa_nd.nn.gpa import GPA
from gpa_nd.partition import Partition

__version__ = "0.1.0"

__all__ = [
    "GPA",
    "Layout",
    "Partition",
    "attend",
    "audio",
    "causal",
    "coarse_attention",
    "gpa_attention",
    "graph",
    "image",
    "select_keys",
    "video",
    "with_global_keys",
]
