"""
Detail from another photograph
==============================

A photograph is out of focus; another one, taken from a step beside it, is sharp. Attention finds for each blurred pixel
where the other one shows the same thing, and copies the detail from there.
"""

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter
from skimage import data
from torch import Tensor

import gpa_nd

torch.manual_seed(0)

# %%
# Two views of a motorcycle
# -------------------------
#
# scikit-image brings them along. What is near has moved by 29 pixels from one to the other, what is far by 4. The right
# one is blurred here, and the detail of the left one is what a blur takes away from it.

HEIGHT, WIDTH = 240, 310
views = (torch.tensor(view[20:, 60:680]).permute(2, 0, 1)[None] / 255 for view in data.stereo_motorcycle()[:2])
left, right = (F.interpolate(view, (HEIGHT, WIDTH), mode="area") for view in views)


def blur(picture: Tensor) -> Tensor:
    """(1, 3, height, width) out of focus."""
    return torch.tensor(gaussian_filter(picture.numpy(), (0, 0, 2, 2)))


blurred, detail = blur(right), left - blur(left)

# %%
# Queries, keys and values
# ------------------------
#
# Queries know nothing but the blurred picture, so that keys must be blurred as well: patches of 13 × 13 pixels, every
# other one of them, of which the 24 principal components are kept. Values are detail, which is added to the blur.


def patches(picture: Tensor) -> Tensor:
    """(height · width, 147) what surrounds every pixel of a picture (1, 3, height, width)."""
    return F.unfold(F.pad(picture, (6,) * 4, mode="reflect"), 7, dilation=2)[0].mT


of_left = patches(blur(left))
mean, basis = of_left.mean(0), torch.pca_lowrank(of_left, 24)[2]
q, k = (((x - mean) @ basis).view(1, 1, HEIGHT, WIDTH, -1) for x in (patches(blurred), of_left))
v = detail.permute(0, 2, 3, 1)[:, None]

gpa = gpa_nd.image(downsample=4, cells=(60, 78), kappa=12, affinity="euclidean", scale=20.0)
result = blurred + gpa(q, k, v)[:, 0].permute(0, 3, 1, 2)

# %%
# What it brings
# --------------
#
# Peak signal-to-noise ratio tells how near a picture is to the sharp one. Dense attention takes long: it is asked for
# every 16th row alone.


def psnr(picture: Tensor, wanted: Tensor) -> str:
    """In decibels; more is better."""
    return f"{-10 * (picture - wanted).square().mean().log10().item():.1f} dB"


rows = slice(8, None, 16)
# -|q - k|² is 2 q·k - |k|² and something that is the same for all keys
longer_q = torch.cat([2 * q, torch.ones_like(q[..., :1])], -1)[:, :, rows].flatten(2, 3)
longer_k = torch.cat([k, -k.square().sum(-1, keepdim=True)], -1).flatten(2, 3)
longer_v = F.pad(v, (0, 22)).flatten(2, 3)  # PyTorch's fused attention takes values with as many channels as keys
dense = F.scaled_dot_product_attention(longer_q, longer_k, longer_v, scale=20.0)[..., :3]
dense = blurred[:, :, rows] + dense.view(1, -1, WIDTH, 3).permute(0, 3, 1, 2)

print("out of focus:            ", psnr(blurred, right))
print("with detail by GPA:      ", psnr(result, right))
print("  every 16th row of it:  ", psnr(result[:, :, rows], right[:, :, rows]))
print("  by dense attention:    ", psnr(dense, right[:, :, rows]))
edge = (slice(None), slice(None), slice(None), slice(WIDTH - 25, None))
print("out of focus, right edge:", psnr(blurred[edge], right[edge]))
print("with detail, right edge: ", psnr(result[edge], right[edge]))

# %%
# Lamp, tank and engine become sharp. Where the left view shows something else behind a thing, as behind the fork, a
# patch finds nothing like itself, and what the left view does not show at all, at the right edge, gets detail of what
# looks alike when blurred.

figure, axes = plt.subplots(2, 3, figsize=(11, 5.7), layout="constrained")
crop = (slice(None), slice(None), slice(70, 150), slice(120, 223))
pictures = {
    "keys and values: the left view": left,
    "queries: the right view, blurred": blurred,
    "the right view with copied detail": result,
    f"blurred, {psnr(blurred[crop], right[crop])}": blurred[crop],
    f"with copied detail, {psnr(result[crop], right[crop])}": result[crop],
    "as it should be": right[crop],
}
for axis, (title, picture) in zip(axes.flat, pictures.items(), strict=True):
    axis.imshow(picture[0].permute(1, 2, 0).clip(0, 1))
    axis.set(title=title, xticks=[], yticks=[])
plt.show()
