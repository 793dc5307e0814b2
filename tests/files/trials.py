"""Trials that may go wrong in any way, in a process of their own: a crash or a hang there is a finding, not the end."""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
import resource
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from random import Random
from typing import Any

import torch

SECONDS = 120
"""What one trial may take, on a machine that has much else to do."""

MEMORY = 4 << 30
"""Bytes that the process of the trials may take beside what it has."""

SHOWN = 5
"""Findings after which it ends."""


def findings(trial: Callable[[Random], Any], count: int, *, first: int = 0) -> list[str]:
    """Do ``trial`` with the seeds ``first`` and following; return what went wrong, none if all went well."""
    forking = multiprocessing.get_context("fork")
    here, there = forking.Pipe(duplex=False)
    process = forking.Process(target=_try_all, args=(trial, range(first, first + count), there), daemon=True)
    process.start()
    there.close()
    found, seed = [], first
    try:
        while True:
            seed, trouble = here.recv()
            if trouble is not None:
                found.append(f"seed {seed}: {trouble}")
    except EOFError:
        process.join()
    if process.exitcode:
        found.append(f"seed {seed}: the process ended with {process.exitcode}")
    return found


def _try_all(trial: Callable[[Random], Any], seeds: range, tell: Connection) -> None:
    torch.set_num_threads(1)  # a forked process must not use the threads of the one before
    taken = int(open("/proc/self/statm").read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (taken + MEMORY,) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    found = 0
    for seed in seeds:
        tell.send((seed, None))
        faulthandler.dump_traceback_later(SECONDS, exit=True)  # where it hangs; the end has code 1
        try:
            trial(Random(seed))
        except BaseException:
            tell.send((seed, traceback.format_exc()))
            found += 1
        faulthandler.cancel_dump_traceback_later()
        if found == SHOWN:
            break
    os._exit(0)
