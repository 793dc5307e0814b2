"""How much a process was sent."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Traffic:
    """Bytes that came to this process in a forward pass; what the comparison of arguments takes is not counted.

    The backward pass sends the rows among ``blocks`` back as gradients, which come to their owners.

    Attributes:
        coarse: all that Phase 1 took: coarse keys; coarse queries where others rank for cells of this process or there
            are more than two levels; and with ``ranking="rerank"`` the parts of candidates that others hold, and what
            was asked to get them.
        blocks: all that Phase 2 took: the keys and values that its cells selected elsewhere, with biases and positions;
            and what was asked to get such blocks, which are one number from each of the others and the names of those
            that they want of this process.
        everything: what it would have been, had all keys and values been gathered; biases and positions are not in it.

    Example:
        >>> Traffic(coarse=100, blocks=300, everything=2000).share
        0.2
    """

    coarse: int
    blocks: int
    everything: int

    @property
    def share(self) -> float:
        """The part of ``everything`` that came; 0 where there was nothing to come."""
        return (self.coarse + self.blocks) / self.everything if self.everything else 0.0
