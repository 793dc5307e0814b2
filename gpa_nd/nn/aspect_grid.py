"""AspectGrid: from a number of tokens to the height and width of the image that they make up."""

from __future__ import annotations

from math import sqrt

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
            ValueError: no grid of n tokens has sides within one of what the aspect asks for.
        """
        check_int("n", n, at_least=0)
        height, width = (side * sqrt(n / (self.height * self.width)) for side in (self.height, self.width))
        fitting = [
            (rows, n // rows)
            for rows in range(max(1, int(height)), int(height) + 2)
            if n % rows == 0 and abs(rows - height) < 1 and abs(n // rows - width) < 1
        ]
        if not fitting:
            raise ValueError(
                f"n: no grid of {n} tokens is as high to wide as {self.height} : {self.width}, which asks for about "
                f"{height:.1f} × {width:.1f}; give the grid itself"
            )
        return min(fitting, key=lambda grid: abs(grid[0] - height))
