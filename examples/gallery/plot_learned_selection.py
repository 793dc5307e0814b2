"""
Learning where to look
======================

Hard selection has no gradient: a group that was not chosen sends none, so a network cannot learn to choose it. Here is
a task that shows it, and the ways out that :doc:`/selection` describes.
"""

import matplotlib.pyplot as plt
import torch

import gpa_nd
from gpa_nd import gpa_attention
from gpa_nd.diagnostics import key_contributions
from gpa_nd.selection import PerturbedTopK, SoftTopK, StraightThrough

torch.manual_seed(0)

# %%
# A task
# ------
#
# Sixteen cells and sixteen groups of four. Cell :math:`l` is told its number, and is to answer what group
# :math:`\sigma(l)` holds, for a permutation that nobody tells it. A matrix makes queries of numbers; at first each cell
# asks for the group of its own number. All keys of a group are alike, and all its values, so that attention among
# those four says nothing about where else to look.

blocks, size = 16, 4
layout = gpa_nd.audio(downsample=size, cells=blocks, kappa=1).layout((blocks * size,), (blocks * size,))
codes, held = torch.eye(blocks), torch.randn(blocks, 8)
sigma = torch.randperm(blocks)
numbers, k, v = (x.repeat_interleave(size, 0)[None, None] for x in (codes, 2 * codes, held))
wanted = held[sigma].repeat_interleave(size, 0)


def train(steps=100, **settings):
    """The matrix after training, and the error after each step if one group is then selected, hard."""
    matrix = (2 * codes).requires_grad_()
    optimizer, errors = torch.optim.Adam([matrix], lr=0.1), []
    for _ in range(steps):
        with torch.no_grad():
            hard = gpa_attention(numbers @ matrix, k, v, layout, kappa=1)
            errors.append(((hard - wanted).square().mean() / wanted.var()).item())
        out = gpa_attention(numbers @ matrix, k, v, layout, kappa=1, **settings)
        optimizer.zero_grad()
        (out - wanted).square().mean().backward()
        optimizer.step()
    return matrix.detach(), errors


# %%
# Six ways to select
# ------------------
#
# All of them train the same matrix; what is drawn is how far the answers of *hard* selection are from the wanted ones,
# as a part of their variance. A temperature of a half is too low: no other group comes near enough to the chosen one
# to have a weight, and what has no weight has no gradient.

ways = {
    "hard, as in the paper": {},
    "SoftTopK(0.5)": {"selection": SoftTopK(0.5, candidates=blocks)},
    "SoftTopK(2)": {"selection": SoftTopK(2.0, candidates=blocks)},
    "PerturbedTopK(1)": {"selection": PerturbedTopK(1.0, samples=50, candidates=blocks)},
    "StraightThrough(SoftTopK(2))": {"selection": StraightThrough(SoftTopK(2.0, candidates=blocks))},
    'unselected="pooled"': {"unselected": "pooled"},
}
trained = {name: train(**settings) for name, settings in ways.items()}

figure, axis = plt.subplots(figsize=(7.5, 3.8), layout="constrained")
styles = ["-", "--", "-", "-", "--", "-."]
for (name, (_, errors)), style in zip(trained.items(), styles, strict=True):
    axis.plot(errors, style, label=name, lw=2)
axis.set(xlabel="step", ylabel="error with hard selection", ylim=(-0.05, None))
axis.legend(frameon=False)
axis.spines[["top", "right"]].set_visible(False)
plt.show()

# %%
# Where they look
# ---------------
#
# How much each group contributes to the answer of each cell, with hard selection after training.


def looks(matrix):
    """(cells, groups) how much each group contributes to the first query of each cell."""
    q = numbers @ matrix
    relevant = gpa_nd.select_keys(q, k, layout, kappa=1)
    weights = key_contributions(q, k, layout, relevant, torch.arange(0, blocks * size, size))
    return weights[0, 0].unflatten(-1, (blocks, size)).sum(-1)


figure, axes = plt.subplots(1, 3, figsize=(9, 3.4), layout="constrained", sharey=True)
maps = {
    "wanted": codes[sigma],
    "hard, as in the paper": looks(trained["hard, as in the paper"][0]),
    "SoftTopK(2)": looks(trained["SoftTopK(2)"][0]),
}
for axis, (name, weights) in zip(axes, maps.items(), strict=True):
    axis.imshow(weights, cmap="Blues", interpolation="none")
    axis.set(title=name, xlabel="group")
axes[0].set_ylabel("cell")
plt.show()

for name, (matrix, errors) in trained.items():
    found = (looks(matrix).argmax(-1) == sigma).sum().item()
    print(f"{name:30} {errors[-1]:.4f}   {found:2} of {blocks} found")
