"""The options of the evaluation script, checked before anything is read."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, get_args

import tyro

from examples.pose_morph.data.profiles import Profile
from examples.pose_morph.errors import UserError
from examples.pose_morph.option_types import Count, Folder, Number, OptionalFile, OptionalFolder, Switch, check_least
from examples.pose_morph.scores.protocols import (
    OFFLINE,
    PairProtocol,
    ProtocolName,
    SetProtocol,
    WeightFiles,
)
from examples.pose_morph.training.options import PEOPLE

Folders = Annotated[tuple[Path, ...], tyro.conf.UseAppendAction, tyro.conf.arg(metavar="FOLDER", help_behavior_hint="")]
Files = Annotated[tuple[Path, ...], tyro.conf.UseAppendAction, tyro.conf.arg(metavar="FILE", help_behavior_hint="")]
Asked = Literal["offline", PairProtocol, SetProtocol]
ELSEWHERE = Path("runs/pose_morph")
"""Where scores go that belong to no run, or to several."""

ALL: tuple[ProtocolName, ...] = (*get_args(PairProtocol), *get_args(SetProtocol))


@dataclass(frozen=True)
class Options:
    """What to score, by which protocols, and where the scores go."""

    run: Folders = ()
    """Folder of a training run; may be given several times, for a column each."""
    model: Files = ()
    """A model's .safetensors file; may be given several times."""
    data: Folder = PEOPLE
    """Data folder; its test pairs are scored, and its training pictures are the real ones of a Fréchet distance."""
    profile: Profile = "auto"
    """How the data lies in its folder; auto finds out."""
    generated: OptionalFolder = None
    """Score the pictures of this folder, made by whatever program, instead of a model's; needs --truth."""
    truth: OptionalFolder = None
    """The true pictures for --generated; target.png belongs to target.png, and source___target.png too."""
    real: OptionalFolder = None
    """Real pictures of the Fréchet distances; by default every picture of the data's training phase."""
    protocols: tuple[Asked, ...] = ("offline",)
    """Names of scores; offline stands for all that need no weight file."""
    out: OptionalFile = None
    """Where the scores go; by default evaluation/metrics.json in the folder of the one --run, and otherwise
    runs/pose_morph/evaluation/metrics.json."""
    overwrite: Switch = False
    """Write over the scores of an earlier evaluation, and over its comparison.png or remove it."""
    save_pictures: OptionalFolder = None
    """Save every generated picture, without its padding, as source___target.png."""
    grid: Count = None
    """Write so many pairs side by side (source, pose, every result, truth) to comparison.png beside the scores."""
    pairs: Count = None
    """Score so many pairs, evenly chosen; by default all."""
    copy_source: Switch = False
    """Also score the answer that leaves the source picture as it is."""
    batch_size: Number = 8
    """Pairs, or pictures, at once."""
    device: str = "auto"
    """auto (a GPU where PyTorch sees one), cpu, cuda, cuda:N or mps."""
    alexnet_weights: OptionalFile = None
    """AlexNet of torchvision, for lpips_alex."""
    lpips_weights: OptionalFile = None
    """Linear layers of LPIPS 0.1 for AlexNet, for lpips_alex."""
    inception_weights: OptionalFile = None
    """Inception-v3 of torchvision, for fid_gfla."""
    inception2015_weights: OptionalFile = None
    """Inception of pytorch-fid, for fid_tf2015."""

    @property
    def weights(self) -> WeightFiles:
        """The weight files by what they are for."""
        return WeightFiles(self.alexnet_weights, self.lpips_weights, self.inception_weights, self.inception2015_weights)

    @property
    def from_folders(self) -> bool:
        """Whether pictures on disk are scored."""
        return self.generated is not None


def check(options: Options) -> None:
    """Refuse options that cannot work together.

    Raises:
        UserError: the message names the option.
    """
    models = len(options.run) + len(options.model)
    if (options.generated is None) != (options.truth is None):
        raise UserError("--generated and --truth: expected both folders, got one")
    if options.from_folders == (models > 0):
        raise UserError("expected --run FOLDER or --model FILE, or --generated FOLDER with --truth FOLDER")
    for name in ("grid", "pairs", "batch_size"):
        check_least(name, getattr(options, name), 1)
    if options.from_folders:
        for name in ("grid", "pairs", "save_pictures", "copy_source"):
            if getattr(options, name):
                raise UserError(f"--{name.replace('_', '-')}: goes with --run or --model, not with --generated")
    folder = options.save_pictures
    if folder is not None and folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"--save-pictures: expected a new or empty folder, and {folder} is not")


def asked_protocols(options: Options) -> tuple[list[ProtocolName], list[ProtocolName]]:
    """Return the protocols to compute, and those among them that were asked for by name."""
    required = [name for name in ALL if name in options.protocols]
    wanted = [name for name in ALL if name in required or ("offline" in options.protocols and name in OFFLINE)]
    return wanted, required


def place_of(options: Options) -> Path:
    """Return where the scores go."""
    if options.out is not None:
        return options.out
    one_run = len(options.run) == 1 and not options.model
    return (options.run[0] if one_run else ELSEWHERE) / "evaluation" / "metrics.json"


def comparison_of(options: Options) -> Path:
    """Return where the pairs of --grid go, side by side."""
    return place_of(options).with_name("comparison.png")
