"""Backend "torch": Algorithm 1 for a block of cells at a time, on every device that PyTorch has.

Neither the n_q' × n_k' affinity nor all gathered keys are ever held at once, and nothing but the arguments is kept for
the backward pass.
"""

from gpa_nd.engine.blocked.attention import attend, attend_with_sums
from gpa_nd.engine.blocked.dense import dense
from gpa_nd.engine.blocked.selection import pool, select_by_members, select_keys

__all__ = ["attend", "attend_with_sums", "dense", "pool", "select_by_members", "select_keys"]
