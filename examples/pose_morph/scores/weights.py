"""Weights of known networks, from files that the user has: read without running code, checked, and hashed.

Nothing is downloaded. What a file must hold is what the network's own authors published, under their names.
"""

import hashlib
from pathlib import Path

from torch import Tensor, nn

from examples.pose_morph.errors import UserError
from examples.pose_morph.messages import some
from examples.pose_morph.state_file import load_state

COUNTER = "num_batches_tracked"
"""Batch normalisation's counter, which older files do not have and inference does not use."""


def load_weights(network: nn.Module, path: Path, *, option: str, expected: str, ignored: tuple[str, ...] = ()) -> None:
    """Fill ``network`` from ``path`` and freeze it in evaluation mode.

    Args:
        network: Its parameters' names are the file's.
        path: A state dict as ``torch.save`` writes it.
        option: The argument that named the file, for messages.
        expected: What the file should be, for messages.
        ignored: Beginnings of names that the file may hold beside the network's.

    Raises:
        UserError: the file is absent or cannot be read, or names or shapes differ; the message says which.
    """
    found = read_weights(path, option=option, expected=expected)
    wanted = network.state_dict()
    missing = [name for name in wanted if name not in found and not name.endswith(COUNTER)]
    beside = [name for name in found if name not in wanted and not name.startswith(ignored)]
    shapes = [
        f"{name} is {tuple(found[name].shape)} and not {tuple(wanted[name].shape)}"
        for name in wanted
        if name in found and found[name].shape != wanted[name].shape
    ]
    faults = []
    if missing:
        faults.append(f"{len(missing)} of {len(wanted)} entries are missing: {some(missing)}")
    if beside:
        faults.append(f"{len(beside)} entries belong to another network: {some(beside)}")
    if shapes:
        faults.append(f"{len(shapes)} shapes differ: {some(shapes)}")
    if faults:
        raise UserError(f"{option}: expected {expected}, and {path} is not that file: {'; '.join(faults)}")
    network.load_state_dict({name: found.get(name, value) for name, value in wanted.items()})
    network.eval().requires_grad_(False)


def read_weights(path: Path, *, option: str, expected: str) -> dict[str, Tensor]:
    """Return the state dict of a file.

    Raises:
        UserError: the file is not there or holds no state dict.
    """
    if not path.is_file():
        raise UserError(f"{option}: there is no file {path}; expected {expected}")
    try:
        state = load_state(path)
    except Exception as error:
        kind = type(error).__name__
        raise UserError(f"{option}: {path} cannot be read as weights ({kind}); expected {expected}") from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise UserError(f"{option}: {path} holds no table of names and tensors; expected {expected}")
    return state


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
