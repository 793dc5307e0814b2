"""How much a call may take, and which of the settings that were tried takes least."""

from __future__ import annotations

from gpa_nd.checks import check_positive
from gpa_nd.diagnostics.cost import Cost, mebibytes, short

COUNTED = {"memory": "bytes", "multiply_adds": "multiply-adds"}
SHORT = {"memory": mebibytes, "multiply_adds": short}


class Budget:
    """Bytes at the peak, multiply-adds, or both.

    Args:
        memory: bytes of :attr:`.Cost.torch_bytes`; None for any number.
        multiply_adds: of :attr:`.Cost.total`; None for any number.

    Raises:
        TypeError: not a number.
        ValueError: neither of them, or one that is not above 0.
    """

    def __init__(self, memory: int | float | None, multiply_adds: int | float | None) -> None:
        if memory is None and multiply_adds is None:
            raise ValueError("memory, multiply_adds: expected a budget for at least one of them, got none")
        given = {"memory": memory, "multiply_adds": multiply_adds}
        self._most = {name: number for name, number in given.items() if number is not None}
        for name, number in self._most.items():
            check_positive(name, number)
        self._least: dict[str, tuple[int, str]] = {}
        self.tried = 0

    def allows(self, cost: Cost, settings: str) -> bool:
        """Whether a setting that costs as much keeps within; remember which takes least."""
        self.tried += 1
        takes = {"memory": cost.torch_bytes, "multiply_adds": cost.total.multiply_adds}
        for name in self._most:
            self._least[name] = min(self._least.get(name, (takes[name], settings)), (takes[name], settings))
        return all(takes[name] <= most for name, most in self._most.items())

    def why_none(self) -> str:
        """What to say where no setting kept within."""
        for name, most in self._most.items():
            if most < self._least[name][0]:
                return f"{name}: expected at least {self._told(name)}, got {_said(name, most)}"
        least = " and ".join(map(self._told, self._most))
        got = " and ".join(_said(name, most) for name, most in self._most.items())
        return f"memory, multiply_adds: expected what one setting keeps within, and more than {least}; got {got}"

    def _told(self, name: str) -> str:
        number, settings = self._least[name]
        return f"{_said(name, number)}, the least of {self.tried} settings ({settings})"


def _said(name: str, number: int | float) -> str:
    """As ``3,000 bytes = 2.93 KiB``."""
    return f"{number:,.0f} {COUNTED[name]} = {SHORT[name](number)}"
