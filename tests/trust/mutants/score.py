"""The share of mutants that are killed, and those that are not."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from pathlib import Path

from tests.trust.mutants.fork import Verdict
from tests.trust.mutants.sample import Mutant

EQUIVALENT: dict[str, str] = json.loads(Path(__file__).with_name("equivalent.json").read_text(encoding="utf-8"))
"""Mutants, by their keys, whose results no test can tell from the library's, and why."""


def summary(chosen: list[Mutant], verdicts: dict[str, Verdict]) -> str:
    """Scores of every package and of all, with and without what is equivalent, and a list of survivors."""
    of_package = defaultdict[str, list[Mutant]](list)
    for mutant in chosen:
        of_package["/".join(mutant.file.split("/")[:2])].append(mutant)
    lines = [f"{name}: {score(of, verdicts)}" for name, of in sorted(of_package.items())]
    lines.append(f"all: {score(chosen, verdicts)}")
    for mutant in sorted(chosen, key=lambda x: (x.file, x.change.start)):
        if not verdicts[mutant.key].is_killed:
            why = f", equivalent: {EQUIVALENT[mutant.key]}" if mutant.key in EQUIVALENT else ""
            lines.append(f"  {verdicts[mutant.key].outcome}{why}: {mutant}")
    return "\n".join(lines)


def score(mutants: list[Mutant], verdicts: dict[str, Verdict]) -> str:
    """Killed of how many; and of those that are not equivalent."""
    outcomes = Counter(verdicts[mutant.key].outcome for mutant in mutants)
    killed = sum(verdicts[mutant.key].is_killed for mutant in mutants)
    telling = sum(verdicts[mutant.key].is_killed or mutant.key not in EQUIVALENT for mutant in mutants)
    kinds = ", ".join(f"{n} {outcome}" for outcome, n in outcomes.most_common())
    ratios = f"{killed / len(mutants):.1%} of {len(mutants)}, {killed / telling:.1%} of the {telling} that differ"
    return f"{ratios} ({kinds})"
