"""Powers of two, which Triton's tiles are measured in."""

from __future__ import annotations


def power_of_two(n: int, at_least: int = 1) -> int:
    """The least power of two that is not below n.

    Example:
        >>> power_of_two(64), power_of_two(65), power_of_two(3, at_least=16)
        (64, 128, 16)
    """
    return max(at_least, 1 << (n - 1).bit_length())
