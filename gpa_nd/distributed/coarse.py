"""What Phase 1 compares: coarse keys of all processes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from gpa_nd.distributed.peers import Peers
from gpa_nd.distributed.together import Together
from gpa_nd.engine.compared import Compared
from gpa_nd.engine.phase1 import KeyGroups
from gpa_nd.engine.rankings import Spread, as_long_as_keys


@dataclass(frozen=True, eq=False)
class CoarseKeys:
    """Coarse keys of all processes.

    Attributes:
        means: (B, H_k, n_k', c) of visible keys.
        compared: these as the ranking takes them.
    """

    means: Float[Tensor, "b h_k n_k_low c"]
    compared: Compared

    @classmethod
    def of(
        cls,
        groups: KeyGroups,
        means: Float[Tensor, "b h_k groups c"],
        longer: bool,
        spread: bool,
        own: int,
        together: Together,
        peers: Peers,
    ) -> CoarseKeys:
        """From one's own groups.

        Args:
            groups: one's own, and others after them.
            means: theirs.
            longer: whether means are compared as long as the root mean square of the group's keys.
            spread: whether it is needed.
            own: how many of the groups are one's own.
            together: who holds which coarse keys.
            peers: the processes.
        """
        beside: dict[str, Tensor] = {}
        if spread:
            beside["deviation"], beside["log_size"] = groups.spread(means).tensors()
        if longer:
            beside["squares"] = groups.squares()
        if groups.coarse is not None:
            beside["added"] = groups.coarse.added
        means = together.gather(means[:, :, :own], peers)
        if beside:
            stacked = torch.stack(tuple(beside.values()), dim=-1)
            beside = dict(zip(beside, together.gather(stacked[:, :, :own], peers).unbind(-1), strict=True))
        compared = Compared(
            as_long_as_keys(means, beside["squares"]) if longer else means,
            beside.get("added"),
            Spread(beside["deviation"], beside["log_size"]) if spread else None,
        )
        return cls(means, compared)
