"""A trained generator on disk: weights as safetensors, all that is needed to build it in the file's header."""

import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import safetensors
import safetensors.torch
import torch

import gpa_nd
from examples.pose_morph.atomic import replace_file
from examples.pose_morph.errors import UserError
from examples.pose_morph.networks.generator import Generator
from examples.pose_morph.networks.model_card import write_model_card
from examples.pose_morph.networks.settings import ModelSettings
from examples.pose_morph.networks.settings_json import SettingsError, from_json, to_json
from examples.pose_morph.training.checkpoint import load_checkpoint

WEIGHTS = "model.safetensors"
FORMAT, FORMAT_VERSION = "gpa_nd.pose_morph", "1"
UNKNOWN = "unknown"
CHECKSUM = "crc32"
"""The header's field with the checksum of its other fields and of the weights, which safetensors itself has none of."""


@dataclass(frozen=True)
class ModelInfo:
    """Where a model comes from.

    Attributes:
        preset: Name of the preset it was built from.
        steps: Generator updates so far.
        seed: Seed of the weights and of the order of the data.
        data: What it was trained on, in words.
        licence: Licence of that data, as the person who trained it gave it.
        gpa_nd: Version of the library.
    """

    preset: str
    steps: int
    seed: int
    data: str = UNKNOWN
    licence: str = UNKNOWN
    gpa_nd: str = gpa_nd.__version__


class LoadedModel(NamedTuple):
    """A generator that is ready to draw (in eval mode), how it is built and where it comes from."""

    generator: Generator
    settings: ModelSettings
    info: ModelInfo


def save_model(folder: Path, generator: Generator, *, info: ModelInfo) -> None:
    """Write model.safetensors and the model card README.md, which quotes ``folder``/metrics.json if it is there."""
    header = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "settings": json.dumps(to_json(generator.settings)),
        **{name: str(value) for name, value in vars(info).items()},
    }
    weights = {name: value.detach().cpu().contiguous() for name, value in generator.state_dict().items()}
    header[CHECKSUM] = checksum_of(header, weights)
    content = safetensors.torch.save(weights, metadata=header)
    replace_file(folder / WEIGHTS, lambda file: file.write(content))
    write_model_card(folder, generator, vars(info))


def load_generator(path: Path, device: torch.device) -> LoadedModel:
    """Load a model from a run's folder or a .safetensors file.

    A folder without model.safetensors gives the averaged generator of its checkpoint.pt.

    Raises:
        UserError: there is no such file, it is no model of this program, of another format, cut short, or does not fit
            the settings it names.
    """
    if path.is_dir():
        if not (path / WEIGHTS).is_file() and (path / "checkpoint.pt").is_file():
            return _load_checkpoint(path / "checkpoint.pt", device)
        path = path / WEIGHTS
        if not path.is_file():
            raise UserError(f"model: {path.parent} holds neither {WEIGHTS} nor checkpoint.pt; give the folder of a run")
    if not path.is_file():
        raise UserError(f"model: there is no {path}; give the folder of a run, or a .safetensors file")
    if path.suffix == ".pt":
        raise UserError(f"model: {path} is a checkpoint; give its folder {path.parent}, or export it first")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            weights = {name: file.get_tensor(name) for name in file.keys()}
    except (safetensors.SafetensorError, OSError) as error:
        raise UserError(f"model: {path} is no whole safetensors file ({error}); export or copy it again") from error
    if header.get("format") != FORMAT:
        raise UserError(f"model: {path} is no model of this program (its header has no format = {FORMAT})")
    if header.get("format_version") != FORMAT_VERSION:
        raise UserError(
            f"model: {path} has format version {header.get('format_version')}, and this program reads {FORMAT_VERSION}"
        )
    try:
        settings = from_json(ModelSettings, json.loads(header["settings"]))
        info = ModelInfo(
            header["preset"], int(header["steps"]), int(header["seed"]),
            header["data"], header["licence"], header["gpa_nd"],
        )  # fmt: skip
    except (SettingsError, KeyError, ValueError, RecursionError) as error:
        raise UserError(f"model: the header of {path} cannot be understood ({_words(error)})") from error
    if header.pop(CHECKSUM, None) != checksum_of(header, weights):
        raise UserError(f"model: {path} is damaged: its content does not have its checksum; export or copy it again")
    return LoadedModel(_build(settings, weights, path, device), settings, info)


def folder_beside(path: Path, name: str) -> Path:
    """Return where results about the model of ``path`` go by default: RUN/name, or FILE-name beside another file."""
    if path.is_dir():
        return path / name
    return path.with_name(name if path.name == WEIGHTS else f"{path.stem}-{name}")


def _load_checkpoint(path: Path, device: torch.device) -> LoadedModel:
    saved = load_checkpoint(path)
    try:
        identity = json.loads(saved["settings"])
        settings = from_json(ModelSettings, identity["model"])
        trained_on = saved.get("trained_on", {})  # older checkpoints have none
        info = ModelInfo(identity["preset"], int(saved["step"]), int(identity["seed"]), **trained_on)
        prefix = "module."  # of AveragedModel, which counts its updates beside the weights
        weights = {name.removeprefix(prefix): x for name, x in saved["ema"].items() if name.startswith(prefix)}
    except (KeyError, ValueError, TypeError, AttributeError, OverflowError, RuntimeError) as error:
        raise UserError(f"model: {path} is no checkpoint of this version ({_words(error)})") from error
    return LoadedModel(_build(settings, weights, path, device), settings, info)


def _build(settings: ModelSettings, weights: dict[str, torch.Tensor], path: Path, device: torch.device) -> Generator:
    try:
        with torch.device("meta"):  # whatever the settings ask for, this takes no memory
            shell = Generator(settings)
    except Exception as error:  # a layer's own, about the first number that it cannot take
        raise UserError(f"model: nothing can be built from the settings of {path} ({error})") from error
    try:
        shell.load_state_dict(weights, assign=True)
    except Exception as error:  # weights may be anything in a checkpoint that was tampered with
        first = str(error).splitlines()[1:2]
        raise UserError(f"model: the weights of {path} do not fit its settings ({''.join(first).strip()})") from error
    with torch.random.fork_rng(devices=[]):  # first weights are drawn and thrown away
        generator = Generator(settings)
    generator.load_state_dict(weights)
    return generator.to(device, memory_format=torch.channels_last).eval().requires_grad_(False)


def checksum_of(header: Mapping[str, str], weights: Mapping[str, torch.Tensor]) -> str:
    """Return the checksum of a header's other fields and of weights."""
    checksum = zlib.crc32(json.dumps(header, sort_keys=True).encode())
    for name, value in sorted(weights.items()):
        checksum = zlib.crc32(f"{name} {value.dtype} {tuple(value.shape)}".encode(), checksum)
        checksum = zlib.crc32(value.reshape(-1).view(torch.uint8).numpy(), checksum)
    return f"{checksum:08x}"


def _words(error: Exception) -> str:
    return f"{error.args[0]} is missing" if isinstance(error, KeyError) else str(error)
