"""What the attention of a level costs: multiply-adds, and memory at the peak of forward and backward.

Symbols: n pixels of the level, c channels of queries and keys, c_v of values, w the larger of the two; d and kappa as
in the paper's section 2.2; r a rank. The 1x1 projections before the attention are not counted.
"""

import math

from examples.pose_morph.networks.low_rank import landmarks_of
from examples.pose_morph.networks.settings import Attention, Full, Grid, Nystromformer, Performer

PSEUDO_INVERSE_PRODUCTS = 24
"""Products of r x r matrices in Nyströmformer's pseudo-inverse: six iterations of four."""

FUSED_WORKSPACE = 2**18
"""Numbers that PyTorch's fused attention keeps for each thread."""


def multiply_adds(kind: Attention, size: tuple[int, int], channels: int, value_channels: int) -> int:
    """Count the multiply-adds of one forward pass over one picture.

    Full attention takes n² (c + c_v). GPA takes (n/d²)² c in Phase 1, the O(n²) of section 2.2 at the coarse size, and
    n kappa d² (c + c_v) in Phase 2. Performer takes 2 n r (c + c_v). Nyströmformer, whose package wants c = c_v = w,
    takes 4 n r w + n r² + r² w + 24 r³.
    """
    n, c, c_v = math.prod(size), channels, value_channels
    match kind:
        case None:
            return 0
        case Full():
            return n * n * (c + c_v)
        case Grid(d, _, kappa):
            return (n // d**2) ** 2 * c + n * kappa * d**2 * (c + c_v)
        case Performer(r):
            return 2 * n * r * (c + c_v)
        case Nystromformer(rank):
            r, w = landmarks_of(rank, n), max(c, c_v)
            return 4 * n * r * w + n * r**2 + r**2 * w + PSEUDO_INVERSE_PRODUCTS * r**3


def peak_bytes(
    kind: Attention, size: tuple[int, int], channels: int, value_channels: int, *, batch_size: int, cosine: bool
) -> int:
    """Expect the float32 bytes that PyTorch's allocator holds at the peak of forward and backward.

    Counted as the paper does (``torch.cuda.max_memory_allocated``), beyond what is there before: the output, the
    gradients of q, k and v, and whatever is kept or needed between. Each factor is a number of arrays of its shape,
    fitted to the allocator's record on a CPU, to which test_attention_cost.py holds them. Full attention is linear in n
    because PyTorch's fused kernels never store the n x n affinities, as the paper had to. On a CPU a process takes up
    to twice as much from the system.
    """
    n, c, c_v = math.prod(size), channels, value_channels
    w = max(c, c_v)
    match kind:
        case None:
            return 0
        case Full():
            each = (8 if c > c_v else 7) * n * w + (n * c if cosine else 0)
            together = FUSED_WORKSPACE
        case Grid():
            each = 2 * n * (c + c_v) + n * w + (4 * n * c if cosine else 0)
            together = 0
        case Performer(r):
            each = 6 * n * r + 2 * n * (c + c_v) + (n * c if cosine else 0)
            together = 0
        case Nystromformer(rank):
            r = landmarks_of(rank, n)
            filled = 4 * n * w + n * r // 2 if n % r else 0  # the last landmark is filled with masked pixels
            each = 3 * n * r + 40 * r**2 + 6 * n * w + filled + (3 * n * c if cosine else 0)
            together = 2 * n * r  # one picture after the other
    return 4 * (batch_size * each + together)
