"""The pictures of a folder."""

from pathlib import Path

from examples.pose_morph.data.folder_store import SUFFIXES, FolderStore
from examples.pose_morph.errors import UserError


def picture_names(folder: Path) -> list[str]:
    """Return all pictures below a folder in order, as paths from there.

    Raises:
        UserError: there is no such folder, or no picture in it.
    """
    if not folder.is_dir():
        raise UserError(f"pictures: there is no folder {folder}")
    names = FolderStore(folder).names()
    if not names:
        raise UserError(f"pictures: expected some ({', '.join(SUFFIXES)}) below {folder}, and there is none")
    return names
