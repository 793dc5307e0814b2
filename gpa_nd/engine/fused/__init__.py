"""Backend "triton": Algorithm 1 in fused kernels, on GPUs.

Phase 1 holds neither the n_q' × n_k' affinity nor a table of all sums; Phase 2 reads rows of k and v where they are,
and keeps its arguments, its result and two numbers per query for the backward pass.
"""

from gpa_nd.engine.fused.attention import attend, attend_with_sums
from gpa_nd.engine.fused.selection import select_by_members, select_keys

__all__ = ["attend", "attend_with_sums", "select_by_members", "select_keys"]
