"""Scores of trained models on a data folder's test pairs."""

from pathlib import Path
from typing import Any

import torch
from PIL import Image
from rich.progress import Progress

from examples.pose_morph.data.evenly import evenly
from examples.pose_morph.data.pose_data import PoseData
from examples.pose_morph.data.profiles import read_data
from examples.pose_morph.errors import UserError
from examples.pose_morph.evaluation.candidates import COPY_SOURCE, Candidate
from examples.pose_morph.evaluation.held_out import TASKS
from examples.pose_morph.evaluation.options import Options, comparison_of
from examples.pose_morph.evaluation.pairs import Answer, answers, digest_of, pair_names, picture_names
from examples.pose_morph.evaluation.real_pictures import RealPictures, Size, statistics_of
from examples.pose_morph.evaluation.report import GENERATED, RESIZING, Outcome
from examples.pose_morph.evaluation.tally import Scorer, Statistics, Tally
from examples.pose_morph.messages import say
from examples.pose_morph.pictures.comparison import save_comparison
from examples.pose_morph.pictures.png import write_png


def score_models(
    options: Options, candidates: list[Candidate], scorer: Scorer, real: dict[Size, RealPictures], bar: Progress
) -> Outcome:
    """Let every candidate answer the test pairs, and score the answers against the real pictures of its size."""
    data = read_data(options.data, "test", candidates[0].size, options.profile)
    which = evenly(len(data.pairs), options.pairs or len(data.pairs))
    names = pair_names(data, which)
    files = dict(zip(which.tolist(), picture_names(names), strict=True)) if options.save_pictures else {}
    for note in data.notes:
        say(bar.console, note, style="yellow")

    shown = which[evenly(len(which), options.grid)].tolist() if options.grid else []
    columns: dict[str, list[Answer]] = {candidate.name: [] for candidate in candidates}
    several = len([*options.run, *options.model]) > 1
    results: dict[str, dict[str, float]] = {}
    warnings = different_sizes(candidates)
    real_by_size: dict[tuple[int, int], Statistics] = {}
    for candidate in candidates:
        tally = Tally(scorer)
        task = bar.add_task(candidate.name, total=len(which))
        sized = data
        if candidate.size != data.size:  # a data set may hold its pictures at several sizes
            sized = read_data(options.data, "test", candidate.size, options.profile)
            if sized.names != data.names or not torch.equal(sized.pairs, data.pairs):
                raise UserError(
                    f"--data: {options.data} has other test pairs for pictures of {candidate.size} (height, width) "
                    f"than for {data.size}, so that scores would not compare; score these models one by one"
                )
        for found in answers(candidate, sized, which, batch_size=options.batch_size, device=scorer.device):
            tally.add([answer.scored for answer in found])
            columns[candidate.name] += [answer for answer in found if answer.number in shown]
            if options.save_pictures is not None and candidate.name != COPY_SOURCE:
                folder = options.save_pictures
                _save(folder / candidate.name if several else folder, found, files)
            bar.advance(task, len(found))
        if candidate.size not in real_by_size:
            real_by_size[candidate.size] = statistics_of(
                real.get(candidate.size), candidate.size, scorer, options.batch_size, bar
            )
        results[candidate.name] = tally.result(real_by_size[candidate.size])
        warnings += [f"{candidate.name}: {warning}" for warning in tally.warnings(real_by_size[candidate.size])]
    if shown:
        pairs = [answer.batch for answer in columns[candidates[0].name]]
        looks = {name: [answer.result for answer in found] for name, found in columns.items() if name != COPY_SOURCE}
        title = f"{len(shown)} of {len(data.pairs)} test pairs of {options.data.name}"
        save_comparison(comparison_of(options), pairs, looks, title)
    return Outcome(results, warnings, _about(options, candidates, data, names, real.get(candidates[0].size)))


def different_sizes(candidates: list[Candidate]) -> list[str]:
    """Return a warning if the candidates are scored on pictures of several sizes."""
    if len({candidate.size for candidate in candidates}) == 1:
        return []
    sizes = ", ".join(f"{candidate.name} at {candidate.size[0]}x{candidate.size[1]}" for candidate in candidates)
    return [f"scores of different sizes do not compare: {sizes} (height x width)"]


def _about(
    options: Options,
    candidates: list[Candidate],
    data: PoseData,
    names: list[tuple[str, str]],
    real: RealPictures | None,
) -> dict[str, Any]:
    """Return what was scored against what."""
    return {
        "task": TASKS[data.paired],
        "models": {candidate.name: candidate.about for candidate in candidates},
        "data": {
            "folder": str(options.data),
            "phase": "test",
            "pairs": len(names),
            "pairs_in_data": len(data.pairs),
            "pictures": len(data),
            "left_out": data.notes,
            "names_sha256": digest_of(names),
        },
        "real": None if real is None else {"what": real.what, "pictures": len(real.names)},
        "generated_pictures": GENERATED,
        "resizing": RESIZING,
    }


def _save(folder: Path, found: list[Answer], files: dict[int, str]) -> None:
    """Write generated pictures, each whole or not at all."""
    for answer in found:
        picture = Image.fromarray(answer.scored.result.permute(1, 2, 0).contiguous().numpy())
        write_png(folder / files[answer.number], picture)
