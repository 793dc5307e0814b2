"""The log of a run: one JSON object per line, means since the line before."""

import json
import math
from pathlib import Path
from typing import Any

from examples.pose_morph.atomic import append_line, write_text
from examples.pose_morph.errors import UserError

SHOWN = ("per", "self", "gan", "disc")
"""The losses that the progress bar has room for."""


class RunLog:
    """Collects losses and writes their means; a resumed run goes on where its checkpoint was taken."""

    def __init__(self, path: Path, every: int) -> None:
        """Write a line to ``path`` after ``every`` steps."""
        self.path, self.every = path, every
        self._sums: dict[str, list[float]] = {}
        self._latest: dict[str, float] = {}

    def go_on_after(self, step: int) -> None:
        """Drop lines past ``step``: they were written after the checkpoint that the run goes on from.

        Lines that are due come after ``every`` steps. One between them was written where a run was told to stop, and is
        dropped as well: the run that goes on writes the same lines as one that was not interrupted.
        """
        if self.path.exists():
            lines = self.path.read_text(encoding="utf-8", errors="replace").splitlines()
            write_text(self.path, "".join(f"{line}\n" for line in lines if self._is_kept(_step_of(line), step)))

    def _is_kept(self, step: float, last: int) -> bool:
        return step <= last and step % self.every == 0

    def state_dict(self) -> dict[str, Any]:
        """Return the sums since the last line that was due, and the smoothed losses."""
        sums = {name: list(sum_and_count) for name, sum_and_count in self._sums.items()}
        return {"sums": sums, "latest": dict(self._latest)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with the sums of a checkpoint."""
        self._sums = {name: [float(total), int(count)] for name, (total, count) in state["sums"].items()}
        self._latest = {name: float(value) for name, value in state["latest"].items()}

    def add(self, losses: dict[str, float]) -> None:
        """Take in the losses of one step."""
        for name, value in losses.items():
            total, count = self._sums.get(name, (0.0, 0))
            self._sums[name] = [total + value, count + 1]
            before = self._latest.get(name, value)
            self._latest[name] = 0.9 * before + 0.1 * value

    def write(self, step: int, seconds: float) -> dict[str, float]:
        """Append a line with the means since the last one that was due, and return them.

        Raises:
            UserError: the file cannot be written.
        """
        means = {name: round(total / count, 5) for name, (total, count) in self._sums.items()}
        try:
            append_line(self.path, json.dumps({"step": step, "seconds": round(seconds, 2), **means}))
        except UserError as error:
            raise UserError(f"{error}, then go on from the last checkpoint with --resume") from error
        if step % self.every == 0:
            self._sums.clear()
        return means

    def summary(self) -> str:
        """Return the smoothed losses in a few words."""
        return "  ".join(f"{name} {self._latest[name]:.2f}" for name in SHOWN if name in self._latest)


def _step_of(line: str) -> float:
    """The step of a line of the log; infinity for one that a kill cut short, or that is none."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return math.inf
