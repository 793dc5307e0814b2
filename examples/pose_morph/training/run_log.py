"""The log of a run: one JSON object per line, means since the line before."""

import json
import math
from pathlib import Path

from examples.pose_morph.atomic import replace_file

SHOWN = ("per", "self", "gan", "disc")
"""The losses that the progress bar has room for."""


class RunLog:
    """Collects losses and writes their means; a resumed run goes on where its checkpoint was taken."""

    def __init__(self, path: Path, step: int) -> None:
        """Drop lines past ``step``: they were written after the checkpoint that the run goes on from."""
        self.path = path
        self._sums: dict[str, tuple[float, int]] = {}
        self._latest: dict[str, float] = {}
        if path.exists():
            kept = "".join(line + "\n" for line in path.read_text().splitlines() if _step_of(line) <= step)
            replace_file(path, lambda file: file.write(kept.encode()))

    def add(self, losses: dict[str, float]) -> None:
        """Take in the losses of one step."""
        for name, value in losses.items():
            total, count = self._sums.get(name, (0.0, 0))
            self._sums[name] = (total + value, count + 1)
            before = self._latest.get(name, value)
            self._latest[name] = 0.9 * before + 0.1 * value

    def write(self, step: int, seconds: float) -> None:
        """Append a line with the means since the last one."""
        means = {name: round(total / count, 5) for name, (total, count) in self._sums.items()}
        with self.path.open("a") as file:
            file.write(json.dumps({"step": step, "seconds": round(seconds, 2), **means}) + "\n")
        self._sums.clear()

    def summary(self) -> str:
        """Return the smoothed losses in a few words."""
        return "  ".join(f"{name} {self._latest[name]:.2f}" for name in SHOWN if name in self._latest)


def _step_of(line: str) -> float:
    """The step of a line of the log; infinity for one that a kill cut short."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return math.inf
