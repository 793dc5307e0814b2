"""
κ against error and time
========================

A larger κ comes nearer to dense attention and takes longer, and so does a finer downsampling d. Where is the bargain?
"""

import time
from collections.abc import Callable

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from skimage import data
from torch import Tensor

import gpa_nd

torch.manual_seed(0)

# %%
# A photograph attends to itself
# ------------------------------
#
# Queries and keys are patches of 7 × 7 pixels as 32 principal components of one length, so that attention looks for the
# same direction; that length says how sharply. Values are the colours, which PyTorch's fused attention wants to have as
# many channels as keys: the rest is empty.

SIZE = 128
photo = torch.tensor(data.astronaut()).permute(2, 0, 1)[None] / 255
photo = F.interpolate(photo, (SIZE, SIZE), mode="area")
patches = F.unfold(F.pad(photo, (3,) * 4, mode="reflect"), 7)[0].mT
patches = patches - patches.mean(0)
direction = F.normalize(patches @ torch.pca_lowrank(patches, 32)[2], dim=-1)
x = 6.5 * direction.view(1, 1, SIZE, SIZE, 32)
v = F.pad(photo.permute(0, 2, 3, 1)[:, None], (0, 29))


def timed(attention: Callable[[], Tensor], times: int) -> tuple[Tensor, float]:
    """The colours that come out (pixels, 3), and the seconds that the quickest of some calls took."""
    seconds = []
    for _ in range(times):
        start = time.perf_counter()
        out = attention()
        seconds.append(time.perf_counter() - start)
    return out[..., :3].reshape(-1, 3), min(seconds)


flat, values = x.flatten(2, 3), v.flatten(2, 3)
dense, of_dense = timed(lambda: F.scaled_dot_product_attention(flat, flat, values, scale=1.0), times=2)
spread = (dense - dense.mean(0)).square().mean()

# %%
# Three values of d, and κ from 1 on
# ----------------------------------
#
# The error is a part of what varies in the result of dense attention: an error of 1 is as good as one colour for
# everybody. Cells are 8 × 8 pixels, whatever d is. Time is a part of that of dense attention, in this run, on the
# machine that built these pages; both phases count. The fourth curve has a ranking that looks at some keys of the best
# groups before it decides, see :doc:`/rankings`.

ways = {
    "d = 2": ({"downsample": 2}, (4, 16, 64, 256, 1024)),
    "d = 4": ({"downsample": 4}, (1, 4, 16, 64, 256)),
    "d = 8": ({"downsample": 8}, (1, 4, 16, 64)),
    'd = 4, "rerank"': ({"downsample": 4, "ranking": "rerank"}, (1, 4, 16, 64, 256)),
}
figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.5), layout="constrained")
for (name, (settings, kappas)), style in zip(ways.items(), ("o-", "s-", "^-", "s--"), strict=True):
    parts, errors = [], []
    for kappa in kappas:
        gpa = gpa_nd.image(cells=SIZE // 8, kappa=kappa, scale=1.0, **settings)
        gpa.layout((SIZE, SIZE), (SIZE, SIZE))  # made once
        out, seconds = timed(lambda gpa=gpa: gpa(x, x, v), times=2)
        errors.append(((out - dense).square().mean() / spread).sqrt().item())
        parts.append(seconds / of_dense)
        seen = kappa * settings["downsample"] ** 2 / SIZE**2
        print(f"{name}, κ = {kappa:4}: {seen:5.1%} of the keys, error {errors[-1]:.3f}, {parts[-1]:5.1%} of the time")
        right.annotate(str(kappa), (parts[-1], errors[-1]), (4, 4), textcoords="offset points", fontsize=8)
    left.loglog(kappas, errors, style, label=name)
    right.loglog(parts, errors, style, label=name)
left.set(xlabel="κ", ylabel="error against dense attention")
left.legend()
right.set(xlabel="time, as a part of dense attention's; numbers are κ")
right.axvline(1, color="black", linestyle=":", linewidth=1)
for axis in (left, right):
    axis.grid(alpha=0.3)
plt.show()

# %%
# Groups of 4 × 4 pixels are the quickest way to a rough result. From about a tenth of dense attention's time on, groups
# of 2 × 2 are better, and so are groups of 4 × 4 that are ranked with more care. Groups of 8 × 8 need a quarter of all
# keys before the error falls: their averages say little about their pixels. Whoever needs the last hundredth had better
# take dense attention.
