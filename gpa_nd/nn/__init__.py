"""torch.nn modules around the engine."""

from gpa_nd.nn.copy_attention import CopyAttention
from gpa_nd.nn.gated import GatedCoarse
from gpa_nd.nn.gpa import GPA

__all__ = ["GPA", "CopyAttention", "GatedCoarse"]
