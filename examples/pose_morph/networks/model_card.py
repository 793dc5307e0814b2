"""The model card: what a trained generator is, what it was trained on, how well it does, and what it is not for."""

import json
import math
from collections.abc import Mapping
from pathlib import Path

from torch import nn

from examples.pose_morph.atomic import write_text

CARD = """# Pose morphing with Grid Partitioned Attention: {preset}

Give it a picture of a person and a pose of 18 joints, and it draws that person in that pose. Two UNets of StyleGAN2
blocks, and attention that copies from the source's decoder to the target's, after the paper *Grid Partitioned
Attention: Efficient Transformer Approximation with Inductive Bias for High Resolution Detail Generation*. Its authors
did not publish their model; this one was trained with the `examples/pose_morph` program of gpa_nd {gpa_nd}.

| | |
|---|---|
| pictures | {height}x{width} (height x width), others are fitted and padded |
| parameters | {parameters} |
| preset | `{preset}` |
| trained | {steps} steps, seed {seed}; the weights are the running average |
| trained on | {data} |
| licence of that data | {licence} |

## Use

```
python -m examples.pose_morph.generate --model FOLDER --source PERSON.jpg --pose-from OTHER.jpg --out results
```

FOLDER is where this file lies. `model.safetensors` is the whole model: its header holds the settings that it is built
from. It contains no code.

## Scores

{scores}

## Limits

It draws people as they are in its training data: other ages, bodies, clothes, views and backgrounds come out worse, and
how much worse was not measured. What the source picture hides (a face in a view from behind, the back of a shirt) is
made up. Faces, hands and fine prints are the first to go wrong. Poses whose limbs are unknown or outside of the picture
give unfinished people.

## Misuse

Pose morphing is close to what makes DeepFakes. Do not make pictures or films of people who did not agree to it, and do
not pass results off as photographs; say that they are generated. Moving pictures deserve more care than single ones:
the paper's authors warn of them in particular, and ask for open and ethical work against abuse and disinformation.
"""


def write_model_card(folder: Path, generator: nn.Module, info: Mapping[str, object]) -> None:
    """Write README.md into ``folder``; scores come from its metrics.json, if there is one."""
    height, width = generator.settings.size
    card = CARD.format(
        height=height,
        width=width,
        parameters=f"{sum(parameter.numel() for parameter in generator.parameters()):,}",
        scores=_scores(folder / "metrics.json"),
        **{name: " ".join(str(value).split()).replace("|", "\\|") for name, value in info.items()},
    )
    write_text(folder / "README.md", card)


def _scores(path: Path) -> str:
    """A table of the model's scores; every number of ``metrics["model"]`` is one."""
    try:
        metrics = json.loads(path.read_text())
        scores = {name: value for name, value in metrics["model"].items() if isinstance(value, int | float)}
        lines = [f"| `{name}` | {value:.4g} |" for name, value in scores.items() if math.isfinite(value)]
    except (OSError, ValueError, KeyError, AttributeError, TypeError, OverflowError, RecursionError):
        lines = []
    if not lines:
        return "None were computed for these weights."
    when = f"After {metrics['steps']} steps" if "steps" in metrics else "From `metrics.json`"
    unit = "pictures" if str(metrics.get("task", "")).startswith("pictures") else "pairs"
    over = f", over {metrics['pairs']} held-out {unit}" if "pairs" in metrics else ""
    return "\n".join(
        [f"{when}{over}; `metrics.json` says how each is computed.", "", "| score | |", "|---|---|", *lines]
    )
