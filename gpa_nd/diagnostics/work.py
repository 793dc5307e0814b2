"""Work: what a phase computes and moves."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Work:
    """Arithmetic and traffic.

    Attributes:
        multiply_adds: those of all matrix products; a distance takes as many. Softmax, means and sums are not counted.
        bytes_read: rows of q, k and v, of their means, gradients and selected coarse keys that a block takes from
            memory, as often as it does. What stays within a block, gathered rows and scores, is left to the cache.
        bytes_written: rows of the same kinds, and of the result, that are put there.
    """

    multiply_adds: int = 0
    bytes_read: int = 0
    bytes_written: int = 0

    @property
    def operations(self) -> int:
        """Multiplications and additions, two for each multiply-add."""
        return 2 * self.multiply_adds

    def __add__(self, other: Work) -> Work:
        return Work(
            self.multiply_adds + other.multiply_adds,
            self.bytes_read + other.bytes_read,
            self.bytes_written + other.bytes_written,
        )
