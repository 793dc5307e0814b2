"""The script's options, and the settings that follow from them."""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from examples.pose_morph.errors import UserError
from examples.pose_morph.networks.attention_names import attention_name, with_attention
from examples.pose_morph.networks.settings_json import to_json
from examples.pose_morph.presets import PRESETS, Preset, PresetName

PEOPLE = Path(__file__).parents[1] / "people"

Count = Annotated[int | None, tyro.conf.arg(metavar="N", help_behavior_hint="")]
Folder = Annotated[Path, tyro.conf.arg(metavar="FOLDER", help_behavior_hint="")]
OptionalFolder = Annotated[Path | None, tyro.conf.arg(metavar="FOLDER", help_behavior_hint="")]
AttentionName = Annotated[str, tyro.conf.arg(metavar="NAME", help_behavior_hint="")]
Switch = Annotated[bool, tyro.conf.arg(help_behavior_hint="")]


@dataclass(frozen=True)
class Options:
    """What to train, on what, and where to put it."""

    preset: PresetName = "demo"
    """Model and training settings (examples/pose_morph/presets.py)."""
    data: Folder = PEOPLE
    """Folder in the PATN layout; the default is the rendered people of this repository."""
    out: OptionalFolder = None
    """Folder of the run; by default runs/pose_morph/PRESET-ATTENTION."""
    resume: Switch = False
    """Go on from the folder's checkpoint."""
    attention: AttentionName = "gpa"
    """What copies at the large levels: gpa, full, no, nystromformer, performer, or a name of the paper as
    GPA1024_12_64, NYF512, PER708."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """auto takes a GPU where PyTorch sees one."""
    max_steps: Count = None
    """Stop after so many steps in all; the learning rates still follow the preset's length."""
    batch_size: Count = None
    """Pairs per step, instead of the preset's number."""
    sample_every: Count = None
    """Steps from one sample grid to the next, instead of the preset's number."""
    eval_pairs: Count = None
    """Held-out pairs to score at the end, evenly chosen; by default all."""
    seed: int = 0
    """Seed of the weights and of the order of the data."""


def settings_of(options: Options) -> Preset:
    """Return the preset with the options that override it."""
    preset = PRESETS[options.preset]
    for name in ("max_steps", "batch_size", "sample_every", "eval_pairs"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise UserError(f"--{name.replace('_', '-')}: expected at least 1, got {value}")
    training = replace(
        preset.training,
        batch_size=options.batch_size or preset.training.batch_size,
        sample_every=options.sample_every or preset.training.sample_every,
    )
    return Preset(with_attention(preset.model, options.attention), training)


def identity_of(options: Options, preset: Preset) -> dict[str, Any]:
    """Return what must be the same when a run is resumed."""
    model, training = to_json(preset.model), asdict(preset.training)
    chosen = {"preset": options.preset, "attention": attention_name(preset.model), "seed": options.seed}
    return {**chosen, "model": model, "training": training}
