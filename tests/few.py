"""A few cases of every test. It does not import the library, of which mutants are imported afresh."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from zlib import crc32

import pytest


def few_of_each(items: list[pytest.Item], at_most: Callable[[pytest.Item], int]) -> list[pytest.Item]:
    """At most so many cases of every test, 0 for all: as if drawn, but the same ones each time."""
    of_test = defaultdict[str, list[pytest.Item]](list)
    for item in items:
        of_test[item.nodeid.partition("[")[0]].append(item)
    kept = set[pytest.Item]()
    for of in of_test.values():
        kept.update(sorted(of, key=lambda item: crc32(item.nodeid.encode()))[: at_most(of[0]) or None])
    return [item for item in items if item in kept]
