"""A place of its own on a Redis that is in use: keys with a prefix. For ``celeriac broker test``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from celeriac.brokers.redis.blocking import Pool
from celeriac.brokers.redis.urls import parse
from celeriac.ports import AdapterOptions

__all__ = ["SCRATCH_TIMEOUT", "RedisScratch", "ScratchKeys"]

#: Seconds that a call may take.
SCRATCH_TIMEOUT = 10.0
_PAGE = 500
#: A port of this machine on which nothing listens.
_NOBODY = 1


class ScratchKeys:
    """Keys of a test, below those of the user, wherever they are."""

    publisher_schedules = False

    def __init__(self, url: str, key_prefix: str, name: str) -> None:
        parts = urlsplit(url)
        # A prefix in the URL would be the one of the user's own keys.
        query = [each for each in parse_qsl(parts.query) if each[0] != "global_keyprefix"]
        self.url = urlunsplit(parts._replace(query=urlencode(query)))
        self._prefix = f"{key_prefix}{name}:"
        self.options: Mapping[str, Any] = {"key_prefix": self._prefix}
        self.what = f"keys {self._prefix}*"
        self.unreachable = f"{parts.scheme}://user:s3cret-word@127.0.0.1:{_NOBODY}/0"

    def exempt(self, beside: bool) -> Mapping[str, str]:
        """See ``Scratch.exempt``."""
        return {}

    def _drop(self, pool: Pool) -> None:
        """All of them on one server, page by page, so that nobody waits for it."""
        literal = "".join(f"\\{each}" if each in "*?[]\\" else each for each in self._prefix)
        cursor: Any = 0
        while True:
            cursor, keys = pool.call(("SCAN", cursor, "MATCH", f"{literal}*", "COUNT", _PAGE), SCRATCH_TIMEOUT)
            for key in keys:  # one by one: on a cluster those of a page lie in several slots
                pool.call(("UNLINK", key), SCRATCH_TIMEOUT)
            if int(cursor) == 0:
                break


class RedisScratch(ScratchKeys):
    """See ``celeriac.ports.Scratch``."""

    one_server = True

    def __init__(self, url: str, options: AdapterOptions, name: str) -> None:
        address = parse(url, options)
        super().__init__(url, address.key_prefix, name)
        self._pool = Pool(address, 1)

    def inject(self, queue: str, raw: bytes) -> None:
        """See ``Scratch.inject``."""
        self._pool.call(("LPUSH", self._prefix + queue, raw), SCRATCH_TIMEOUT)

    def clear(self) -> None:
        """See ``Scratch.clear``."""
        self._drop(self._pool)
        self._pool.close()
