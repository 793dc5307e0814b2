"""From where a generator copies: the attention weights of its decoder levels, for chosen query pixels."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from examples.pose_morph.errors import UserError
from examples.pose_morph.networks.attention import CosineAttention, FullAttention
from examples.pose_morph.networks.generator import Generator
from gpa_nd import GPA, select_keys
from gpa_nd.diagnostics import key_contributions


@dataclass(frozen=True, eq=False)
class CopyLevel:
    """The attention of one decoder level in one call of the generator.

    Attributes:
        attention: The module that was called, without what wraps it.
        q: Its queries, of the target.
        k: Its keys, of the source.
    """

    attention: nn.Module
    q: Float[Tensor, "b heads h w c"]
    k: Float[Tensor, "b heads h2 w2 c"]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the queries."""
        return self.q.shape[2], self.q.shape[3]

    @property
    def key_size(self) -> tuple[int, int]:
        """Height and width of the keys."""
        return self.k.shape[2], self.k.shape[3]

    @property
    def name(self) -> str:
        """The level by its resolution, such as "128x80"."""
        return "x".join(map(str, self.size))

    @property
    def kind(self) -> str:
        """The attention by name: gpa, full, or the class of another one."""
        return {GPA: "gpa", FullAttention: "full"}.get(type(self.attention), type(self.attention).__name__)

    @property
    def has_weights(self) -> bool:
        """Whether every key has a weight of its own, which approximations of another kind do not compute."""
        return isinstance(self.attention, GPA | FullAttention)

    def weights(self, queries: Int[Tensor, "asked"]) -> Float[Tensor, "b asked n_k"]:
        """Return the softmax weights of all keys for some query pixels (row-major numbers), the mean over heads.

        Raises:
            UserError: the attention has no such weights.
        """
        return self._weights(self.q, queries).mean(dim=1)

    def selected(self, queries: Int[Tensor, "asked"]) -> Bool[Tensor, "b asked n_k"]:
        """Return which keys the query pixels see at all, in any head: those under GPA's relevant coarse keys."""
        # With queries of zeros all keys that are seen weigh the same; a sharp softmax would round some of them to zero.
        return (self._weights(torch.zeros_like(self.q), queries) > 0).any(dim=1)

    def _weights(self, q: Tensor, queries: Tensor) -> Float[Tensor, "b heads asked n_k"]:
        match self.attention:
            case GPA() as gpa:
                layout = gpa.layout(self.size, self.key_size, q.device)
                flat_q, flat_k = q.flatten(2, 3), self.k.flatten(2, 3)
                return key_contributions(
                    flat_q, flat_k, layout, self._relevant, queries, scale=gpa.scale, affinity=gpa.affinity
                )
            case FullAttention() as full:
                scale = q.shape[-1] ** -0.5 if full.scale is None else full.scale
                return (q.flatten(2, 3)[:, :, queries] @ self.k.flatten(2, 3).mT * scale).softmax(dim=-1)
            case _:
                raise UserError(
                    f"model: the attention at {self.name} is {self.kind}, which has no weights of single keys; "
                    "expected gpa or full attention: choose another layer or another model"
                )

    @cached_property
    def _relevant(self) -> Int[Tensor, "b heads m kappa"]:
        """Phase 1 as the module ran it, for the queries that it was called with."""
        gpa = self.attention
        assert isinstance(gpa, GPA)
        layout = gpa.layout(self.size, self.key_size, self.q.device)
        q, k = self.q.flatten(2, 3), self.k.flatten(2, 3)
        return select_keys(q, k, layout, kappa=gpa.kappa, scale=gpa.scale, affinity=gpa.affinity, backend=gpa.backend)


@contextmanager
def recorded(generator: Generator) -> Iterator[list[CopyLevel]]:
    """Collect a `CopyLevel` for every attention of the decoder, smallest level first, in the calls made inside."""
    levels: list[CopyLevel] = []

    def record(module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        levels.append(CopyLevel(module, arguments[0].detach(), arguments[1].detach()))

    copies = [block.copy.attention for block in generator.target_decoder if block.copy is not None]
    modules = [module.attention if isinstance(module, CosineAttention) else module for module in copies]
    hooks = [module.register_forward_pre_hook(record) for module in modules]
    try:
        yield levels
    finally:
        for hook in hooks:
            hook.remove()


def find_level(levels: list[CopyLevel], name: str) -> CopyLevel:
    """Return the level of that name; "last" is the largest one.

    Raises:
        UserError: there is no such level; the message names those that are there.
    """
    if name == "last":
        return levels[-1]
    for level in levels:
        if level.name == name:
            return level
    there = ", ".join(level.name for level in levels)
    raise UserError(f"layer: expected last or one of {there}, where the model has attention; got {name}")
