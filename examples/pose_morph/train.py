"""Train the pose-morphing model of the paper: one picture of a person, and a pose it should take.

Without arguments the demo preset learns the rendered people that come with the repository, in minutes on two CPU
cores. The run's folder gets samples/ (PNG), log.jsonl, tensorboard/, checkpoint.pt, model.safetensors with its card
and, at the end, metrics.json on held-out people. Ctrl-C saves a checkpoint; the same command with --resume goes on from
it. Several GPUs:
torchrun --nproc-per-node N -m examples.pose_morph.train …
"""

import errno
import json
import math
import time
from pathlib import Path

import torch
from rich.console import Console
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from examples.pose_morph.command_line import run_command
from examples.pose_morph.data.evenly import evenly
from examples.pose_morph.data.profiles import read_data
from examples.pose_morph.errors import UserError
from examples.pose_morph.evaluation.held_out import take_shown
from examples.pose_morph.messages import say
from examples.pose_morph.networks.discriminator import Discriminator
from examples.pose_morph.networks.generator import Generator, Pose
from examples.pose_morph.networks.trained import ModelInfo, save_model
from examples.pose_morph.pictures.samples import save_samples
from examples.pose_morph.plan import print_plan
from examples.pose_morph.scores.perceptual import PerceptualDistance, make_extractor
from examples.pose_morph.stop_signal import StopSignal
from examples.pose_morph.training.batch import Batch, distorted, divide, draw_poses, to_device
from examples.pose_morph.training.board import Board
from examples.pose_morph.training.checkpoint import save_checkpoint
from examples.pose_morph.training.final_scores import score_held_out, write_metrics
from examples.pose_morph.training.losses import (
    discriminator_gan_loss,
    generator_gan_loss,
    r1_penalty,
    reconstruction_loss,
)
from examples.pose_morph.training.optimizers import make_optimizers, set_learning_rates
from examples.pose_morph.training.options import Options, identity_of, licence_of, settings_of
from examples.pose_morph.training.precision import autocast, loss_scaler
from examples.pose_morph.training.process_group import join_processes, share_of, without_exchange
from examples.pose_morph.training.progress import training_bar
from examples.pose_morph.training.resume import (
    check_data,
    check_settings,
    digest_of,
    kept_group,
    open_run,
    random_state,
    restore,
    resume_command,
)
from examples.pose_morph.training.run_log import RunLog
from examples.pose_morph.training.sample_stream import SampleStream, default_workers, load_batches
from examples.pose_morph.training.step_losses import StepLosses
from examples.pose_morph.training.terms import terms_of

SAMPLE_ROWS = 6


def train(options: Options, console: Console) -> int:
    """Train, or go on training, as ``options`` say; return the exit code (0, or 128 + the signal that stopped it)."""
    # ------------------------------------------------------------------ settings, folder, data
    processes = join_processes(options.device)
    out = options.out or Path("runs/pose_morph") / f"{options.preset}-{options.attention}"
    checkpoint_file = out / "checkpoint.pt"
    saved = None if options.plan else open_run(out, resume=options.resume)
    preset = settings_of(options, processes.size, kept_group=kept_group(saved))
    model_settings, settings = preset.model, preset.training
    at_once = settings.batch_size // (processes.size * options.accumulate)
    if options.plan:
        print_plan(console, model_settings, at_once, precision=options.precision)
        return 0
    identity = identity_of(options, preset)
    if saved is not None:
        check_settings(out, saved, identity)
    device, writes = processes.device, processes.rank == 0
    scaler_g, scaler_d = (loss_scaler(device, options.precision) for _ in range(2))
    people = read_data(options.data, "train", model_settings.size, options.profile)
    held_out = read_data(options.data, "test", model_settings.size, options.profile)
    notes = people.notes + held_out.notes
    if saved is not None:
        changed = options.changed_data
        notes += check_data(people, saved["data"], root=options.data, checkpoint=checkpoint_file, changed=changed)
    for note in notes:
        say(console, note, style="yellow")

    # ------------------------------------------------------------------ networks, optimisers, order of the data
    torch.manual_seed(options.seed)
    generator = Generator(model_settings).to(device, memory_format=torch.channels_last)
    discriminator = Discriminator(model_settings, minibatch_group=settings.minibatch_group).to(
        device, memory_format=torch.channels_last
    )
    ema = AveragedModel(generator, multi_avg_fn=get_ema_multi_avg_fn(settings.ema_decay), use_buffers=True)
    ema.requires_grad_(False)
    perceptual = PerceptualDistance(make_extractor(options.features, options.feature_weights)).to(
        device, memory_format=torch.channels_last
    )
    optimizers = optimizer_g, optimizer_d = make_optimizers(generator, discriminator, settings)
    stream = SampleStream(people, options.seed, mirrored=settings.mirrored, tau=settings.tau)

    # What is wrong with the options has been said by now; from here on the processes wait for each other.
    processes.agree(None)
    print_plan(console, model_settings, at_once, precision=options.precision)
    shared_generator, shared_discriminator = processes.wrap(generator), processes.wrap(discriminator)
    step, discriminator_steps, seconds = 0, 0, 0.0
    log = RunLog(out / "log.jsonl", settings.log_every)
    parts = {
        "generator": generator, "ema": ema, "discriminator": discriminator,
        "optimizer_g": optimizer_g, "optimizer_d": optimizer_d, "scaler_g": scaler_g, "scaler_d": scaler_d, "log": log,
    }  # fmt: skip
    if saved is not None:
        step, discriminator_steps, seconds = restore(parts, saved, checkpoint_file)
        if writes:
            log.go_on_after(step)

    trained_on = {"data": f"{len(people.pairs)} {people.unit} of {options.data.name}", "licence": licence_of(options)}

    def export() -> None:
        save_model(out, ema.module, info=ModelInfo(options.preset, step, options.seed, **trained_on))

    def checkpoint() -> None:
        failure = None
        if writes:
            counts = {"step": step, "discriminator_steps": discriminator_steps, "seconds": seconds}
            state = {name: part.state_dict() for name, part in parts.items()}
            same_run = {"settings": json.dumps(identity), "data": digest_of(people), "trained_on": trained_on}
            try:
                save_checkpoint(checkpoint_file, {**state, **counts, **same_run, "random": random_state()})
                if step:
                    export()
            except UserError as error:
                failure = error
        processes.agree(None, failure)  # nobody ends before it is written

    def generate(image: Tensor, poses: tuple[Pose, Pose]) -> Tensor:
        with autocast(device, options.precision):
            return shared_generator(image, *poses).float()

    def judge(network: torch.nn.Module, image: Tensor, pose: Pose) -> Tensor:
        with autocast(device, options.precision):
            return network(image, pose.heatmaps).float()

    def reconstruct(result: Tensor, truth: Tensor) -> Tensor:
        return reconstruction_loss(
            result,
            truth,
            perceptual,
            perceptual_weight=settings.perceptual_weight,
            pixel_weight=settings.pixel_weight,
        )

    def morph(batch: Batch) -> Tensor:
        ema.eval()
        with torch.no_grad():
            return ema(batch.source, *draw_poses(batch, model_settings))

    last = min(settings.steps, options.max_steps or settings.steps)
    parameters = sum(parameter.numel() for parameter in generator.parameters())
    say(
        console,
        f"{options.preset}, attention {options.attention}: {parameters / 1e6:.1f} M parameters on {processes.size} x "
        f"{device.type}, {options.precision}; {len(people.pairs)} {people.unit} to learn, {len(held_out.pairs)} held "
        f"out; {settings.batch_size} per step, {at_once} at once; writing to {out}",
    )
    if not people.paired:
        say(console, "the data has no pairs: L_self and L_GAN with random poses, as in section 3.3 of the paper")
    if step >= last:
        asked = "" if step >= settings.steps else f", and --max-steps {options.max_steps} asks for no more"
        say(console, f"{step} of {settings.steps} steps are done{asked}: there is nothing to train, only to score")
    if device.type == "cpu" and model_settings.size[0] > 128:
        say(console, f"{options.preset} is meant for a GPU: a step takes minutes on a CPU", style="yellow")

    if saved is None:
        checkpoint()  # whatever ends the run from here on, --resume goes on from it
    # Workers are forked here, before the loop makes threads.
    batches = load_batches(
        stream,
        (share_of(number, settings.batch_size, processes) for number in range(step, last)),
        workers=default_workers(device) if options.workers is None else options.workers,
        pin_memory=device.type == "cuda",
    )
    shown = to_device(take_shown(held_out, SAMPLE_ROWS), device)
    board = Board(out, step) if writes else None

    # ------------------------------------------------------------------ the loop
    with StopSignal() as stop, training_bar(console) as bar:
        task = bar.add_task("training", total=max(step, last), completed=step, losses="")
        began = time.monotonic() - seconds
        while step < last:
            samples = next(batches)
            try:  # a signal or an unreadable picture of any process stops all of them
                if processes.agree(stop.received, samples if isinstance(samples, UserError) else None) is not None:
                    break
            except UserError as error:
                checkpoint()
                raise UserError(
                    f"{error}. Step {step} is saved. With the picture put right, --resume goes on exactly; leaving it "
                    "out changes the data, and --resume --changed-data goes on with what is left"
                ) from error
            rates = set_learning_rates(optimizers, step, settings)
            terms = terms_of(step, settings, paired=people.paired)
            losses = StepLosses(options.accumulate)
            micro_batches = divide(to_device(samples.pairs, device), samples.tau.to(device), options.accumulate)

            # Generator, Eq. 2. Every term is differentiated on its own, so that one graph is held at a time.
            optimizer_g.zero_grad(set_to_none=True)
            judged: list[tuple[Tensor, Pose, Tensor, Pose]] = []
            for number, (batch, tau) in enumerate(micro_batches, start=1):
                more = number < len(micro_batches)
                if terms.per or terms.gan:  # G(M1, B1, B2); of unpaired data B2 is the random pose B_R
                    with without_exchange(shared_generator, more or terms.self_):
                        poses = draw_poses(batch, model_settings)
                        fake = generate(batch.source, poses)
                        loss = torch.zeros((), device=device)
                        if terms.per:
                            loss = loss + losses.share("per", reconstruct(fake, batch.target))
                        if terms.gan:
                            judged.append((batch.source, poses[0], fake.detach(), poses[1]))
                            discriminator.requires_grad_(False)
                            gan = losses.share("gan", generator_gan_loss(judge(discriminator, fake, poses[1])))
                            discriminator.requires_grad_(True)
                            loss = loss + settings.gan_weight * gan
                        scaler_g.scale(loss).backward()
                if terms.self_:  # G(M1, B1, tau(B1)) shall be tau(M1)
                    with without_exchange(shared_generator, more):
                        moved = distorted(batch, tau)
                        fake = generate(moved.source, draw_poses(moved, model_settings))
                        scaler_g.scale(losses.share("self", reconstruct(fake, moved.target))).backward()
            scaler_g.step(optimizer_g)
            scaler_g.update()
            ema.update_parameters(generator)

            # Discriminator: the real pair is (M1, B1), the fake one (G(M1, B1, B2), B2).
            if terms.gan:
                optimizer_d.zero_grad(set_to_none=True)
                for number, (source, source_pose, fake, target_pose) in enumerate(judged, start=1):
                    with without_exchange(shared_discriminator, number < len(judged)):
                        real = judge(shared_discriminator, source, source_pose)
                        unreal = judge(shared_discriminator, fake, target_pose)
                        loss = losses.share("disc", discriminator_gan_loss(real, unreal))
                        if discriminator_steps % settings.r1_every == 0:  # in float32: squared gradients are small
                            r1 = losses.share("r1", r1_penalty(shared_discriminator, source, source_pose.heatmaps))
                            loss = loss + settings.r1_gamma * settings.r1_every * r1
                        scaler_d.scale(loss).backward()
                scaler_d.step(optimizer_d)
                scaler_d.update()
                discriminator_steps += 1

            step += 1
            values = losses.means(processes)
            seconds = time.monotonic() - began
            if not all(map(math.isfinite, values.values())):
                raise UserError(f"step {step}: the losses are no longer finite ({values}); the last checkpoint is kept")
            log.add(values)
            bar.update(task, completed=step, losses=log.summary())
            if board is not None:
                if step % settings.log_every == 0 or step == last:
                    board.scalars(step, seconds, log.write(step, seconds), rates)
                if step % settings.sample_every == 0 or step == last:
                    picture = out / "samples" / f"step_{step:06d}.png"
                    title = f"{options.preset}, attention {options.attention}, held-out people, step {step}"
                    save_samples(picture, shown, morph(shown), title, paired=held_out.paired)
                    board.samples(step, picture)
                    say(bar.console, f"step {step}: {log.summary()}  {picture}")
            if step % settings.checkpoint_every == 0:
                checkpoint()
        checkpoint()
        signal = processes.agree(stop.received)
        processes.leave()
        if board is None:
            return 0 if signal is None else 128 + signal
        board.close()

        # -------------------------------------------------------------- metrics on held-out people, by process 0
        if signal is None:
            which = evenly(len(held_out.pairs), options.eval_pairs or len(held_out.pairs))
            bar.reset(task, total=len(which), description="scoring", losses="")
            began = time.monotonic()
            scores = score_held_out(
                held_out,
                which,
                morph,
                perceptual,
                extractor=options.features,
                batch_size=settings.batch_size,
                device=device,
                stopped=lambda: stop.received is not None,
                show=lambda what, done: bar.update(task, description=what, completed=done),
            )
            signal = stop.received
    if signal is not None:
        say(console, f"stopped at step {step}; to go on: {resume_command()}")
        return 128 + signal
    metrics = {
        **scores,
        "extractor": options.features,
        "steps": step,
        "seconds": {"training": seconds, "evaluation": time.monotonic() - began},
        "parameters": parameters,
        "settings": identity,
        "data": {"train": digest_of(people), "test": digest_of(held_out)},
        "processes": processes.size,
    }
    write_metrics(out / "metrics.json", metrics, console)
    export()  # once more: the model card quotes the scores
    say(
        console,
        f"{step} steps in {seconds / 60:.1f} min; {len(which)} held-out {held_out.unit} scored: {out / 'metrics.json'}",
    )
    if step < settings.steps:
        say(console, f"the whole run has {settings.steps} steps; to go on: {resume_command(whole=True)}")
    return 0


def train_or_say_why_not(options: Options, console: Console) -> int:
    """Train; a full disk or memory becomes a message."""
    try:
        return train(options, console)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        where = error.filename or "the run's folder"
        raise UserError(f"{where}: {error.strerror}; free some space, then go on with --resume") from error
    except torch.OutOfMemoryError as error:
        raise UserError(
            "the device's memory is full: --accumulate N works every batch off in N parts, --precision bfloat16 and a "
            f"smaller --batch-size need less, too; start anew in another --out ({str(error).splitlines()[0]})"
        ) from error


def main() -> None:
    """Read the command line and train."""
    run_command(Options, train_or_say_why_not, prog="python -m examples.pose_morph.train", description=__doc__)


if __name__ == "__main__":
    main()
