"""A place of its own on a cluster that is in use: keys with a prefix, on all nodes. For ``celeriac broker test``."""

from __future__ import annotations

from celeriac.brokers.redis.blocking import monotonic
from celeriac.brokers.redis.cluster.address import parse_cluster
from celeriac.brokers.redis.cluster.pools import NodePools
from celeriac.brokers.redis.cluster.slots import queue_tag, tagged
from celeriac.brokers.redis.scratch_port import SCRATCH_TIMEOUT, ScratchKeys
from celeriac.ports import AdapterOptions

__all__ = ["ClusterScratch"]


class ClusterScratch(ScratchKeys):
    """See ``celeriac.ports.Scratch``."""

    one_server = False

    def __init__(self, url: str, options: AdapterOptions, name: str) -> None:
        address = parse_cluster(url, options)
        super().__init__(url, address.key_prefix, name)
        self._nodes = NodePools(address, 1)

    def inject(self, queue: str, raw: bytes) -> None:
        """See ``Scratch.inject``."""
        key = tagged(self._prefix, queue_tag(queue)) + queue
        # A slot is found by the tag alone, whatever stands before it.
        self._nodes.slot(queue_tag(queue)).call(("LPUSH", key, raw), SCRATCH_TIMEOUT)

    def clear(self) -> None:
        """See ``Scratch.clear``."""
        for node in self._nodes.masters(monotonic() + SCRATCH_TIMEOUT):
            self._drop(node)
        self._nodes.close()
