"""All that a process keeps of the layout of a shape, which is made once and for that alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gpa_nd.distributed.geometry import geometry_of
from gpa_nd.distributed.shards import Shards
from gpa_nd.distributed.share import Share
from gpa_nd.layout import Layout


@dataclass(frozen=True, eq=False)
class Plan:
    """What a process knows of a structure that is spread over several.

    Attributes:
        shards: which rows each process holds.
        geometry: what the layout says, in numbers that processes compare.
        share: what this process keeps of the layout, on the CPU.
    """

    shards: Shards
    geometry: dict[str, list[int]]
    share: Share

    @classmethod
    def of(cls, layout: Layout, query_shape: Sequence[int], key_shape: Sequence[int], rank: int, size: int) -> Plan:
        """That of one process.

        Args:
            layout: of the whole, on the CPU; not needed any more afterwards.
            query_shape: the shape of the queries.
            key_shape: that of the keys.
            rank: the number of the process.
            size: how many there are.

        Example:
            >>> import gpa_nd
            >>> layout = gpa_nd.audio(downsample=4, cells=4, kappa=2).layout((32,), (32,))
            >>> Plan.of(layout, (32,), (32,), rank=1, size=4).shards.queries[1].tolist()
            [8, 9, 10, 11, 12, 13, 14, 15]
        """
        shards = Shards.of(layout, query_shape, key_shape, size)
        share = Share.of(layout, shards, query_shape, key_shape, rank)
        return cls(shards, geometry_of(layout), share)
