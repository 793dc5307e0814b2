"""How many small changes of the library its tests notice: ``python -m tests.trust.mutants --sample 300 --seed 0``.

The first run records which tests run which lines, and later ones use it until ``--record`` asks for a new one. Verdicts
are written as they come; a run that was interrupted goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import tempfile
import time
from pathlib import Path

from tests.trust.mutants.fork import Tree, Verdict, as_line, import_all
from tests.trust.mutants.operators import extents_of
from tests.trust.mutants.sample import Mutant, mutants, sample
from tests.trust.mutants.score import summary
from tests.trust.mutants.trace import Trace, record

PACKAGES = ("gpa_nd/engine", "gpa_nd/ops", "gpa_nd/partitioners")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sample", type=int, default=300, help="how many mutants")
    parser.add_argument("--seed", type=int, default=0, help="which ones")
    parser.add_argument("--budget", type=float, default=60.0, help="seconds of tests for a mutant, as recorded")
    parser.add_argument("--cases", type=int, default=4, help="about how many cases of every test are recorded")
    parser.add_argument("--jobs", type=int, default=1, help="how many mutants are tested at a time")
    parser.add_argument("--out", type=Path, default=Path("runs/mutants"), help="folder of what is recorded and found")
    parser.add_argument("--packages", nargs="+", default=PACKAGES, help="folders whose code is changed")
    parser.add_argument("--without", nargs="*", default=(), help="folders in them whose code is not")
    parser.add_argument("--record", action="store_true", help="record again which tests run which lines")
    parser.add_argument("--again", action="store_true", help="test those again that survived before")
    options = parser.parse_args()
    root, out = Path.cwd(), options.out
    out.mkdir(parents=True, exist_ok=True)
    if options.record or not (out / "durations.json").exists():
        record(root, out.resolve(), options.cases)
    chosen = sample(mutants(root, options.packages, options.without), options.sample, options.seed)
    verdicts = read(out / "verdicts.jsonl")
    if options.again:
        verdicts = {key: verdict for key, verdict in verdicts.items() if verdict.is_killed}
    import_all()
    trace = Trace(root, out)
    left = [mutant for mutant in chosen if mutant.key not in verdicts]
    with tempfile.TemporaryDirectory() as folder:
        trees = [Tree(root, Path(folder) / str(number)) for number in range(options.jobs)]
        check_unchanged(trees[0], chosen[0].file, trace)
        context = multiprocessing.get_context("fork")  # with all that is imported and read
        shares = [(left[number :: options.jobs], tree) for number, tree in enumerate(trees)]
        workers = [context.Process(target=judge, args=(*share, trace, options)) for share in shares]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    if any(worker.exitcode for worker in workers):
        raise SystemExit("a worker ended early: the same command goes on where it was")
    print(summary(chosen, {**verdicts, **read(out / "verdicts.jsonl")}))


def judge(share: list[Mutant], tree: Tree, trace: Trace, options: argparse.Namespace) -> None:
    """Test a worker's share of the mutants, and write what became of each."""
    began = time.monotonic()
    for number, mutant in enumerate(share, 1):
        of = trace.cases_of(mutant.file, mutant.change, extents_of(mutant.source))
        tests = trace.in_turn(mutant.file, of, options.budget)
        verdict = Verdict("not run", "", "", 0, 0.0)
        if tests:
            verdict = tree.test(mutant.file, mutant.changed, tests, trace.seconds)
        with (options.out / "verdicts.jsonl").open("a", encoding="utf-8") as file:
            file.write(as_line(mutant.key, mutant.file, verdict) + "\n")
        minutes = (time.monotonic() - began) / number * (len(share) - number) / 60
        print(f"{number}/{len(share)}, {minutes:.0f} min left: {verdict.outcome:9} {mutant}", flush=True)


def check_unchanged(tree: Tree, file: str, trace: Trace) -> None:
    """The quick tests pass on the library as it is.

    Raises:
        SystemExit: one does not.
    """
    tests = trace.in_turn("", [set(trace.seconds)], budget=60.0)
    source = (tree.folder / file).read_text(encoding="utf-8")
    verdict = tree.test(file, source, tests, trace.seconds, keep_compiled=True)
    if verdict.outcome != "survived":
        raise SystemExit(f"{verdict.outcome} without a change: {verdict.test}: {verdict.error}")


def read(file: Path) -> dict[str, Verdict]:
    """Verdicts by the mutant's key; the last one counts."""
    lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] if file.exists() else []
    return {line.pop("mutant"): Verdict(**{k: v for k, v in line.items() if k != "file"}) for line in lines}


if __name__ == "__main__":
    main()
