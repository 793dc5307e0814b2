"""Train the pose-morphing model of the paper: one picture of a person, and a pose it should take.

Without arguments the demo preset learns the rendered people that come with the repository, in minutes on two CPU
cores. The run's folder gets samples/ (PNG), log.jsonl, checkpoint.pt and, at the end, metrics.json on held-out people.
Ctrl-C saves a checkpoint; the same command with --resume goes on from it.
"""

import json
import math
import shlex
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import tyro
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from examples.pose_morph.atomic import replace_file
from examples.pose_morph.data.patn import read_patn
from examples.pose_morph.errors import UserError
from examples.pose_morph.networks.discriminator import Discriminator
from examples.pose_morph.networks.generator import Generator, Pose, draw_pose
from examples.pose_morph.pictures.samples import save_samples
from examples.pose_morph.presets import Preset
from examples.pose_morph.scores.metrics import PROTOCOLS, score_pairs
from examples.pose_morph.scores.perceptual import EfficientNetLite0, PerceptualDistance
from examples.pose_morph.stop_signal import StopSignal
from examples.pose_morph.training.checkpoint import load_checkpoint, save_checkpoint
from examples.pose_morph.training.losses import (
    discriminator_gan_loss,
    generator_gan_loss,
    r1_penalty,
    reconstruction_loss,
)
from examples.pose_morph.training.options import Options, identity_of, settings_of
from examples.pose_morph.training.pair_stream import Batch, PairStream, take_pairs
from examples.pose_morph.training.run_log import RunLog

SAMPLE_ROWS = 6


def train(options: Options, console: Console) -> int:
    """Train, or go on training, as ``options`` say; return the exit code (0, or 128 + the signal that stopped it)."""
    # ------------------------------------------------------------------ settings, folder, data
    preset = settings_of(options)
    model_settings, settings = preset.model, preset.training
    out = options.out or Path("runs/pose_morph") / f"{options.preset}-{options.attention}"
    device = choose_device(options.device)
    saved = open_run(out, options, preset)
    people = read_patn(options.data, "train", model_settings.size)
    held_out = read_patn(options.data, "test", model_settings.size)
    for note in people.notes + held_out.notes:
        console.print(f"[yellow]{note}[/]", soft_wrap=True, highlight=False)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"out: cannot make the folder {out} ({error.strerror})") from error

    # ------------------------------------------------------------------ networks, optimisers, order of the data
    torch.manual_seed(options.seed)
    generator = Generator(model_settings).to(device, memory_format=torch.channels_last)
    discriminator = Discriminator(model_settings).to(device, memory_format=torch.channels_last)
    ema = AveragedModel(generator, multi_avg_fn=get_ema_multi_avg_fn(settings.ema_decay), use_buffers=True)
    ema.requires_grad_(False)
    perceptual = PerceptualDistance(EfficientNetLite0()).to(device, memory_format=torch.channels_last)
    optimizer_g = torch.optim.Adam(generator.parameters(), lr=settings.learning_rate, betas=settings.betas)
    # StyleGAN2's scaling of Adam for lazy R1 (appendix B); here R1 is added to the loss of its step.
    lazy = settings.r1_every / (settings.r1_every + 1)
    optimizer_d = torch.optim.Adam(
        discriminator.parameters(),
        lr=settings.discriminator_learning_rate * lazy,
        betas=(settings.betas[0] ** lazy, settings.betas[1] ** lazy),
    )
    stream = PairStream(people, settings.batch_size, options.seed, mirrored=settings.mirrored, tau=settings.tau)
    parts = {
        "generator": generator, "ema": ema, "discriminator": discriminator,
        "optimizer_g": optimizer_g, "optimizer_d": optimizer_d, "stream": stream,
    }  # fmt: skip

    step, discriminator_steps, seconds = 0, 0, 0.0
    if saved is not None:
        for name, part in parts.items():
            part.load_state_dict(saved[name])
        restore_random_state(saved["random"])
        step, discriminator_steps, seconds = saved["step"], saved["discriminator_steps"], saved["seconds"]
    log = RunLog(out / "log.jsonl", step)

    def checkpoint() -> None:
        counts = {"step": step, "discriminator_steps": discriminator_steps, "seconds": seconds}
        state = {name: part.state_dict() for name, part in parts.items()}
        same_run = json.dumps(identity_of(options, preset))
        save_checkpoint(out / "checkpoint.pt", {**state, **counts, "random": random_state(), "settings": same_run})

    def draw(batch: Batch) -> tuple[Pose, Pose]:
        return draw_pose(batch.source_keypoints, model_settings), draw_pose(batch.target_keypoints, model_settings)

    def morph(batch: Batch) -> Tensor:
        ema.eval()
        with torch.no_grad():
            return ema(batch.source, *draw(batch))

    shown = to_device(take_pairs(held_out, evenly(len(held_out.pairs), SAMPLE_ROWS)), device)
    last = min(settings.steps, options.max_steps or settings.steps)
    millions = sum(parameter.numel() for parameter in generator.parameters()) / 1e6
    console.print(
        f"{options.preset}, attention {options.attention}: {millions:.1f} M parameters on {device}; "
        f"{len(people.pairs)} pairs to learn, {len(held_out.pairs)} held out; writing to {out}",
        soft_wrap=True,
    )

    if saved is None:
        checkpoint()  # whatever ends the run from here on, --resume goes on from it

    if step >= last:
        console.print(f"already at step {step} of {last}: there is nothing to train, only to score")
    if device.type == "cpu" and options.preset != "demo":
        console.print(f"[yellow]{options.preset} is meant for a GPU: a step takes minutes on a CPU[/]")

    # ------------------------------------------------------------------ the loop
    with StopSignal() as stop, progress_bar(console) as bar:
        task = bar.add_task("training", total=last, completed=step, losses="")
        began = time.monotonic() - seconds
        while step < last and stop.received is None:
            set_learning_rate(optimizer_g, settings.learning_rate * decay(step, settings.steps))
            set_learning_rate(optimizer_d, settings.discriminator_learning_rate * lazy * decay(step, settings.steps))
            losses: dict[str, Tensor] = {}

            # Every second batch is (M, tau(M)), the others are pairs: L_self and L_per take turns.
            on_self = settings.self_every > 0 and step % settings.self_every == settings.self_every - 1
            batch = to_device(stream.distorted() if on_self else stream.pairs(), device)
            source_pose, target_pose = draw(batch)
            adversarial = settings.gan_weight > 0 and step >= settings.gan_start and not on_self
            fake = generator(batch.source, source_pose, target_pose)

            # Generator: L_per or L_self, and L_GAN on pairs.
            loss = losses["self" if on_self else "per"] = reconstruction_loss(
                fake,
                batch.target,
                perceptual,
                perceptual_weight=settings.perceptual_weight,
                pixel_weight=settings.pixel_weight,
            )
            if adversarial:
                discriminator.requires_grad_(False)
                losses["gan"] = generator_gan_loss(discriminator(fake, target_pose.heatmaps))
                discriminator.requires_grad_(True)
                loss = loss + settings.gan_weight * losses["gan"]
            optimizer_g.zero_grad(set_to_none=True)
            loss.backward()
            optimizer_g.step()
            ema.update_parameters(generator)

            # Discriminator: the real pair is (M1, B1), the fake one (G(M1, B1, B2), B2).
            if adversarial:
                losses["disc"] = discriminator_gan_loss(
                    discriminator(batch.source, source_pose.heatmaps),
                    discriminator(fake.detach(), target_pose.heatmaps),
                )
                loss = losses["disc"]
                if discriminator_steps % settings.r1_every == 0:
                    losses["r1"] = r1_penalty(discriminator, batch.source, source_pose.heatmaps)
                    loss = loss + settings.r1_gamma * settings.r1_every * losses["r1"]
                optimizer_d.zero_grad(set_to_none=True)
                loss.backward()
                optimizer_d.step()
                discriminator_steps += 1

            step += 1
            seconds = time.monotonic() - began
            values = {name: value.item() for name, value in losses.items()}
            if not all(map(math.isfinite, values.values())):
                raise UserError(f"step {step}: the losses are no longer finite ({values}); the last checkpoint is kept")
            log.add(values)
            bar.update(task, completed=step, losses=log.summary())
            if step % settings.log_every == 0 or step == last:
                log.write(step, seconds)
            if step % settings.sample_every == 0 or step == last:
                picture = out / "samples" / f"step_{step:06d}.png"
                title = f"{options.preset}, attention {options.attention}, held-out people, step {step}"
                save_samples(picture, shown, morph(shown), title)
                bar.console.print(f"step {step}: {log.summary()}  {picture}", soft_wrap=True)
            if step % settings.checkpoint_every == 0:
                checkpoint()
        checkpoint()

        # -------------------------------------------------------------- metrics on held-out people
        if stop.received is None:
            which = evenly(len(held_out.pairs), options.eval_pairs or len(held_out.pairs))
            bar.update(task, description="scoring", losses="")

            def batches() -> Iterator[Batch]:
                for numbers in which.split(settings.batch_size):
                    if stop.received is None:
                        yield to_device(take_pairs(held_out, numbers), device)

            began = time.monotonic()
            result = score_pairs(batches(), morph, perceptual)
            trivial = score_pairs(batches(), lambda batch: batch.source, perceptual)
    if stop.received is not None:
        console.print(f"stopped at step {step}; to go on: {resume_command()}", soft_wrap=True)
        return 128 + stop.received
    metrics = {
        "model": result,
        "copy_source": trivial,
        "protocols": PROTOCOLS,
        "extractor": "efficientnet-lite0, stem and blocks 0, 2, 4",
        "pairs": len(which),
        "steps": step,
        "seconds": {"training": seconds, "evaluation": time.monotonic() - began},
        "parameters": int(millions * 1e6),
        "settings": identity_of(options, preset),
        "torch": torch.__version__,
    }
    text = json.dumps(metrics, indent=2) + "\n"
    replace_file(out / "metrics.json", lambda file: file.write(text.encode()))
    for name in PROTOCOLS:
        console.print(f"{name:>14}: {result[name]:.4f}   copying the source: {trivial[name]:.4f}")
    console.print(
        f"{step} steps in {seconds / 60:.1f} min; {len(which)} held-out pairs scored: {out / 'metrics.json'}",
        soft_wrap=True,
    )
    return 0


def open_run(out: Path, options: Options, preset: Preset) -> dict[str, Any] | None:
    """Load the folder's checkpoint with --resume; without it, make sure that no run would be written over."""
    if options.resume:
        saved = load_checkpoint(out / "checkpoint.pt")
        if "settings" not in saved:
            raise UserError(f"resume: {out / 'checkpoint.pt'} is no checkpoint of this script")
        before, now = json.loads(saved["settings"]), json.loads(json.dumps(identity_of(options, preset)))
        if before["attention"] != now["attention"]:
            raise UserError(f"resume: {out} was trained with attention {before['attention']}, not {now['attention']}")
        for group in ("model", "training"):
            for name, value in before[group].items():
                if now[group].get(name) != value and name != "sample_every":
                    raise UserError(f"resume: {out} was trained with {name} = {value}, not {now[group].get(name)}")
        if before["seed"] != now["seed"]:
            raise UserError(f"resume: {out} was trained with seed {before['seed']}, not {now['seed']}")
        return saved
    if out.exists() and not out.is_dir():
        raise UserError(f"out: expected a folder, and {out} is a file")
    if any((out / name).exists() for name in ("checkpoint.pt", "log.jsonl", "metrics.json")):
        raise UserError(f"out: {out} already holds a run; add --resume to go on with it, or choose another --out")
    return None


def choose_device(name: str) -> torch.device:
    """Return the device of that name, or the fastest that PyTorch sees for "auto"."""
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return torch.device(next(kind for kind, found in there.items() if found))
    if not there[name]:
        raise UserError(f"--device: PyTorch sees no {name} here")
    return torch.device(name)


def decay(step: int, steps: int) -> float:
    """Return the factor of the learning rates: one, and a straight line to zero over the last third."""
    return min(1.0, 3 * (1 - step / steps))


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the rate of every group."""
    for group in optimizer.param_groups:
        group["lr"] = rate


def to_device(batch: Batch, device: torch.device) -> Batch:
    """Move a batch, its pictures in the layout that convolutions like."""
    pictures = torch.channels_last
    return Batch(
        batch.source.to(device, memory_format=pictures),
        batch.source_keypoints.to(device),
        batch.target.to(device, memory_format=pictures),
        batch.target_keypoints.to(device),
    )


def evenly(count: int, wanted: int) -> Tensor:
    """Return at most ``wanted`` numbers under ``count``, evenly spread."""
    return torch.linspace(0, count - 1, min(wanted, count)).round().long()


def random_state() -> dict[str, Any]:
    """Return the state of PyTorch's generators."""
    return {"cpu": torch.get_rng_state(), "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []}


def restore_random_state(state: dict[str, Any]) -> None:
    """Put the generators' state back, as far as this machine has them."""
    torch.set_rng_state(state["cpu"])
    if len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])


def progress_bar(console: Console) -> Progress:
    """Return the bar with losses and the time left."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=12),
        MofNCompleteColumn(table_column=Column(no_wrap=True, min_width=9)),
        TimeRemainingColumn(table_column=Column(no_wrap=True, min_width=7)),
        TextColumn("left"),
        TextColumn("{task.fields[losses]}", table_column=Column(no_wrap=True, ratio=1)),
        console=console,
        expand=True,
    )


def resume_command() -> str:
    """Return this very command with --resume."""
    given = [argument for argument in sys.argv[1:] if argument != "--resume"]
    return shlex.join(["python", "-m", "examples.pose_morph.train", *given, "--resume"])


def main() -> None:
    """Read the command line and train."""
    options = tyro.cli(
        Options, prog="python -m examples.pose_morph.train", description=__doc__, config=(tyro.conf.FlagCreatePairsOff,)
    )
    console = Console()
    try:
        code = train(options, console)
    except UserError as error:
        console.print(f"[red]{error}[/]", soft_wrap=True, highlight=False)
        code = 2
    except KeyboardInterrupt:  # before the first step or after the last one: there is nothing to save
        console.print("stopped before the first step or after the last; nothing was lost")
        code = 130
    sys.exit(code)


if __name__ == "__main__":
    main()
