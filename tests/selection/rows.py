"""One row of each kind of `seeing.py`: tests of what is slow, or made from what is tested there, need no more."""

from tests.seeing import KEY_HEADS, ROWS

__all__ = ["KEY_HEADS", "SOME_ROWS"]

NAMES = (
    "an image looks at audio",
    "causal audio of three lengths",
    "audio of three lengths on two levels",
    "1-D (23,) d=(4,) cells=(3,) causal=(0,) mask bias",
    "2-D (8, 9) d=(2, 2) cells=(4, 3) causal=(0, 1)",
    "2-D (9, 8) d=(2, 3) cells=(3, 2) mask bias heads",
    "1-D (24,) d=(2,) cells=(6,) causal=(0,) [GridNeighbourhood(4), GlobalElements([0, 1, 2])]",
    "2-D (9, 8) d=(2, 2) cells=(3, 3) [GlobalElements([0, 1, 2, 3, 4])] mask",
    "1-D (40,) d=(2,) cells=(10,) causal=(0,) levels=2 mask",
)
SOME_ROWS = [next(row for row in ROWS if row.name == name) for name in NAMES]
