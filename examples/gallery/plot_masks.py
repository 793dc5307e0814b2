"""
Padding, and keys that weigh more
=================================

A mask hides keys, a bias makes them weigh more or less. Both act in both phases.
"""

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F

import gpa_nd
from gpa_nd.diagnostics import key_contributions

torch.manual_seed(0)

# %%
# Padding
# -------
#
# Two recordings of 300 and 170 samples, padded to 300. ``key_mask`` (batch, time) is False for the padding, which then
# enters neither the means of Phase 1 nor the softmax of Phase 2: whoever asks the short one hears it alone. Padded
# queries still have a say in what their cell selects, and cells are counted over the padded length. To hear exactly
# what each recording would hear alone, pack them: see :doc:`/ragged`.

attention = gpa_nd.audio(downsample=6, cells=10, kappa=4)
lengths = torch.tensor([300, 170])
key_mask = torch.arange(300) < lengths[:, None]
q, k, v = torch.randn(3, 2, 1, 300, 16)
v[~key_mask[:, None]] = torch.nan  # whatever stands there counts for nothing

out = attention(q, k, v, key_mask=key_mask)
alone = gpa_nd.audio(downsample=6, cells=10, kappa=4)(q[1:], k[1:, :, :170], v[1:, :, :170])
print("as without padding:", torch.allclose(out[1:], alone, atol=1e-6))

# %%
# A query without any key that it may see gets zeros, and so do all gradients through it.

nothing = torch.zeros(2, 300, dtype=torch.bool)
print("nothing to see:", attention(q, k, v, key_mask=nothing).abs().max().item())

# %%
# A bias for each key
# -------------------
#
# ``key_bias`` (batch, heads, time) is added to the affinities of each key, differently for each head if you like.
# Phase 1 adds the mean over each group, so that keys with a large bias are found, not only weighed. Here it prefers
# what is recent, less and less so from head to head.

smooth = F.interpolate(torch.randn(6, 16, 50), 300, mode="linear").mT  # neighbours are alike
q, k = smooth.view(2, 1, 3, 300, 16)
slopes = torch.tensor([0.05, 0.01, 0.0])[:, None]
key_bias = (slopes * (torch.arange(300.0) - 299))[None]
layout = attention.layout((300,), (300,))
relevant = gpa_nd.select_keys(q, k, layout, kappa=4, key_bias=key_bias)
weights = key_contributions(q, k, layout, relevant, torch.arange(300), key_bias=key_bias)

figure, axes = plt.subplots(1, 3, figsize=(11, 3.9), layout="constrained")
for head, axis in enumerate(axes):
    axis.imshow(weights[0, head] ** 0.5, cmap="Blues", interpolation="none")
    axis.set(title=f"head {head}: slope {slopes[head].item():g}", xlabel="key", ylabel="query")
plt.show()

# %%
# A bias that is learned
# ----------------------
#
# The bias has a gradient. Neither masks nor biases are broadcast: ``.expand`` one that batch entries or heads share.
# As with k and v, only keys that some query attends to get a gradient; to those that no cell has selected, as to
# those that are masked, it is zero.

learned = torch.zeros(3, 1, requires_grad=True)  # how much each head prefers what is recent
of_keys = (learned * (torch.arange(300.0) - 299)).expand(2, 3, 300)  # (batch, heads, time)
of_keys.retain_grad()
q, k, v = torch.randn(3, 2, 3, 300, 16)
attention(q, k, v, key_mask=key_mask, key_bias=of_keys).square().mean().backward()
print("gradient for each head:", learned.grad[:, 0].tolist())
print("zero where masked:", not of_keys.grad[1, :, 170:].any())
