"""GPA for transformers: an attention implementation by name, and the tokens of its models."""

from gpa_nd.transformers.interface import register
from gpa_nd.transformers.model_tokens import token_attention

__all__ = ["register", "token_attention"]
