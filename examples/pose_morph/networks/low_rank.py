"""The paper's low-rank rivals of GPA, by the packages of their users and without the projections around them.

Both approximate attention with the affinity exp(q·k · scale), as dense attention and GPA have it. They know nothing of
the grid: pixels are taken row by row.
"""

import math
import warnings

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from examples.pose_morph.errors import UserError

INSTALL = "pip install 'gpa-nd[train]'"


def landmarks_of(rank: int, pixels: int) -> int:
    """Return the most landmarks up to ``rank`` that are means of equally many pixels, but for a last, shorter one."""
    return math.ceil(pixels / math.ceil(pixels / rank))


class NystromAttention(nn.Module):
    """Nyströmformer's attention: softmax through landmarks, which are means of pixels that follow one another."""

    def __init__(self, landmarks: int, *, scale: float | None = None) -> None:
        """Use ``scale``, or 1/sqrt(c) if None."""
        super().__init__()
        try:
            from nystrom_attention import NystromAttention as Layer
        except ImportError as error:
            raise UserError(f"attention: nystromformer needs the package nystrom-attention: {INSTALL}") from error
        self.scale = scale
        with torch.random.fork_rng(devices=[]):  # its linear layers are left out: they must not take random numbers
            self.layer = Layer(1, dim_head=1, heads=1, num_landmarks=landmarks, residual=False)  # dim_head 1: scale 1
        self.layer.to_qkv, self.layer.to_out = nn.Identity(), nn.Identity()

    def forward(
        self,
        q: Float[Tensor, "b heads h w c"],
        k: Float[Tensor, "b heads h w c"],
        v: Float[Tensor, "b heads h w d"],
    ) -> Float[Tensor, "b heads h w d"]:
        """Attend."""
        if q.shape != k.shape:
            raise ValueError(f"k: Nyströmformer wants as many keys as queries, {tuple(q.shape)}, got {tuple(k.shape)}")
        scale = q.shape[-1] ** -0.5 if self.scale is None else self.scale
        # The layer takes q, k and v side by side; zeros make them equally wide and change nothing.
        width = max(q.shape[-1], v.shape[-1])
        # Its pseudo-inverse is iterated, which half precision does not survive.
        with torch.autocast(q.device.type, enabled=False):
            tokens = [x.flatten(0, 1).flatten(1, 2).float() for x in (q * scale, k, v)]  # (b heads, n, c)
            x = torch.cat([F.pad(token, (0, width - token.shape[-1])) for token in tokens], dim=-1)
            pixels = x.shape[1]
            # Without a mask the pixels that it adds to fill the last landmark would be attended to.
            mask = None if pixels % self.layer.num_landmarks == 0 else x.new_ones(1, pixels, dtype=torch.bool)
            # One by one: the pseudo-inverse starts from the largest entry of all that it is given.
            out = torch.cat([self.layer(sample, mask=mask) for sample in x.split(1)])[..., : v.shape[-1]]
        return out.to(v.dtype).reshape(v.shape)


class PerformerAttention(nn.Module):
    """Performer's attention: positive random features of the softmax kernel.

    The random projection is drawn once, from PyTorch's generator, and is kept with the weights; it is not redrawn
    during training.
    """

    def __init__(self, features: int, *, key_channels: int, scale: float | None = None) -> None:
        """Draw the projection for keys of ``key_channels``; use ``scale``, or 1/sqrt(c) if None."""
        super().__init__()
        try:
            with warnings.catch_warnings():  # it imports distutils and PyTorch's older autocast
                warnings.simplefilter("ignore")
                from performer_pytorch import FastAttention
        except ImportError as error:
            raise UserError(f"attention: performer needs the package performer-pytorch: {INSTALL}") from error
        self.scale = scale
        device = torch.empty(0).device  # the orthogonal matrix cannot be made on "meta"
        with torch.device("cpu"):
            attention = FastAttention(key_channels, nb_features=features)
        self.attention = attention.to(device)

    def forward(
        self,
        q: Float[Tensor, "b heads h w c"],
        k: Float[Tensor, "b heads h2 w2 c"],
        v: Float[Tensor, "b heads h2 w2 d"],
    ) -> Float[Tensor, "b heads h w d"]:
        """Attend."""
        channels = q.shape[-1]
        flat_q, flat_k, flat_v = (x.flatten(2, -2) for x in (q, k, v))
        # The package divides by sqrt(c). Any other scale, and lengths, are shared evenly between q and k: the affinity
        # stays what it is, and the error of the estimate is smallest where both are equally long.
        scale = 1.0 if self.scale is None else self.scale * math.sqrt(channels)
        q_length, k_length = (x.detach().norm(dim=-1, keepdim=True).mean(dim=2, keepdim=True) for x in (flat_q, flat_k))
        share = (k_length / q_length.clamp(min=1e-6)).clamp(min=1e-6).sqrt()
        root = math.sqrt(scale)
        out = self.attention(flat_q * (root * share), flat_k * (root / share), flat_v)
        return out.unflatten(2, q.shape[2:-1])
