"""All processes look at their arguments together, so that an error of one is an error in all, and nobody waits."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch

from gpa_nd.distributed.peers import Peers

Facts = Mapping[str, Sequence[int]]
"""Numbers by name, as many for a name in every process."""


def agree(peers: Peers, look: Callable[[], Facts], names: Mapping[str, int]) -> dict[str, list[list[int]]]:
    """What every process found, by name and process.

    Args:
        peers: the processes, all of which call this together.
        look: checks the arguments of this process, and tells what the others shall know.
        names: of the facts, with how many numbers each has.

    Raises:
        TypeError: raised by ``look``.
        ValueError: raised by ``look``, here or in another process.
    """
    error, found = None, {name: [0] * count for name, count in names.items()}
    try:
        found |= {name: list(numbers) for name, numbers in look().items()}
    except Exception as problem:  # whatever it is, the others wait to hear of it
        error = problem
    mine = [error is not None, *(number for numbers in found.values() for number in numbers)]
    told = peers.gather(torch.tensor(mine, dtype=torch.int64, device=peers.device)).tolist()
    if error is not None:
        raise error
    if wrong := [process for process, facts in enumerate(told) if facts[0]]:
        raise ValueError(f"process {wrong[0]}: its arguments are wrong, as its own error says; no process goes on")
    by_name: dict[str, list[list[int]]] = {}
    start = 1
    for name, count in names.items():
        by_name[name] = [facts[start : start + count] for facts in told]
        start += count
    return by_name


def check_same(name: str, told: Sequence[object]) -> None:
    """The same in every process.

    Raises:
        ValueError: a process has something else than the first.
    """
    for process, value in enumerate(told):
        if value != told[0]:
            raise ValueError(
                f"{name}: expected the same in every process, got {told[0]} in process 0 "
                f"and {value} in process {process}"
            )
