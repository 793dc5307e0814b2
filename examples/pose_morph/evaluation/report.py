"""The file of scores: every number under its protocol's name, with all that it depends on."""

import platform
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

import gpa_nd
from examples.pose_morph.messages import say
from examples.pose_morph.scores.protocols import DEFINITIONS, ProtocolName, WeightFiles, hashes

GENERATED = (
    "model's output rounded to 8 bits, as a PNG file holds it, never compressed with loss; cut to where the target's "
    "picture lies inside its padding"
)
RESIZING = (
    "stored pictures are fitted to the model's size as a whole, with Pillow's BOX filter when they shrink and BICUBIC "
    "when they grow; padding is not scored"
)
ON_DISK = "files as they are, decoded to 8-bit RGB, neither resized nor cropped"


class Outcome(NamedTuple):
    """What was computed.

    Attributes:
        results: Scores by protocol, for each candidate.
        warnings: What a reader of the numbers must know.
        about: What was scored, against what, and how many.
    """

    results: dict[str, dict[str, float]]
    warnings: list[str]
    about: dict[str, Any]


def versions() -> dict[str, str]:
    """Return the versions that a score may depend on."""
    packages = {name: version(name) for name in ("torch", "numpy", "scikit-image", "pillow")}
    return {"python": platform.python_version(), "gpa_nd": gpa_nd.__version__, **packages}


def compose(
    outcome: Outcome, *, protocols: Sequence[ProtocolName], weights: WeightFiles, not_computed: dict[str, str]
) -> dict[str, Any]:
    """Return the content of the file."""
    used = [name for name in protocols if name not in not_computed]
    return {
        "results": outcome.results,
        "protocols": {name: DEFINITIONS[name] for name in used},
        "not_computed": not_computed,
        "warnings": outcome.warnings,
        **outcome.about,
        "weights": hashes(used, weights),
        "versions": versions(),
    }


def show(report: dict[str, Any], console: Console) -> None:
    """Print the scores as a table, and what is to be known about them."""
    table = Table()
    table.add_column("protocol")
    for name in report["results"]:
        size = report.get("models", {}).get(name, {}).get("size")
        table.add_column(name if size is None else f"{name}\n{size[0]}x{size[1]}", justify="right")
    for protocol in report["protocols"]:
        better = "higher is better" if "higher is better" in report["protocols"][protocol] else "lower is better"
        values = (f"{scores[protocol]:.4f}" for scores in report["results"].values())
        table.add_row(f"{protocol} ({better})", *values)
    console.print(table)
    for name, reason in report["not_computed"].items():
        say(console, f"not computed: {name} ({reason})", style="yellow")
    for warning in report["warnings"]:
        say(console, warning, style="yellow")
