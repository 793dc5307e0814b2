"""What must hold before a run starts in a folder, or goes on there."""

import json
import shlex
import sys
import zlib
from pathlib import Path
from typing import Any

import torch

from examples.pose_morph.data.pose_data import PoseData
from examples.pose_morph.errors import UserError
from examples.pose_morph.training.checkpoint import FORMAT, load_checkpoint

FREE = ("sample_every", "checkpoint_every")
"""Training settings that change nothing in the weights or the log."""


def open_run(out: Path, *, resume: bool, identity: dict[str, Any]) -> dict[str, Any] | None:
    """Load the folder's checkpoint to resume from; otherwise make sure that no run would be written over.

    Raises:
        UserError: there is no checkpoint, or it was trained with something else than ``identity``; or, for a new run,
            the folder already holds one.
    """
    if resume:
        saved = load_checkpoint(out / "checkpoint.pt")
        if saved.get("format", 1) < FORMAT:
            raise UserError(
                f"resume: {out / 'checkpoint.pt'} was written by an older version of this program, which did not keep "
                "all that an exact resumption needs; go on with that version, or train anew in another --out"
            )
        _refuse_differences(out, json.loads(saved["settings"]), json.loads(json.dumps(identity)))
        return saved
    if out.exists() and not out.is_dir():
        raise UserError(f"out: expected a folder, and {out} is a file")
    if any((out / name).exists() for name in ("checkpoint.pt", "log.jsonl", "metrics.json")):
        raise UserError(f"out: {out} already holds a run; add --resume to go on with it, or choose another --out")
    return None


def _refuse_differences(out: Path, before: dict[str, Any], now: dict[str, Any]) -> None:
    """Name the first setting that is not as it was; what a preset consists of comes last."""
    names = [*now, *(before.keys() - now.keys())]
    for name in sorted(names, key=lambda name: isinstance(now.get(name), dict)):
        old, new = before.get(name), now.get(name)
        if isinstance(old, dict) and isinstance(new, dict):
            _refuse_differences(out, old, new)
        elif old != new and name not in FREE:
            raise UserError(
                f"resume: {out} was trained with {name} = {old}, not {new}; give the options of the first run, or "
                "another --out"
            )


def digest_of(data: PoseData) -> dict[str, int]:
    """Return the number of pairs, and a number that changes with names, keypoints or pairs."""
    digest = zlib.crc32("\n".join(data.names).encode())
    for part in (data.pairs, data.keypoints):
        digest = zlib.crc32(part.contiguous().numpy().data, digest)
    return {"pairs": len(data.pairs), "digest": digest}


def check_data(data: PoseData, before: dict[str, int]) -> None:
    """Make sure that a run goes on with the data it was started with.

    Raises:
        UserError: it is other data.
    """
    now = digest_of(data)
    if now["pairs"] != before["pairs"]:
        raise UserError(
            f"data: expected the {before['pairs']} pairs that the run was started with, got {now['pairs']}; "
            "give the --data of the first run, or another --out"
        )
    if now != before:
        raise UserError(
            "data: the names, keypoints or pairs are not those that the run was started with; "
            "give the --data of the first run, or another --out"
        )


def random_state() -> dict[str, Any]:
    """Return the state of PyTorch's generators."""
    return {"cpu": torch.get_rng_state(), "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []}


def restore_random_state(state: dict[str, Any]) -> None:
    """Put the generators' state back, as far as this machine has them."""
    torch.set_rng_state(state["cpu"])
    if len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])


def resume_command() -> str:
    """Return this very command with --resume."""
    given = [argument for argument in sys.argv[1:] if argument != "--resume"]
    return shlex.join(["python", "-m", "examples.pose_morph.train", *given, "--resume"])
