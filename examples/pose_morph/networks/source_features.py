"""What the target UNet sees of a source: its style, and what each level of the source's decoder offers to copy."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor


class SourceFeatures(NamedTuple):
    """One source picture and pose, read once for any number of target poses.

    Attributes:
        style: Mean of the encoder's last layer.
        offered: What keys and values are made of, smallest level first; None where a level copies nothing.
    """

    style: Float[Tensor, "b s"]
    offered: tuple[Float[Tensor, "b c h w"] | None, ...]


def join_sources(sources: Sequence[SourceFeatures]) -> SourceFeatures:
    """Join pictures of one person: their keys and values side by side, the mean of their styles.

    Attention takes any number of keys, and GPA's cells are cells of queries, so the pictures may lie next to each other
    along the width. Nothing is trained again.
    """
    style = torch.stack([source.style for source in sources]).mean(dim=0)
    levels = zip(*(source.offered for source in sources), strict=True)
    return SourceFeatures(style, tuple(None if level[0] is None else torch.cat(level, dim=-1) for level in levels))


def repeat_source(source: SourceFeatures, count: int) -> SourceFeatures:
    """Return a single source as a batch of ``count``, for as many target poses at once."""
    offered = tuple(None if x is None else x.expand(count, -1, -1, -1) for x in source.offered)
    return SourceFeatures(source.style.expand(count, -1), offered)
