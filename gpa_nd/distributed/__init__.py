"""Context parallelism: one long sequence, image, volume, video or graph over several processes."""

from gpa_nd.distributed.context_parallel import ContextParallel
from gpa_nd.distributed.shards import Shards
from gpa_nd.distributed.traffic import Traffic

__all__ = ["ContextParallel", "Shards", "Traffic"]
