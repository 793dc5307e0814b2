"""How much a process was sent."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Traffic:
    """Bytes that came to this process in a forward pass.

    The backward pass sends as many of ``blocks`` back as gradients, which come to their owners.

    Attributes:
        coarse: of coarse keys, and of coarse queries where others rank for cells of this process.
        blocks: of the keys and values that its cells selected elsewhere, with biases and positions.
        everything: what it would have been, had all keys and values been gathered.

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
