"""Names of attention: gpa, full, no, nystromformer, performer, and the paper's GPA1024_12_64, NYF512 and PER708.

The name says what stands at the large levels; small levels have full attention under every name (section 3.2).
"""

import math
import re
from collections.abc import Callable
from dataclasses import replace

from examples.pose_morph.errors import UserError
from examples.pose_morph.networks.settings import (
    Attention,
    Full,
    Grid,
    Level,
    ModelSettings,
    Nystromformer,
    Performer,
)

RANK = 512
"""The paper's smallest rank for Nyströmformer and Performer."""

LEAST_KEYS_PER_RANK = 4
"""A rank that nobody chose stays this many times below the number of keys: low rank would mean nothing otherwise."""

EXPECTED = (
    "expected gpa, full, no, nystromformer, performer, or a name of the paper: GPA1024_12_64 (m, kappa, height up to "
    "which attention is full), NYF512 or PER708 (rank)"
)


def with_attention(model: ModelSettings, name: str) -> ModelSettings:
    """Return ``model`` with the named attention where its levels do not have full attention.

    Args:
        model: A preset's model. "gpa" leaves it as it is.
        name: gpa; full; no; nystromformer and performer, of rank 512 or a quarter of the keys if that is less; NYF512
            and PER708 with any rank; GPA1024_12_64 for m cells, kappa, and full attention up to that height, where
            Phase 1 takes place. Small and capital letters mean the same.

    Raises:
        UserError: No such name, or numbers that do not fit the picture.
    """
    match = re.fullmatch(r"GPA(\d+)_(\d+)_(\d+)", name.upper())
    if match:
        return _grid(model, name, *map(int, match.groups()))
    large = [size for level, size in zip(model.levels, model.sizes, strict=True) if level.attention != Full()]
    if not large:
        raise UserError(f"attention {name}: every level of the model has full attention, so that none can be replaced")
    match = re.fullmatch(r"(NYF|PER)(\d+)", name.upper())
    if match:
        kind = Nystromformer if match[1] == "NYF" else Performer
        return _replaced(model, lambda size: kind(_rank(name, int(match[2]), large)))
    match name.lower():
        case "gpa":
            if not any(isinstance(level.attention, Grid) for level in model.levels):
                raise UserError(f"attention {name}: the model has no level with GPA; name it in full: {EXPECTED}")
            return model
        case "full":
            return _replaced(model, lambda size: Full())
        case "no":
            return _replaced(model, lambda size: None)
        case "nystromformer":
            return _replaced(model, lambda size: Nystromformer(default_rank(size)))
        case "performer":
            return _replaced(model, lambda size: Performer(default_rank(size)))
    raise UserError(f"attention {name!r}: {EXPECTED}")


def attention_name(model: ModelSettings) -> str:
    """Name the attention of the large levels as the paper does: GPA1024_12_64, NYF512, PER708, NO, or full."""
    names = [
        level_name(level.attention, size)
        for level, size in zip(model.levels, model.sizes, strict=True)
        if level.attention != Full()
    ]
    return "+".join(dict.fromkeys(names)) or "full"


def level_name(attention: Attention, size: tuple[int, int]) -> str:
    """Name the attention of one level of that size."""
    match attention:
        case Full():
            return "full"
        case Grid(downsample, cells, kappa):
            return f"GPA{math.prod(cells)}_{kappa}_{size[0] // downsample}"
        case Nystromformer(rank):
            return f"NYF{rank}"
        case Performer(rank):
            return f"PER{rank}"
        case None:
            return "NO"


def default_rank(size: tuple[int, int]) -> int:
    """Return the paper's rank, or for a small level the largest divisor of its pixels up to a quarter of them."""
    pixels = math.prod(size)
    most = min(RANK, pixels // LEAST_KEYS_PER_RANK)
    return next(rank for rank in range(most, 0, -1) if pixels % rank == 0)


def _replaced(model: ModelSettings, attention: Callable[[tuple[int, int]], Attention]) -> ModelSettings:
    """Put ``attention(size)`` at every level that does not have full attention."""
    return _with_levels(
        model,
        [
            level.attention if level.attention == Full() else attention(size)
            for level, size in zip(model.levels, model.sizes, strict=True)
        ],
    )


def _with_levels(model: ModelSettings, attention: list[Attention]) -> ModelSettings:
    pairs = zip(model.levels, attention, strict=True)
    return replace(model, levels=tuple(Level(old.channels, old.encoder_channels, new) for old, new in pairs))


def _rank(name: str, rank: int, large: list[tuple[int, int]]) -> int:
    """Check that ``rank`` fits the smallest level that is to have it."""
    pixels = min(map(math.prod, large))
    if not 1 <= rank <= pixels:
        raise UserError(f"attention {name}: expected a rank from 1 to {pixels}, the keys of the smallest level with it")
    return rank


def _grid(model: ModelSettings, name: str, m: int, kappa: int, full_up_to: int) -> ModelSettings:
    """Put full attention up to that height and GPA above it, with Phase 1 at that height and m cells."""
    coarse = next((size for size in model.sizes[1:] if size[0] == full_up_to), None)
    if coarse is None:
        heights = ", ".join(str(height) for height, _ in model.sizes[1:])
        raise UserError(
            f"attention {name}: expected full attention up to one of the heights {heights}, got {full_up_to}"
        )
    # Cells are as many times higher than wide as the picture, and as large as one another.
    common = math.gcd(*coarse)
    fitting = {
        (coarse[0] // common * k) * (coarse[1] // common * k): (coarse[0] // common * k, coarse[1] // common * k)
        for k in range(1, common + 1)
        if common % k == 0
    }
    if m not in fitting:
        numbers = ", ".join(map(str, fitting))
        raise UserError(f"attention {name}: Phase 1 at {coarse[0]}x{coarse[1]} divides into {numbers} cells, not {m}")
    if not 1 <= kappa <= math.prod(coarse):
        raise UserError(f"attention {name}: expected kappa from 1 to {math.prod(coarse)}, got {kappa}")
    return _with_levels(
        model,
        [
            Full() if height <= full_up_to else Grid(height // full_up_to, fitting[m], kappa)
            for height, _ in model.sizes
        ],
    )
