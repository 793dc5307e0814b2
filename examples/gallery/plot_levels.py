"""
Long recordings: more than two levels
=====================================

Phase 1 compares all coarse queries with all coarse keys. When that becomes too much, it is done by GPA as well.
"""

import time

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F

import gpa_nd

torch.manual_seed(0)

# %%
# A number for each level
# -----------------------
#
# ``kappa`` is a tuple with a number for each level, finest first. Below, groups of 16 samples are grouped by 16 once
# more. A cell of the upper level keeps 8 groups of groups; a cell of the lower level ranks only the 8 · 16 groups
# under them, keeps 8, and its queries attend to 8 · 16 samples. The upper level takes the same factor, 16, and has
# ``cells`` divided by it, 64 / 16 = 4. :class:`~gpa_nd.GPA` takes tuples of operators, where they should be others.

attention = gpa_nd.audio(downsample=16, cells=64, kappa=(8, 8))
layout = attention.layout((65536,), (65536,))
print(layout, "and above it", layout.coarser, sep="\n")

# %%
# Time
# ----
#
# One level grows with the square of the length, two almost linearly. (On the machine that built these pages; each
# length is measured once, so that points may be off.)


def seconds(kappa: int | tuple[int, ...], length: int) -> float:
    """Time of a forward pass over one channel-poor recording, with cells of 1,024 samples."""
    gpa = gpa_nd.audio(downsample=16, cells=length // 1024, kappa=kappa)
    q, k, v = torch.randn(3, 1, 1, length, 16)
    gpa.layout((length,), (length,))  # made once
    start = time.perf_counter()
    with torch.no_grad():
        gpa(q, k, v)
    return time.perf_counter() - start


lengths = [2**power for power in range(14, 20)]
seconds((8, 8), lengths[0])  # the first call of all is slower
figure, axis = plt.subplots(figsize=(6, 4), layout="constrained")
for name, kappa in {"one level": 8, "two levels": (8, 8)}.items():
    shown = lengths if isinstance(kappa, tuple) else lengths[:-1]
    axis.loglog(shown, [seconds(kappa, length) for length in shown], "o-", base=2, label=name)
axis.set(xlabel="samples", ylabel="seconds")
axis.legend()
axis.grid(alpha=0.3)
plt.show()

# %%
# What it may miss
# ----------------
#
# A key that the upper level did not select cannot be found below. Here each cell looks for one group of 4,096, whose
# code is partly its own and partly that of its neighbourhood, and the share of cells that find theirs is counted. The
# less neighbours have in common, the more groups of groups the upper level must keep.

length, groups = 65536, 4096
slow = F.interpolate(torch.randn(1, 32, groups // 32), groups, mode="linear")[0].mT
wanted = torch.randint(groups, (64,))
for own in (0.5, 1.0, 2.0):
    codes = F.normalize(slow + own * torch.randn(groups, 32), dim=-1) * 12
    k = codes.repeat_interleave(16, 0)[None, None] + 0.3 * torch.randn(1, 1, length, 32)
    q = codes[wanted].repeat_interleave(1024, 0)[None, None] + 0.3 * torch.randn(1, 1, length, 32)
    for kappa in ((8, 4), (8, 16), (8, 64), (8, 256)):
        relevant = gpa_nd.select_keys(q, k, layout, kappa=kappa)[0, 0]
        found = (relevant == wanted[:, None]).any(-1).float().mean()
        print(f"own share {own}, kappa = {kappa}: {found:.0%} of cells found their group")
