"""The script's options, and the settings that follow from them."""

import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import tyro

from examples.pose_morph.data.profiles import Profile
from examples.pose_morph.errors import UserError
from examples.pose_morph.networks.attention_names import attention_name, with_attention
from examples.pose_morph.networks.settings_json import to_json
from examples.pose_morph.option_types import (
    Count,
    Folder,
    Number,
    OptionalFile,
    OptionalFolder,
    Switch,
    check_least,
)
from examples.pose_morph.presets import PRESETS, Preset, PresetName
from examples.pose_morph.scores.perceptual import ExtractorName
from examples.pose_morph.training.precision import Precision

PEOPLE = Path(__file__).parents[1] / "people"
PEOPLE_LICENCE = "CC0-1.0"

AttentionName = Annotated[str, tyro.conf.arg(metavar="NAME", help_behavior_hint="")]
Text = Annotated[str | None, tyro.conf.arg(metavar="TEXT", help_behavior_hint="")]


@dataclass(frozen=True)
class Options:
    """What to train, on what, and where to put it."""

    preset: PresetName = "demo"
    """Model and training settings (examples/pose_morph/presets.py)."""
    data: Folder = PEOPLE
    """Folder with the data; the default is the rendered people of this repository."""
    profile: Profile = "auto"
    """How the folder is laid out; auto finds out."""
    out: OptionalFolder = None
    """Folder of the run; by default runs/pose_morph/PRESET-ATTENTION."""
    plan: Switch = False
    """Print what would be trained, every attention layer with its operations and memory, and stop."""
    resume: Switch = False
    """Go on from the folder's checkpoint."""
    changed_data: Switch = False
    """With --resume: go on although the data are no longer those of the checkpoint, as after leaving pictures out. The
    result is then not that of an uninterrupted run."""
    attention: AttentionName = "gpa"
    """What copies at the large levels: gpa, full, no, nystromformer, performer, or a name of the paper as
    GPA1024_12_64, NYF512, PER708."""
    device: str = "auto"
    """auto (a GPU where PyTorch sees one), cpu, cuda, cuda:N or mps."""
    precision: Precision = "float32"
    """What the networks compute in; float16 needs a CUDA device."""
    features: ExtractorName = "efficientnet-lite0"
    """Network of the perceptual loss; vgg19, as in the paper, wants --feature-weights."""
    feature_weights: OptionalFile = None
    """Weights of VGG-19, as torchvision has them (vgg19-dcbb9e9d.pth)."""
    licence: Text = None
    """Licence of the data, for the model card; by default CC0-1.0 for the repository's people, and unknown for other
    data."""
    steps: Count = None
    """Length of the whole run, instead of the preset's number; the learning rates follow it."""
    max_steps: Count = None
    """Stop after so many steps in all; the learning rates still follow the preset's length."""
    batch_size: Count = None
    """Pairs per step over all processes, instead of the preset's number."""
    accumulate: Number = 1
    """Work every step's batch off in so many parts, one after the other, to save memory."""
    minibatch_group: Count = None
    """Samples per group of the discriminator's minibatch statistics; by default the largest number up to 4 that divides
    what a process sees at once, and with --resume the run's. Give it to get the same groups however the batch is
    divided."""
    workers: Count = None
    """Processes that read pictures ahead; by default 0 on a CPU, and up to 4 beside a GPU."""
    sample_every: Count = None
    """Steps from one sample grid to the next, instead of the preset's number."""
    checkpoint_every: Count = None
    """Steps from one checkpoint to the next, instead of the preset's number."""
    eval_pairs: Count = None
    """Held-out pairs to score at the end, evenly chosen; by default all."""
    seed: Number = 0
    """Seed of the weights and of the order of the data."""


def settings_of(options: Options, processes: int = 1, *, kept_group: int | None = None) -> Preset:
    """Return the preset with the options that override it, for so many processes.

    ``kept_group`` is the minibatch group of the run that goes on: the default where it divides what a process sees.

    Raises:
        UserError: an option is out of range, or the batch cannot be divided as asked.
    """
    preset = PRESETS[options.preset]
    for name in (
        "steps", "max_steps", "batch_size", "accumulate", "minibatch_group",
        "sample_every", "checkpoint_every", "eval_pairs",
    ):  # fmt: skip
        check_least(name, getattr(options, name), 1)
    for name in ("workers", "seed"):
        check_least(name, getattr(options, name), 0)
    if options.changed_data and not options.resume:
        raise UserError("--changed-data: expected --resume with it; a new run takes the data as they are")
    overridden = {
        name: getattr(options, name)
        for name in ("steps", "batch_size", "minibatch_group", "sample_every", "checkpoint_every")
        if getattr(options, name) is not None
    }
    training = replace(preset.training, **overridden)

    parts = processes * options.accumulate
    if training.batch_size % parts:
        raise UserError(
            f"--batch-size: expected a multiple of {parts} ({processes} process(es) times --accumulate "
            f"{options.accumulate}), got {training.batch_size}"
        )
    part = training.batch_size // parts
    kept = kept_group if kept_group is not None and part % kept_group == 0 else None
    group = training.minibatch_group or kept or max(n for n in range(1, min(4, part) + 1) if part % n == 0)
    if part % group:
        raise UserError(
            f"--minibatch-group: expected a number that divides the {part} sample(s) that a process sees at once, got "
            f"{group}"
        )
    gamma = training.r1_gamma
    if gamma is None:
        gamma = 0.0002 * math.prod(preset.model.size) / training.batch_size
    training = replace(training, minibatch_group=group, r1_gamma=gamma)
    return Preset(with_attention(preset.model, options.attention), training)


def licence_of(options: Options) -> str:
    """Return the licence that the model card gives for the data."""
    if options.licence is not None:
        return options.licence
    return PEOPLE_LICENCE if options.data.resolve() == PEOPLE.resolve() else "unknown"


def identity_of(options: Options, preset: Preset) -> dict[str, Any]:
    """Return what must be the same when a run is resumed."""
    chosen = {name: getattr(options, name) for name in ("preset", "seed", "precision", "features")}
    chosen["attention"] = attention_name(preset.model)
    return {**chosen, "model": to_json(preset.model), "training": asdict(preset.training)}
