"""A task that hard selection cannot learn: every cell is to find the block that holds what it is asked for."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from gpa_nd import Layout, Partition, gpa_attention

BLOCKS, SIZE = 8, 4


def hard(q: Tensor, k: Tensor, v: Tensor, layout: Layout) -> Tensor:
    """The paper's attention, to one block."""
    return gpa_attention(q, k, v, layout, kappa=1)


def find_the_block(
    attention: Callable[[Tensor, Tensor, Tensor, Layout], Tensor], more: tuple[Tensor, ...] = (), steps: int = 150
) -> tuple[float, float, float]:
    """How far answers are from the wanted ones, as parts of their variance.

    There are as many cells as blocks. Cell l is to answer what block σ(l) holds; a matrix makes its queries. At first
    each asks for block l, and σ(l) is never l. All keys of a block are alike, and all its values.

    Args:
        attention: from q, k, v and layout to answers.
        more: weights of the attention, which are trained as well.
        steps: of training.

    Returns:
        Before training, after it, and after it with hard selection of one block.
    """
    rng = torch.Generator().manual_seed(0)
    each = Partition.from_labels(torch.arange(BLOCKS * SIZE) // SIZE)
    layout = Layout(each, Partition.from_labels(torch.arange(BLOCKS)), each)
    codes = torch.eye(BLOCKS)
    values = torch.randn(BLOCKS, 6, generator=rng)
    wanted = values.roll(3, 0).repeat_interleave(SIZE, 0)
    matrix = (2.0 * codes).requires_grad_()
    x, k, v = (y.repeat_interleave(SIZE, 0)[None, None] for y in (codes, 2 * codes, values))

    def error(attention: Callable[[Tensor, Tensor, Tensor, Layout], Tensor]) -> Tensor:
        return (attention(x @ matrix, k, v, layout) - wanted).square().mean() / wanted.var()

    before = error(attention).item()
    optimizer = torch.optim.Adam([matrix, *more], lr=0.1)
    for _ in range(steps):
        optimizer.zero_grad()
        error(attention).backward()
        optimizer.step()
    return before, error(attention).item(), error(hard).item()
