"""Which keys are later than which queries, for a block of cells at a time."""

from __future__ import annotations

from functools import reduce

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from gpa_nd.engine.blocked.blocks import Scratch, all_finite

EXACT = 2**22  # positions as far apart as this differ by a half in float32, too


class Positions:
    """Where queries (n_q, axes) and keys (n_k, axes) stand: a query sees a key that is later on no axis.

    On a CPU they are made numbers of the kind that scores are, half a step between queries and keys: arithmetic on the
    scores takes a tenth of the time of a mask.
    """

    def __init__(self, of_queries: Tensor, of_keys: Tensor, dtype: torch.dtype) -> None:
        self.of_queries, self.of_keys = of_queries.mT.contiguous(), of_keys.mT.contiguous()
        self.exact = False
        if of_keys.device.type == "cpu":
            ends = [x.aminmax() for x in (of_queries, of_keys)]
            least, most = (int(f(a, b)) for f, a, b in zip((min, max), *ends, strict=True))
            self.exact = most - least < EXACT
        if self.exact:
            self.of_queries = (self.of_queries - least).to(dtype) + 0.5
            self.of_keys = (self.of_keys - least).to(dtype)

    def seen(
        self, query: Int[Tensor, "p s"], key: Int[Tensor, "p r"], seen: Bool[Tensor, "p 1 r"] | None
    ) -> Bool[Tensor, "p s r"]:
        """The keys that each query sees, of those that are seen at all."""
        axes = zip(self.of_queries, self.of_keys, strict=True)
        on_each = (of_keys[key][:, None] <= of_queries[query][..., None] for of_queries, of_keys in axes)
        not_later: Tensor = reduce(Tensor.logical_and_, on_each)
        return not_later if seen is None else not_later.logical_and_(seen)

    def hide(
        self,
        scores: Float[Tensor, "p s r"],
        query: Int[Tensor, "p s"],
        key: Int[Tensor, "p r"],
        seen: Bool[Tensor, "p 1 r"] | None,
        room: Scratch,
    ) -> Bool[Tensor, "p s 1"]:
        """Make the scores of what a query does not see −∞, and tell which queries see nothing."""
        if not (self.exact and all_finite(scores)):
            unseen = ~self.seen(query, key, seen)
            scores.masked_fill_(unseen, -torch.inf)
            return unseen.all(-1, keepdim=True)
        for of_queries, of_keys in zip(self.of_queries, self.of_keys, strict=True):
            of_key = of_keys[key][:, None]
            if seen is not None:
                of_key.masked_fill_(~seen, torch.inf)
            past = torch.sub(of_queries[query][..., None], of_key, out=room("past", scores.shape, scores.dtype))
            torch.minimum(scores, past.mul_(torch.inf), out=scores)
        return scores.amax(-1, keepdim=True).isneginf()
