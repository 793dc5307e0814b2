"""Selection that learns: coarse keys chosen with weights that have a derivative."""

from gpa_nd.selection.base import Selection
from gpa_nd.selection.perturbed import PerturbedTopK, perturbed_top_k
from gpa_nd.selection.soft import SoftTopK, soft_top_k
from gpa_nd.selection.straight_through import StraightThrough

__all__ = ["PerturbedTopK", "Selection", "SoftTopK", "StraightThrough", "perturbed_top_k", "soft_top_k"]
