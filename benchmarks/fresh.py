"""Work in a fresh process, so that every measurement of memory starts from the same state; Linux only."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import ParamSpec, TypeVar

from benchmarks.contestants import Contestant, passes
from benchmarks.geometries import Problem
from benchmarks.memory import peak_bytes, resident_extra

P = ParamSpec("P")
T = TypeVar("T")


def in_fresh_process(work: Callable[P, T], /, *arguments: P.args, **named: P.kwargs) -> T:
    """What ``work`` returns, in a process that has PyTorch imported and has not computed anything yet.

    Raises:
        concurrent.futures.process.BrokenProcessPool: the process was killed, most likely for its memory.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "benchmarks.fresh"])
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(work, *arguments, **named).result()


def extra_bytes(contestant: Contestant, problem: Problem, *, backward: bool) -> int:
    """Peak memory of a contestant's call over what there was before it: its result and its gradients count.

    Raises:
        Skipped: it does not take part.
    """
    if problem.device.type == "cpu":
        return in_fresh_process(_extra_bytes, contestant, problem, backward)
    attend = contestant.attend(problem, backward=backward)
    return peak_bytes(passes(attend, problem.tokens(), backward=backward), problem.device)


def _extra_bytes(contestant: Contestant, problem: Problem, backward: bool) -> int:
    contestant.check(problem, backward=backward)
    small = problem.smaller()  # its first backward makes PyTorch import 35 MB
    passes(contestant.make(small), small.tokens(), backward=backward)()
    attend, tokens = contestant.attend(problem, backward=backward), problem.tokens()
    return resident_extra(passes(attend, tokens, backward=backward))
