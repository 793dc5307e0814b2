"""Score trained pose-morphing models, or pictures that any program made, by named protocols.

    python -m examples.pose_morph.evaluate --run RUN_FOLDER --data DATA_FOLDER
    python -m examples.pose_morph.evaluate --generated FOLDER --truth FOLDER

Prints the scores and writes metrics.json (see --out), in which every score stands under the name of its protocol, with
its definition, counts, hashes and versions. Scores of different protocols cannot be compared. Nothing is downloaded:
LPIPS and FID need weight files.
"""

from rich.console import Console

from examples.pose_morph.atomic import write_json
from examples.pose_morph.command_line import run_command
from examples.pose_morph.data.pose_data import DataError
from examples.pose_morph.data.profiles import read_data
from examples.pose_morph.errors import UserError
from examples.pose_morph.evaluation.candidates import Candidate, copy_source, load_candidates
from examples.pose_morph.evaluation.matching import match_pictures
from examples.pose_morph.evaluation.options import Options, asked_protocols, check, comparison_of, place_of
from examples.pose_morph.evaluation.real_pictures import RealPictures, Size, from_folder, from_training
from examples.pose_morph.evaluation.report import compose, show
from examples.pose_morph.evaluation.score_folders import score_folders
from examples.pose_morph.evaluation.score_models import score_models
from examples.pose_morph.evaluation.tally import Scorer
from examples.pose_morph.existing import refuse_existing
from examples.pose_morph.messages import counted, say
from examples.pose_morph.progress import progress_bar
from examples.pose_morph.scores.protocols import NEEDS_KEYPOINTS, SET_PROTOCOLS, ProtocolName, check_files
from examples.pose_morph.training.device import choose_device
from examples.pose_morph.writable import check_writable


def evaluate(options: Options, console: Console) -> int:
    """Score as ``options`` say and write the file of scores; return the exit code."""
    check(options)
    wanted, required = asked_protocols(options)
    check_files(wanted, options.weights)
    place, comparison = place_of(options), comparison_of(options)
    refuse_existing([place, *([comparison] if options.grid else [])], overwrite=options.overwrite)
    check_writable(place)
    if options.save_pictures is not None:
        check_writable(options.save_pictures / "source___target.png")
    device = choose_device(options.device)
    not_computed: dict[str, str] = {}

    def leave_out(names: tuple[ProtocolName, ...], reason: str) -> None:
        for name in names:
            if name in required:
                raise UserError(f"--protocols: {name} cannot be computed: {reason}")
            if name in wanted:
                not_computed[name] = reason

    candidates: list[Candidate] = []
    real: dict[Size, RealPictures] = {}
    matched = None
    if options.generated is not None and options.truth is not None:
        matched = match_pictures(options.generated, options.truth)
        leave_out(NEEDS_KEYPOINTS, "pictures in folders come without keypoints")
        if options.real is None:
            leave_out(SET_PROTOCOLS, "there are no real pictures; give --real FOLDER")
        else:
            real = {None: from_folder(options.real)}
    else:
        candidates = load_candidates([*options.run, *options.model], device)
        if options.copy_source:
            candidates.append(copy_source(candidates[0].size))
        if any(name in wanted for name in SET_PROTOCOLS):
            try:
                real = {size: real_of(options, size) for size in {candidate.size for candidate in candidates}}
            except DataError as error:
                leave_out(SET_PROTOCOLS, str(error))
    names = [name for name in wanted if name not in not_computed]
    scorer = Scorer(names, options.weights, device, required=required)
    with progress_bar(console) as bar:
        if matched is not None:
            outcome = score_folders(options, matched, scorer, real.get(None), bar)
        else:
            outcome = score_models(options, candidates, scorer, real, bar)
    left_out = not_computed | scorer.left_out
    report = compose(outcome, protocols=wanted, weights=options.weights, not_computed=left_out)
    show(report, console)
    if not options.grid and place.exists():
        comparison.unlink(missing_ok=True)  # of the scores that are written over
    write_json(place, report)
    say(console, f"{counted(report['data']['pairs'], 'pair')} scored: {place}")
    if options.grid:
        say(console, f"{counted(min(options.grid, report['data']['pairs']), 'pair')} side by side: {comparison}")
    return 0


def real_of(options: Options, size: tuple[int, int]) -> RealPictures:
    """Return the real pictures of a Fréchet distance for a model of that size."""
    if options.real is not None:
        return from_folder(options.real)
    return from_training(read_data(options.data, "train", size, options.profile), options.data)


if __name__ == "__main__":
    run_command(Options, evaluate, prog="python -m examples.pose_morph.evaluate", description=__doc__)
