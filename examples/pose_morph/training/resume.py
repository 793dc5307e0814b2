"""What must hold before a run starts in a folder, or goes on there."""

import json
import os
import shlex
import sys
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from examples.pose_morph.data.left_out import FILE_NAME
from examples.pose_morph.data.pose_data import PoseData
from examples.pose_morph.errors import UserError
from examples.pose_morph.training.checkpoint import FORMAT, INSTEAD, load_checkpoint

FREE = ("sample_every", "checkpoint_every")
"""Training settings that change nothing in the weights or the log."""


def open_run(out: Path, *, resume: bool) -> dict[str, Any] | None:
    """Load the folder's checkpoint to resume from; otherwise make sure that no run would be written over.

    Raises:
        UserError: there is no checkpoint, or it is of an older version; or, for a new run, the folder already holds
            one.
    """
    if resume:
        saved = load_checkpoint(out / "checkpoint.pt")
        if saved.get("format", 1) < FORMAT:
            raise UserError(
                f"resume: {out / 'checkpoint.pt'} was written by an older version of this program, which did not keep "
                "all that an exact resumption needs; go on with that version, or train anew in another --out"
            )
        _check_entries(saved, out / "checkpoint.pt")
        return saved
    if out.exists() and not out.is_dir():
        raise UserError(f"out: expected a folder, and {out} is a file")
    if any((out / name).exists() for name in ("checkpoint.pt", "log.jsonl", "metrics.json")):
        raise UserError(f"out: {out} already holds a run; add --resume to go on with it, or choose another --out")
    return None


def _check_entries(saved: dict[str, Any], checkpoint: Path) -> None:
    """Make sure of what is looked at before there are networks; `restore` sees to the rest."""
    try:
        group = json.loads(saved["settings"])["training"]["minibatch_group"]
        understood = isinstance(group, int) and {type(saved["data"][name]) for name in ("pairs", "digest")} == {int}
    except (LookupError, ValueError, TypeError, RecursionError):
        understood = False
    if not understood:
        raise UserError(f"resume: the settings or data of {checkpoint} are not as this program writes them; {INSTEAD}")


def kept_group(saved: dict[str, Any] | None) -> int | None:
    """Return the size of the minibatch groups of the run that goes on; None for a new run."""
    return None if saved is None else json.loads(saved["settings"])["training"]["minibatch_group"]


def check_settings(out: Path, saved: dict[str, Any], identity: dict[str, Any]) -> None:
    """Make sure that a run goes on with the settings it was started with.

    Raises:
        UserError: it was trained with something else than ``identity``.
    """
    _refuse_differences(out, json.loads(saved["settings"]), json.loads(json.dumps(identity)))


def _refuse_differences(out: Path, before: dict[str, Any], now: dict[str, Any]) -> None:
    """Name the first setting that is not as it was; what a preset consists of comes last."""
    names = [*now, *(before.keys() - now.keys())]
    for name in sorted(names, key=lambda name: isinstance(now.get(name), dict)):
        old, new = before.get(name), now.get(name)
        if isinstance(old, dict) and isinstance(new, dict):
            _refuse_differences(out, old, new)
        elif old != new and name not in FREE:
            why = " (it must divide what a process sees at once)" if name == "minibatch_group" else ""
            raise UserError(
                f"resume: {out} was trained with {name} = {old}, not {new}{why}; give the options of the first run, or "
                "another --out"
            )


def digest_of(data: PoseData) -> dict[str, int]:
    """Return the number of pairs, and a number that changes with names, keypoints or pairs."""
    digest = zlib.crc32("\n".join(data.names).encode())
    for part in (data.pairs, data.keypoints):
        digest = zlib.crc32(part.contiguous().numpy().data, digest)
    return {"pairs": len(data.pairs), "digest": digest}


def check_data(data: PoseData, before: dict[str, int], *, root: Path, checkpoint: Path, changed: bool) -> list[str]:
    """Make sure that a run goes on with the data of its checkpoint.

    Args:
        data: The data as they are now.
        before: The digest in the checkpoint.
        root: The data's folder.
        checkpoint: The checkpoint's file.
        changed: Whether other data are welcome; a note then says so.

    Raises:
        UserError: it is other data.
    """
    now = digest_of(data)
    if now == before:
        return []
    if changed:
        return [
            f"the data are not those of the checkpoint ({before['pairs']} {data.unit} then, {now['pairs']} now): going "
            "on with them, and the result is not that of an uninterrupted run"
        ]
    left_out = root / FILE_NAME
    newer = left_out.is_file() and left_out.stat().st_mtime > checkpoint.stat().st_mtime
    if now["pairs"] != before["pairs"]:
        what = f"expected the {before['pairs']} {data.unit} that the run was started with, got {now['pairs']}"
    else:
        what = "the names, keypoints or pairs are not those that the run was started with"
    raise UserError(
        f"data: {what}{f' ({left_out} has changed since)' if newer else ''}; give the --data of the first run, another "
        "--out, or --changed-data to go on with the data as they are"
    )


def restore(parts: Mapping[str, Any], saved: dict[str, Any], checkpoint: Path) -> tuple[int, int, float]:
    """Fill a run's parts from its checkpoint, and the generators of random numbers.

    Args:
        parts: What has a ``load_state_dict``, by its name in the checkpoint.
        saved: The checkpoint's content.
        checkpoint: Its file, for messages.

    Returns:
        Steps, updates of the discriminator and seconds so far.

    Raises:
        UserError: something is missing in the checkpoint, or does not fit.
    """
    name = "counts"
    try:
        counts = int(saved["step"]), int(saved["discriminator_steps"]), float(saved["seconds"])
        for name, part in parts.items():
            part.load_state_dict(saved[name])
        name = "random"
        restore_random_state(saved["random"])
    except Exception as error:  # each part has its own way to say that a state is not one of its own
        reason = str(error).splitlines()[:1]
        raise UserError(
            f"resume: {checkpoint} does not fit this run: {name} ({type(error).__name__}: {''.join(reason)}); {INSTEAD}"
        ) from error
    return counts


def random_state() -> dict[str, Any]:
    """Return the state of PyTorch's generators."""
    return {"cpu": torch.get_rng_state(), "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []}


def restore_random_state(state: dict[str, Any]) -> None:
    """Put the generators' state back, as far as this machine has them."""
    torch.set_rng_state(state["cpu"])
    if len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])


def resume_command(*, whole: bool = False) -> str:
    """Return this very command with --resume, under torchrun if it runs there; ``whole`` drops --max-steps."""
    given, arguments = [], iter(sys.argv[1:])
    for argument in arguments:
        name = argument.partition("=")[0].replace("_", "-")
        if whole and name == "--max-steps":
            if "=" not in argument:
                next(arguments)  # its number
        elif name not in ("--resume", "--changed-data"):
            given.append(argument)
    started = ["python"]
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        started = ["torchrun", "--nproc-per-node", os.environ.get("LOCAL_WORLD_SIZE", os.environ["WORLD_SIZE"])]
    return shlex.join([*started, "-m", "examples.pose_morph.train", *given, "--resume"])
