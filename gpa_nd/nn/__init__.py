"""torch.nn modules around the engine."""

from gpa_nd.nn.aspect_grid import AspectGrid
from gpa_nd.nn.copy_attention import CopyAttention
from gpa_nd.nn.gated import GatedCoarse
from gpa_nd.nn.gpa import GPA
from gpa_nd.nn.tokens import TokenAttention

__all__ = ["GPA", "AspectGrid", "CopyAttention", "GatedCoarse", "TokenAttention"]
