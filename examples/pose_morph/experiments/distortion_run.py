"""One run of the distortion task: train one attention kind for a fixed time, score it on the fixed test set.

Started by `experiments.distortion`, several at a time. Leaves log.jsonl and result.json in its folder.
"""

import json
import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from rich.console import Console
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from examples.pose_morph.atomic import append_line, replace_file, write_json, write_text
from examples.pose_morph.command_line import run_command
from examples.pose_morph.data.evenly import evenly
from examples.pose_morph.data.pose_data import DataError
from examples.pose_morph.data.profiles import Profile, read_data
from examples.pose_morph.experiments.attention_memory import attention_memory, peak_allocated
from examples.pose_morph.experiments.distortion_task import Budget, Pictures, random_batches, take_cases, test_batches
from examples.pose_morph.networks.attention import CosineAttention, FullAttention
from examples.pose_morph.networks.attention_names import with_attention
from examples.pose_morph.networks.generator import Generator, Pose, draw_pose
from examples.pose_morph.networks.settings import Grid, ModelSettings
from examples.pose_morph.presets import PRESETS, PresetName
from examples.pose_morph.scores.metrics import score_pairs, to_bytes
from examples.pose_morph.scores.perceptual import EfficientNetLite0, PerceptualDistance
from examples.pose_morph.training.batch import Batch
from examples.pose_morph.training.device import choose_device
from examples.pose_morph.training.losses import reconstruction_loss
from examples.pose_morph.training.resume import digest_of

VALIDATION = 80
"""Training pictures that tuning is scored on instead of the test set; never trained on, by any run.

They are the last ones, and never more than a fifth of all.
"""
SHOWN = 4
"""Test cases, spread over all, whose results are kept to be looked at."""


@dataclass(frozen=True)
class RunOptions:
    """What decides a run's result."""

    out: Path
    """Folder of the run."""
    data: Path
    """Folder with the pictures."""
    profile: Profile = "auto"
    """Its layout."""
    preset: PresetName = "demo"
    """The network, and the weights of its losses."""
    attention: str = "gpa"
    """What copies at the large levels, as for train.py."""
    seed: int = 0
    """Seed of the weights and of the training batches."""
    seconds: float = 200.0
    """Training time."""
    learning_rate: float = 0.005
    """Adam's."""
    sharpness: float = 80.0
    """First 1/temperature of the cosine attention at the large levels."""
    widen: float = 1.0
    """Factor of the channels at the large levels."""
    phase: Literal["validation", "test"] = "test"
    """What is scored."""
    test_cases: int = 500
    """Pictures under random maps that are scored."""
    device: str = "cpu"
    """cpu, cuda or cuda:N."""


def model_settings(options: RunOptions) -> ModelSettings:
    """Return the preset's model with this run's attention; ``widen`` multiplies the channels where GPA would stand."""
    preset = PRESETS[options.preset].model
    levels = tuple(
        replace(level, channels=round(level.channels * options.widen)) if isinstance(before.attention, Grid) else level
        for level, before in zip(with_attention(preset, options.attention).levels, preset.levels, strict=True)
    )
    return replace(preset, levels=levels)


def set_sharpness(generator: Generator, sharpness: float) -> None:
    """Start the cosine attentions that stand for GPA at ``sharpness``; dense levels keep the preset's."""
    for module in generator.modules():
        if isinstance(module, CosineAttention) and not isinstance(module.attention, FullAttention):
            nn.init.constant_(module.log_sharpness, math.log(sharpness))


def train(
    generator: Generator, pictures: Pictures, perceptual: PerceptualDistance, options: RunOptions, device: torch.device
) -> tuple[nn.Module, int]:
    """Minimise L_self alone until the time is up; return the averaged generator and the number of steps."""
    settings = PRESETS[options.preset].training
    ema = AveragedModel(generator, multi_avg_fn=get_ema_multi_avg_fn(settings.ema_decay), use_buffers=True)
    optimizer = torch.optim.Adam(generator.parameters(), lr=options.learning_rate, betas=settings.betas)
    batches = random_batches(pictures, settings.batch_size, settings.tau, options.seed, device)
    budget, step = Budget(options.seconds, device), 0
    log = options.out / "log.jsonl"
    write_text(log, "")
    while (spent := budget.spent()) < options.seconds:
        for group in optimizer.param_groups:  # a straight line to zero over the last third, as in train.py
            group["lr"] = options.learning_rate * min(1.0, 3 * (1 - spent / options.seconds))
        batch = next(batches)
        loss = distortion_loss(generator(*inputs(batch, generator.settings)), batch, perceptual, options)
        optimizer.zero_grad(set_to_none=True)
        loss.mean().backward()
        optimizer.step()
        ema.update_parameters(generator)
        step += 1
        if step % 10 == 0:
            append_line(log, json.dumps({"step": step, "seconds": round(spent, 1), "self": loss.mean().item()}))
    return ema.eval().requires_grad_(False), step


def inputs(batch: Batch, settings: ModelSettings) -> tuple[Tensor, Pose, Pose]:
    """Return what the generator takes: picture, its pose, the pose wanted."""
    return batch.source, draw_pose(batch.source_keypoints, settings), draw_pose(batch.target_keypoints, settings)


def distortion_loss(result: Tensor, batch: Batch, perceptual: PerceptualDistance, options: RunOptions) -> Tensor:
    """L_self as the preset weighs it."""
    settings = PRESETS[options.preset].training
    return reconstruction_loss(
        result,
        batch.target,
        perceptual,
        perceptual_weight=settings.perceptual_weight,
        pixel_weight=settings.pixel_weight,
    )


def step_memory(generator: Generator, batch: Batch, perceptual: PerceptualDistance, options: RunOptions) -> int:
    """Return the bytes that a whole training step needs at its peak, over weights and optimiser."""

    def run() -> None:
        distortion_loss(generator(*inputs(batch, generator.settings)), batch, perceptual, options).backward()
        generator.zero_grad(set_to_none=True)

    return peak_allocated(run, batch.source.device)


def data_digest(options: RunOptions) -> dict[str, dict[str, int]]:
    """Return what tells the data of a run from others, phase by phase."""
    size = PRESETS[options.preset].model.size
    phases = ("train",) if options.phase == "validation" else ("train", "test")
    return {phase: digest_of(read_data(options.data, phase, size, options.profile)) for phase in phases}


def read_pictures(options: RunOptions, size: tuple[int, int]) -> tuple[Pictures, Pictures]:
    """Return the pictures to train on and those to score; the validation pictures are never among the first.

    Raises:
        DataError: the data cannot be read, or has too few pictures to keep some aside.
    """
    pictures = Pictures.of(read_data(options.data, "train", size, options.profile))
    count = len(pictures.images)
    if count < 2:
        raise DataError(f"data: expected at least 2 training pictures in {options.data}, got {count}")
    validation = pictures.last(min(VALIDATION, max(1, count // 5)))
    scored = validation
    if options.phase == "test":
        scored = Pictures.of(read_data(options.data, "test", size, options.profile))
    return pictures.without(validation), scored


def run(options: RunOptions, console: Console) -> int:
    """Train, score, and write the result; return the exit code."""
    device = choose_device(options.device)
    model, settings = model_settings(options), PRESETS[options.preset].training
    pictures, scored = read_pictures(options, model.size)
    options.out.mkdir(parents=True, exist_ok=True)

    torch.manual_seed(options.seed)
    generator = Generator(model).to(device, memory_format=torch.channels_last)
    set_sharpness(generator, options.sharpness)
    perceptual = PerceptualDistance(EfficientNetLite0()).to(device, memory_format=torch.channels_last)
    one_batch = next(random_batches(pictures, settings.batch_size, settings.tau, 0, device))
    memory = {
        "attention": attention_memory(generator, device),
        "step": step_memory(generator, one_batch, perceptual, options),
    }
    generator.zero_grad(set_to_none=True)
    ema, steps = train(generator, pictures, perceptual, options, device)

    def cases():
        return test_batches(scored, options.test_cases, settings.batch_size, settings.tau, device)

    def draw(batch: Batch) -> Tensor:
        with torch.no_grad():
            return ema(*inputs(batch, model))

    scores = score_pairs(cases(), draw, perceptual, extractor="efficientnet-lite0")
    scores["perceptual"] = scores.pop("perceptual_efficientnet_lite0")  # as the report has it
    scores["loss"] = settings.perceptual_weight * scores["perceptual"] + settings.pixel_weight * scores["l1"]
    chosen = evenly(options.test_cases, SHOWN)
    few = take_cases(scored, chosen, options.test_cases, settings.tau, device)
    shown = {"source": few.source, "truth": few.target, "result": draw(few)}
    arrays = {name: to_bytes(image).numpy() for name, image in shown.items()}
    replace_file(options.out / "shown.npz", lambda file: np.savez_compressed(file, **arrays))
    parameters = sum(parameter.numel() for parameter in generator.parameters())
    options_ = {name: str(value) if isinstance(value, Path) else value for name, value in asdict(options).items()}
    result = {"options": options_, "scores": scores, "bytes": memory, "steps": steps, "parameters": parameters}
    result["data"] = data_digest(options)
    write_json(options.out / "result.json", {**result, "torch": torch.__version__})
    console.print(f"{steps} steps, held-out loss {scores['loss']:.4f}")
    return 0


if __name__ == "__main__":
    run_command(RunOptions, run, prog="python -m examples.pose_morph.experiments.distortion_run", description=__doc__)
