"""register: an attention implementation of transformers that attends with GPA."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from jaxtyping import Bool, Float
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import bidirectional_mask_function, causal_mask_function
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from gpa_nd.nn.tokens import TokenAttention

PACKED = "sequence of several packed ones here (GPA.packed has)"

HARMLESS = frozenset(
    {
        "cache_position",  # keys of a cache are more than there are queries, which is an error of its own
        "interpolate_pos_encoding",
        "num_items_in_batch",
        "output_hidden_states",
        "output_router_logits",
        "position_ids",
        "return_dict",
        "use_cache",
    }
)
"""What models hand on to an implementation, and is not about its attention."""

NOT_THERE = {
    "cache": "paged cache",
    "cu_seq_lens_k": PACKED,
    "cu_seq_lens_q": PACKED,
    "max_length_k": PACKED,
    "max_length_q": PACKED,
    "output_attentions": "matrix of weights to put out",
    "position_bias": "bias for pairs of a query and a key",
    "s_aux": "sinks without a key",
    "seq_idx": PACKED,
    "sliding_window": "sliding window alone (always=[GridNeighbourhood(…)] is one beside what is selected)",
    "softcap": "capped scores",
}
"""What models may ask of an implementation, and GPA does not have."""


def register(name: str, attention: TokenAttention) -> None:
    """Make GPA an attention implementation, for ``model.set_attn_implementation(name)``.

    All attention of the model, or of the submodel that a dict names, then goes to ``attention``: give it to encoders of
    images, video and sound, or to a decoder that is called without a cache. ``set_attn_implementation("sdpa")`` gives
    the model its own attention back. A name that was registered here may be registered again.

    Args:
        name: an identifier without "flash" in it, which no implementation of transformers has.
        attention: the GPA, and where its tokens lie; :func:`token_attention` makes one for a model's configuration.

    Raises:
        TypeError: a name or an attention of another type.
        ValueError: a name that is no such identifier, or is taken.

    Example:
        >>> import torch
        >>> from transformers import ViTConfig, ViTModel
        >>> import gpa_nd
        >>> from gpa_nd.transformers import register, token_attention
        >>> vit = ViTModel(ViTConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, image_size=(128, 96)))
        >>> register("gpa", token_attention(vit.config, gpa_nd.image(downsample=2, cells=2, kappa=4)))
        >>> vit.set_attn_implementation("gpa")
        >>> vit(torch.randn(1, 3, 128, 96)).last_hidden_state.shape
        torch.Size([1, 49, 32])
    """
    if not isinstance(name, str):
        raise TypeError(f"name: expected a string, got {type(name).__name__}")
    if not isinstance(attention, TokenAttention):
        raise TypeError(f"attention: expected a TokenAttention, got {type(attention).__name__}")
    if not name.isidentifier() or "flash" in name:
        raise ValueError(
            f"name: expected an identifier without 'flash', to which transformers gives a meaning, got {name!r}"
        )
    taken = ALL_ATTENTION_FUNCTIONS.get(name)
    if name == "eager" or (taken is not None and not isinstance(taken, _Implementation)):
        raise ValueError(f"name: expected one that is not taken, got {name!r}")
    AttentionInterface.register(name, _Implementation(attention))
    AttentionMaskInterface.register(name, padding_mask)


@dataclass(frozen=True)
class _Implementation:
    """What transformers calls."""

    attention: TokenAttention

    def __call__(
        self,
        module: nn.Module,
        query: Float[Tensor, "b h n_q c"],
        key: Float[Tensor, "b h_k n_k c"],
        value: Float[Tensor, "b h_k n_k c_v"],
        attention_mask: Tensor | None,
        dropout: float = 0.0,
        scaling: float | None = None,
        is_causal: bool | None = None,
        **kwargs: Any,
    ) -> tuple[Float[Tensor, "b n_q h c_v"], None]:
        for name, asked in kwargs.items():
            if name not in HARMLESS and asked is not None and asked is not False:
                why = f"GPA has no {NOT_THERE[name]}" if name in NOT_THERE else "GPA does not know what it asks for"
                got = type(asked).__name__ if isinstance(asked, Tensor) else repr(asked)
                raise ValueError(f"{name}: expected None, since {why}, got {got}")
        if is_causal is None:
            is_causal = getattr(module, "is_causal", True)  # as transformers has it for its own implementations
        shared = key.shape[1] != query.shape[1]
        out = self.attention(query, key, value, attention_mask, dropout, is_causal, scaling, shared)
        return out.transpose(1, 2).contiguous(), None


def padding_mask(
    batch_size: int,
    q_length: int,
    kv_length: int,
    q_offset: int | Tensor = 0,
    kv_offset: int = 0,
    mask_function: Callable[..., Any] = causal_mask_function,
    attention_mask: Bool[Tensor, "b n_k"] | None = None,
    **kwargs: Any,
) -> Bool[Tensor, "b 1 1 n_k"] | None:
    """What models of transformers mask, as GPA takes it: padding alone; what is later, GPA hides itself.

    Raises:
        ValueError: a mask that differs from query to query in another way.
    """
    if mask_function not in (bidirectional_mask_function, causal_mask_function):
        raise ValueError(
            "attention_mask: expected padding, or a causal model without a sliding window, packed sequences or the "
            "like; got a model that masks something else"
        )
    return None if attention_mask is None else attention_mask[:, None, None, -kv_length:]
