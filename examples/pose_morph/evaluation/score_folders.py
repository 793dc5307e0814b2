"""Scores of pictures that lie in a folder, whatever made them."""

from rich.progress import Progress

from examples.pose_morph.evaluation.matching import Matched
from examples.pose_morph.evaluation.options import Options
from examples.pose_morph.evaluation.pairs import digest_of, read_bytes
from examples.pose_morph.evaluation.real_pictures import RealPictures, statistics_of
from examples.pose_morph.evaluation.report import ON_DISK, Outcome
from examples.pose_morph.evaluation.tally import Scorer, Tally
from examples.pose_morph.messages import say
from examples.pose_morph.scores.scored_pair import ScoredPair


def score_folders(
    options: Options, matched: Matched, scorer: Scorer, real: RealPictures | None, bar: Progress
) -> Outcome:
    """Score the pictures of a folder against those of another that they were matched with."""
    for note in matched.notes:
        say(bar.console, note, style="yellow")
    tally, task = Tally(scorer), bar.add_task("scoring", total=len(matched.pairs))
    for start in range(0, len(matched.pairs), options.batch_size):
        some = matched.pairs[start : start + options.batch_size]
        tally.add([ScoredPair(read_bytes(made), read_bytes(truth), None) for made, truth in some])
        bar.advance(task, len(some))
    statistics = statistics_of(real, None, scorer, options.batch_size, bar)
    formats = {
        side: sorted({files[place].suffix.lower().lstrip(".") for files in matched.pairs})
        for place, side in enumerate(("generated", "truth"))
    }
    about = {
        "task": "pictures in folders, matched by name",
        "data": {
            "generated": str(options.generated),
            "truth": str(options.truth),
            "pairs": len(matched.pairs),
            "left_out": matched.notes,
            "formats": formats,
            "names_sha256": digest_of([(made.name, truth.name) for made, truth in matched.pairs]),
        },
        "real": None if real is None else {"what": real.what, "pictures": len(real.names)},
        "generated_pictures": ON_DISK,
        "resizing": "none but what a protocol's definition says",
    }
    return Outcome({"generated": tally.result(statistics)}, tally.warnings(statistics), about)
