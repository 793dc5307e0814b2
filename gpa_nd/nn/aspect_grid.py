"""AspectGrid: from a number of tokens to the height and width of the image that they make up."""

from __future__ import annotations

from math import isqrt, log, sqrt

from gpa_nd.checks import check_int


class AspectGrid:
    """A function from n to the grid of n tokens whose sides are as these, scaled and rounded up or down.

    Args:
        height: of the image, in any unit.
        width: likewise.

    Raises:
        TypeError: not ints.
        ValueError: a number below 1.

    Example:
        >>> grid = AspectGrid(33, 20)                # 20 is halved to 10, and 33 to 17
        >>> grid(33 * 20), grid(17 * 10)
        ((33, 20), (17, 10))
        >>> AspectGrid(1, 1)(196)                    # a square
        (14, 14)
    """

    def __init__(self, height: int, width: int) -> None:
        check_int("height", height, at_least=1)
        check_int("width", width, at_least=1)
        self.height, self.width = height, width

    def __repr__(self) -> str:
        return f"AspectGrid({self.height}, {self.width})"

    def __call__(self, n: int) -> tuple[int, int]:
        """The grid of n tokens.

        Raises:
            ValueError: there is no such grid.
        """
        check_int("n", n, at_least=1)
        sides = [(rows, n // rows) for rows in _divisors(n) if self._fits(rows, n // rows)]
        if not sides:
            scale = sqrt(n / (self.height * self.width))
            raise ValueError(
                f"n: expected the tokens of a grid as high to wide as {self.height} : {self.width}, got {n}, which "
                f"asks for about {self.height * scale:.1f} × {self.width * scale:.1f}; give the grid itself"
            )
        return min(sides, key=lambda grid: abs(log(grid[0] * self.width / (grid[1] * self.height))))

    def _fits(self, rows: int, columns: int) -> bool:
        """Whether some scale makes these sides when both are rounded up or down."""
        least = max((rows - 1) / self.height, (columns - 1) / self.width)
        return least < min((rows + 1) / self.height, (columns + 1) / self.width)


def _divisors(n: int) -> list[int]:
    small = [number for number in range(1, isqrt(n) + 1) if n % number == 0]
    return sorted({*small, *(n // number for number in small)})
