"""The device of a run, by name."""

import re

import torch

from examples.pose_morph.errors import UserError


def choose_device(name: str, local_rank: int | None = None, *, option: str = "--device") -> torch.device:
    """Return the device of that name, or the fastest that PyTorch sees for "auto".

    Args:
        name: "auto", "cpu", "cuda", "cuda:1" …, or "mps".
        local_rank: This process's number on its machine under torchrun; each process takes a GPU of its own.
        option: The argument that gave the name, for messages.

    Raises:
        UserError: there is no such device here, or none for this process.
    """
    match = re.fullmatch(r"(auto|cpu|cuda|mps)(?::(\d+))?", name)
    if match is None or (match[2] is not None and match[1] != "cuda"):
        raise UserError(f"{option}: expected auto, cpu, cuda, cuda:N or mps, got {name}")
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if local_rank is not None:
        there["mps"] = False  # there is no communication between processes on it
    kind = next(kind for kind, found in there.items() if found) if match[1] == "auto" else match[1]
    if not there[kind]:
        raise UserError(f"{option}: PyTorch sees no {kind} here; cpu always works")
    if kind != "cuda":
        return torch.device(kind)
    if local_rank is not None and match[2] is not None:
        raise UserError(f"{option}: under torchrun every process takes its own GPU; expected cuda, got {name}")
    index = local_rank if local_rank is not None else None if match[2] is None else int(match[2])
    count = torch.cuda.device_count()
    if index is not None and index >= count:
        raise UserError(f"{option}: PyTorch sees {count} GPU(s) here, cuda:0 to cuda:{count - 1}; got cuda:{index}")
    return torch.device("cuda") if index is None else torch.device("cuda", index)
