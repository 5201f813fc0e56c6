"""A place of its own on a cluster that is in use: keys with a prefix, on all nodes. For ``celeriac broker test``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from celeriac.brokers.redis.blocking import Pool, monotonic
from celeriac.brokers.redis.cluster.address import parse_cluster
from celeriac.brokers.redis.cluster.pools import NodePools
from celeriac.brokers.redis.cluster.slots import queue_tag, tagged
from celeriac.ports import AdapterOptions

__all__ = ["ClusterScratch"]

_TIMEOUT = 10.0
_PAGE = 500
#: A port of this machine on which nothing listens.
_NOBODY = 1


class ClusterScratch:
    """See ``celeriac.ports.Scratch``."""

    publisher_schedules = False
    one_server = False

    def __init__(self, url: str, options: AdapterOptions, name: str) -> None:
        address = parse_cluster(url, options)
        parts = urlsplit(url)
        # A prefix in the URL would be the one of the user's own keys.
        query = [each for each in parse_qsl(parts.query) if each[0] != "global_keyprefix"]
        self.url = urlunsplit(parts._replace(query=urlencode(query)))
        self._prefix = f"{address.key_prefix}{name}:"
        self.options: Mapping[str, Any] = {"key_prefix": self._prefix}
        self.what = f"keys {self._prefix}*"
        self.unreachable = f"redis+cluster://user:s3cret-word@127.0.0.1:{_NOBODY}/"
        self._nodes = NodePools(address, 1)

    def inject(self, queue: str, raw: bytes) -> None:
        """See ``Scratch.inject``."""
        key = tagged(self._prefix, queue_tag(queue)) + queue
        # A slot is found by the tag alone, whatever stands before it.
        self._nodes.slot(queue_tag(queue)).call(("LPUSH", key, raw), _TIMEOUT)

    def clear(self) -> None:
        """See ``Scratch.clear``: page by page, so that nobody waits for it."""
        for node in self._nodes.masters(monotonic() + _TIMEOUT):
            self._clear(node)
        self._nodes.close()

    def _clear(self, node: Pool) -> None:
        literal = "".join(f"\\{each}" if each in "*?[]\\" else each for each in self._prefix)
        cursor: Any = 0
        while True:
            cursor, keys = node.call(("SCAN", cursor, "MATCH", f"{literal}*", "COUNT", _PAGE), _TIMEOUT)
            for key in keys:  # one by one: those of a page lie in several slots
                node.call(("UNLINK", key), _TIMEOUT)
            if int(cursor) == 0:
                break
