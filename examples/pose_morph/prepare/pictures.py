"""Which files are pictures."""

from pathlib import Path

from examples.pose_morph.errors import UserError

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")


def pictures_below(folder: Path) -> list[Path]:
    """Return all pictures below a folder in order, as paths from there.

    Raises:
        UserError: there is no such folder or no picture in it.
    """
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}")
    found = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    if not found:
        raise UserError(f"expected pictures ({', '.join(SUFFIXES)}) below {folder}, and there is none")
    return found
