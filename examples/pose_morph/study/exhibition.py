"""The pictures of a study: chosen at random, and brought to one size and format, so that only their looks differ."""

import hashlib
import io
import itertools
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageOps

from examples.pose_morph.data.folder_store import FolderStore, pictures_in
from examples.pose_morph.data.pose_data import DataError
from examples.pose_morph.errors import UserError
from examples.pose_morph.messages import some
from examples.pose_morph.study.design import Exhibit, Truth

ASPECT_TOLERANCE = 0.02
EXAMPLES = 2
"""Examples of each kind on the page of instructions, where a folder has pictures to spare."""
BLOCKS = (4, 3)
"""Rows and columns of a picture that is shuffled into an obvious fake."""


@dataclass(frozen=True)
class Exhibition:
    """What is shown.

    Attributes:
        frame: Height and width of every picture.
        exhibits: What each picture is.
        pictures: Their PNG files, all of one length.
        examples: What each labelled example on the page of instructions is, and its PNG file; never asked about.
        notes: What the person who runs the study should know.
    """

    frame: tuple[int, int]
    exhibits: tuple[Exhibit, ...]
    pictures: tuple[bytes, ...]
    examples: tuple[tuple[Truth, bytes], ...]
    notes: tuple[str, ...]


class PictureFolder:
    """A folder's pictures in random order, each handed out once, with those that cannot be read counted."""

    def __init__(self, option: str, folder: Path, seed: int) -> None:
        self.option, self.folder = option, folder
        self._store = FolderStore(folder)
        names = pictures_in(folder, option)
        random.Random(f"{seed} {option}").shuffle(names)
        self.unreadable: list[str] = []
        self._rest = self._read(names)
        self._taken = 0

    def take(self, count: int, purpose: str) -> list[tuple[str, Image.Image]]:
        """Return the next ``count`` pictures and their names.

        Raises:
            UserError: there are not so many.
        """
        taken = self.spare(count)
        if len(taken) < count:
            raise UserError(
                f"{self.option}: expected {self._taken - len(taken) + count} different pictures in {self.folder} "
                f"({count} of them {purpose}), found {self._taken}, and {len(self.unreadable)} that cannot be read; "
                "give a larger folder, or ask for fewer with --count or --golden-count"
            )
        return taken

    def spare(self, count: int) -> list[tuple[str, Image.Image]]:
        """Return the next pictures, ``count`` or as many as there are."""
        taken = list(itertools.islice(self._rest, count))
        self._taken += len(taken)
        return taken

    def notes(self) -> Iterator[str]:
        """Say how many pictures were left out."""
        if self.unreadable:
            yield (
                f"{self.option}: {len(self.unreadable)} pictures of {self.folder} cannot be read and are left out: "
                f"{some(self.unreadable)}"
            )

    def _read(self, names: Sequence[str]) -> Iterator[tuple[str, Image.Image]]:
        """Yield names and pictures as they are seen: turned as the camera says, transparent parts on white."""
        for name in names:
            try:
                picture = self._store.read(name)
            except DataError:
                self.unreadable.append(name)
            else:
                yield name, ImageOps.exif_transpose(picture)


def gather(
    real: Path,
    generated: Path,
    *,
    golden: tuple[Path, Path] | None = None,
    count: int = 55,
    golden_count: int = 45,
    frame: tuple[int, int] | None = None,
    seed: int = 0,
) -> Exhibition:
    """Choose ``count`` real and as many generated pictures, and ``golden_count`` golden ones, half of each kind.

    Without ``golden`` folders the golden pictures are other real ones, half of them shuffled in blocks: obvious fakes.
    The frame is by default the size of the smallest generated picture. Pictures are scaled to cover it and cut at the
    middle.

    Raises:
        UserError: a folder is missing or too small, pictures of both kinds have different shapes and no ``frame`` was
            given, or one picture is in two roles.
    """
    kinds: tuple[Truth, Truth] = ("real", "generated")
    folders = {"real": PictureFolder("real", real, seed), "generated": PictureFolder("generated", generated, seed)}
    shown = {kind: folders[kind].take(count, "to judge") for kind in kinds}
    real_golden = (golden_count + 1) // 2
    if golden is None:
        right = folders["real"].take(real_golden, "as golden questions")
        wrong = folders["real"].take(golden_count - real_golden, "to be shuffled into obvious fakes")
        wrong = [(name, shuffle_blocks(picture, f"{seed} {name}")) for name, picture in wrong]
    else:
        folders["golden real"] = PictureFolder("golden", golden[0], seed)
        folders["golden generated"] = PictureFolder("golden", golden[1], seed + 1)
        right = folders["golden real"].take(real_golden, "real golden questions")
        wrong = folders["golden generated"].take(golden_count - real_golden, "fake golden questions")
    examples = {kind: folders[kind].spare(EXAMPLES) for kind in kinds}

    size = frame or _common_frame(shown["generated"], [*shown["real"], *right, *wrong])
    exhibits, pictures = [], []
    roles: list[tuple[tuple[str, Image.Image], Truth, bool]] = [
        *((entry, "real", False) for entry in shown["real"]),
        *((entry, "generated", False) for entry in shown["generated"]),
        *((entry, "real", True) for entry in right),
        *((entry, "generated", True) for entry in wrong),
    ]
    owners: dict[str, str] = {}
    for (name, picture), truth, is_golden in roles:
        fitted = cover(picture, size)
        digest = hashlib.sha256(fitted.tobytes()).hexdigest()
        if digest in owners:
            raise UserError(
                f"real, generated: {name} and {owners[digest]} are the same picture; nobody may see one twice"
            )
        owners[digest] = name
        exhibits.append(Exhibit(name, truth, is_golden, digest))
        pictures.append(to_png(fitted))
    labelled = [(kind, to_png(cover(picture, size))) for kind, entries in examples.items() for _, picture in entries]
    notes = [note for folder in folders.values() for note in folder.notes()]
    if len(labelled) < 2 * EXAMPLES:
        notes.append(
            f"examples on the page of instructions: {len(labelled)}; a folder has no pictures to spare for more"
        )
    return Exhibition(size, tuple(exhibits), tuple(pictures), tuple(labelled), tuple(notes))


def cover(picture: Image.Image, frame: tuple[int, int]) -> Image.Image:
    """Scale a picture to cover ``frame`` (height, width) and cut what stands out on both sides."""
    height, width = frame
    if picture.size == (width, height):
        return picture
    return ImageOps.fit(picture, (width, height), Image.Resampling.LANCZOS)


def to_png(picture: Image.Image) -> bytes:
    """Encode the pixels alone, without compression: neither a file's length nor its colour profile tells anything."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", compress_level=0, icc_profile=None)
    return buffer.getvalue()


def shuffle_blocks(picture: Image.Image, seed: str) -> Image.Image:
    """Return an obvious fake: the blocks of a picture in random order, none in its place."""
    rows, columns = BLOCKS
    width, height = picture.width // columns, picture.height // rows
    corners = [(column * width, row * height) for row in range(rows) for column in range(columns)]
    order = corners.copy()
    random.Random(seed).shuffle(order)
    # Every block goes to the place of the one after it in a random round, so that none stays.
    target = dict(zip(order, [*order[1:], order[0]], strict=True))
    result = picture.copy()
    for x, y in corners:
        result.paste(picture.crop((x, y, x + width, y + height)), target[x, y])
    return result


def _common_frame(
    generated: Sequence[tuple[str, Image.Image]], others: Sequence[tuple[str, Image.Image]]
) -> tuple[int, int]:
    """The smallest generated picture's size, if every picture has its shape."""
    name, smallest = min(generated, key=lambda entry: entry[1].width * entry[1].height)
    for other, picture in [*generated, *others]:
        ratio = picture.width / picture.height * smallest.height / smallest.width
        if abs(ratio - 1) > ASPECT_TOLERANCE:
            raise UserError(
                f"frame: {other} is {picture.height}x{picture.width} (height x width) and {name} "
                f"{smallest.height}x{smallest.width}; the outline would tell them apart. Add --frame HEIGHT WIDTH to "
                "cut all of them to one shape"
            )
    return smallest.height, smallest.width
