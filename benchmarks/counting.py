"""What PyTorch is asked to do, operation by operation: multiply-adds, rows moved, and bytes held at the peak.

It looks into the operators of the library, which to PyTorch are one operation each.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from unittest.mock import patch

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from gpa_nd.engine.blocked import selection
from gpa_nd.engine.blocked.phase1 import Phase1
from gpa_nd.engine.groups import PooledKeys
from gpa_nd.partition import Partition

aten = torch.ops.aten
PRODUCTS = {aten.mm: 0, aten.bmm: 0, aten.addmm: 1, aten.baddbmm: 1, aten.baddbmm_: 1}
"""Where in the arguments of a product its left factor is."""
PICKS = (aten.index_select, aten.gather, aten.index)
PUTS = (aten.index_copy_, aten.index_copy, aten.index_add_, aten.index_put_, aten._index_put_impl_)


class Counted(TorchDispatchMode):
    """Count while it is entered.

    Attributes:
        multiply_adds: of matrix products and distances.
        peak: bytes of all tensors that were made and not yet freed, at most.
    """

    def __init__(self) -> None:
        super().__init__()
        self.multiply_adds = self.peak = self._held = 0
        self._tokens: set[int] = set()
        self._copies: list[tuple[int, int]] = []  # in another dtype, of this memory into that
        self._accesses: list[tuple[int, int, int]] = []  # the number of the memory, bytes read, bytes written
        self._numbers: weakref.WeakKeyDictionary[torch.UntypedStorage, int] = weakref.WeakKeyDictionary()
        self._sizes: list[int] = []

    def add_tokens(self, tensors: Iterable[object]) -> None:
        """Count what is read from these and written to them."""
        self._tokens.update(self._number(x, made=False) for x in tensors if isinstance(x, Tensor))

    @property
    def bytes_read(self) -> int:
        """From tokens."""
        tokens = self._counted()
        return sum(read for number, read, _ in self._accesses if number in tokens)

    @property
    def bytes_written(self) -> int:
        """To tokens."""
        tokens = self._counted()
        return sum(written for number, _, written in self._accesses if number in tokens)

    def _counted(self) -> set[int]:
        """Tokens, and what was rounded to become one."""
        return self._tokens | {source for source, copy in self._copies if copy in self._tokens}

    @contextmanager
    def counting(self, *tokens: Tensor) -> Iterator[Counted]:
        """Count what happens within, and the means of these tokens as tokens, too, and the parts that are compared."""
        self.add_tokens(tokens)
        pool, phase1, pooled_keys = selection._pool, selection.Phase1, PooledKeys.of

        def pooled(*arguments: object) -> Tensor:
            low = pool(*arguments)  # type: ignore[arg-type]
            self.add_tokens([low])
            return low

        def ranking(*arguments: object, members: Partition | None = None, **settings: object) -> Phase1:
            phase = phase1(*arguments, members=members, **settings)  # type: ignore[arg-type]
            if members is not None:
                self.add_tokens([phase.q, phase.k])
            return phase

        def filling(*arguments: object) -> PooledKeys:
            keys = pooled_keys(*arguments)  # type: ignore[arg-type]
            self.add_tokens([keys.k, keys.v])
            return keys

        with (
            patch.object(selection, "_pool", pooled),
            patch.object(selection, "Phase1", ranking),
            patch.object(PooledKeys, "of", filling),
            self,
        ):
            yield self

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        kwargs = kwargs or {}
        if func.namespace == "gpa_nd":
            self.add_tokens(x for x in args if isinstance(x, Tensor))
            with self:
                out = func.redispatch(torch._C.DispatchKeySet(torch._C.DispatchKey.CPU), *args, **kwargs)
            self.add_tokens(_tensors(out))
            return out
        with self:
            parts = func.decompose(*args, **kwargs)
        if parts is not NotImplemented:  # it is made of others
            return parts
        before = list(_tensors([args, kwargs]))
        numbers = [self._number(x, made=False) for x in before]  # what was there before is not held
        out = func(*args, **kwargs)
        packet = func.overloadpacket
        if packet in PRODUCTS:
            left, right = args[PRODUCTS[packet]], args[PRODUCTS[packet] + 1]
            self.multiply_adds += left.numel() * right.shape[-1]
        elif packet in (aten._cdist_forward, aten.cdist):
            self.multiply_adds += args[0].numel() * args[1].shape[-2]
        elif packet is aten._cdist_backward:
            self.multiply_adds += args[0].numel() * args[1].shape[-1]
        changes = packet.__name__.endswith("_") or "out" in kwargs
        if changes or not {self._number(x) for x in _tensors(out)} <= set(numbers):  # a view moves nothing
            self._access(packet, args, kwargs, before, numbers, out)
        return out

    def _access(self, packet, args, kwargs, before, numbers, out) -> None:  # type: ignore[no-untyped-def]
        name = packet.__name__
        results = list(_tensors(out))
        written = {self._number(x): x.numel() * x.element_size() for x in results}
        if packet is aten._to_copy:
            self._copies.append((numbers[0], next(iter(written))))
        if packet in PUTS:
            source = args[-1] if isinstance(args[-1], Tensor) else next(x for x in reversed(before))
            moved = source.numel() * before[0].element_size()
            adds = "add" in name or (len(args) > 3 and args[3] is True)
            self._accesses.append((numbers[0], moved if adds else 0, moved))
            self._accesses += [
                (n, x.numel() * x.element_size(), 0) for n, x in zip(numbers[1:], before[1:], strict=True)
            ]
            return
        for number, size in written.items():
            self._accesses.append((number, 0, 0 if "empty" in name else size))
        reads = "out" not in kwargs
        outs = {self._number(x) for x in _tensors([v for k, v in kwargs.items() if k == "out" or k.startswith("out")])}
        if packet in PICKS:
            picked = sum(x.numel() * x.element_size() for x in results)
            self._accesses.append((numbers[0], picked, 0))
            before, numbers = before[1:], numbers[1:]
        fills = name in ("zero_", "fill_", "copy_") or name.startswith("new_") or name.endswith("_like")
        for place, (number, x) in enumerate(zip(numbers, before, strict=True)):
            if (number in outs and not reads) or (fills and place == 0):
                continue
            self._accesses.append((number, x.numel() * x.element_size(), 0))

    def _number(self, x: Tensor, *, made: bool = True) -> int:
        storage = x.untyped_storage()
        if storage not in self._numbers:
            self._numbers[storage] = len(self._sizes)
            self._sizes.append(storage.nbytes())
            if made:
                self._hold(storage.nbytes())
                weakref.finalize(storage, self._hold, -storage.nbytes())
        return self._numbers[storage]

    def _hold(self, more: int) -> None:
        self._held += more
        self.peak = max(self.peak, self._held)


def _tensors(value: object) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        yield from _tensors(list(value.values()))
    elif isinstance(value, tuple | list):
        for part in value:
            yield from _tensors(part)
