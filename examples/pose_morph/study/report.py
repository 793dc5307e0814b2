"""Say what a study has found: R2G and G2R with 95 % intervals, and whose answers count.

Reads the results file alone, while the study runs or afterwards.
"""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from examples.pose_morph.atomic import replace_file, write_json
from examples.pose_morph.command_line import run_command
from examples.pose_morph.errors import UserError
from examples.pose_morph.messages import say
from examples.pose_morph.option_types import OptionalFile
from examples.pose_morph.study.answer_file import read_ledger
from examples.pose_morph.study.rates import Rate, StudyResult, summarise
from examples.pose_morph.study.results_page import STANDINGS, interval, percent, seconds


@dataclass(frozen=True)
class Options:
    """Which study, and what to write beside the tables."""

    results: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RESULTS.jsonl", help_behavior_hint="")]
    """The file of `python -m examples.pose_morph.study --out`."""
    json: OptionalFile = None
    """Write the numbers there, with their definitions."""
    plot: OptionalFile = None
    """Draw the rates with both intervals there (PNG)."""


def report(options: Options, console: Console) -> int:
    """Print what the file says and write what was asked for; return the exit code."""
    ledger, _, notes = read_ledger(options.results)
    result = summarise(ledger, time.time())
    for note in notes:
        say(console, note, style="yellow")
    rates = Table("", "share", "answers", "95 %, Wilson", "95 %, over people")
    for name, rate in (("R2G", result.r2g), ("G2R", result.g2r)):
        rates.add_row(
            name,
            percent(rate.share),
            f"{rate.taken} of {rate.answers}",
            interval(rate.wilson),
            interval(rate.bootstrap),
        )
    console.print(rates)
    console.print(
        "Wilson's interval takes all answers as independent, which those of one person are not; the interval over "
        "people is a bootstrap over participants, crude for few of them.",
        soft_wrap=True,
    )
    people = Table("participant", "answers", "golden right", "")
    for person in result.participants:
        people.add_row(
            person.participant[:8],
            str(person.answers),
            f"{person.golden_right} of {person.golden_answered}",
            STANDINGS[person.standing],
        )
    console.print(people)
    console.print(
        f"{result.places_filled} of {result.places} answers are there or on their way; time to an answer: mean "
        f"{seconds(result.mean_seconds)}, median {seconds(result.median_seconds)}"
    )
    if options.plot is not None and not can_be_drawn(result):
        raise UserError(
            "plot: expected counted answers on real and on generated pictures; nobody whose answers count is done. "
            "Nothing was written: leave --plot out, or wait"
        )
    if options.json is not None:
        write_json(options.json, result.to_record())
    if options.plot is not None:
        draw_rates(result, options.plot)
    return 0


def can_be_drawn(result: StudyResult) -> bool:
    """Whether answers that count are there for both rates."""
    return result.r2g.share is not None and result.g2r.share is not None


def draw_rates(result: StudyResult, path: Path) -> None:
    """Draw both rates as points with their intervals, beside chance; see `can_be_drawn`."""
    rates = [("R2G", result.r2g), ("G2R", result.g2r)]
    figure = Figure(figsize=(5, 3.2), layout="constrained")
    axes = figure.subplots()
    for row, (_, rate) in enumerate(rates):
        _draw_interval(
            axes, row - 0.12, rate, rate.wilson, "tab:blue", "Wilson, answers as independent" if row == 0 else None
        )
        _draw_interval(
            axes, row + 0.12, rate, rate.bootstrap, "tab:orange", "bootstrap over people" if row == 0 else None
        )
    axes.axvline(50, color="0.6", linestyle=":", label="chance")
    axes.set_yticks(range(2), [f"{name}\n{rate.taken} of {rate.answers}" for name, rate in rates])
    axes.set(xlim=(0, 100), ylim=(1.6, -0.6), xlabel="taken for the other kind, % of answers; 95 % intervals")
    figure.legend(loc="outside upper center", ncols=2, fontsize="small", frameon=False)
    replace_file(path, lambda file: figure.savefig(file, format="png", dpi=160))


def _draw_interval(
    axes: Axes, row: float, rate: Rate, bounds: tuple[float, float] | None, colour: str, label: str | None
) -> None:
    if bounds is None or rate.share is None:
        return
    share = 100 * rate.share
    below, above = share - 100 * bounds[0], 100 * bounds[1] - share
    axes.errorbar(share, row, xerr=[[max(0, below)], [max(0, above)]], fmt="o", color=colour, capsize=4, label=label)


def main() -> None:
    """Read the command line and report."""
    run_command(Options, report, prog="python -m examples.pose_morph.study.report", description=__doc__)


if __name__ == "__main__":
    main()
