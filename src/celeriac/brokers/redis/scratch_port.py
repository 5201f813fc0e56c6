"""A place of its own on a Redis that is in use: keys with a prefix. For ``celeriac broker test``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from celeriac.brokers.redis.blocking import Pool
from celeriac.brokers.redis.urls import parse
from celeriac.ports import AdapterOptions

__all__ = ["RedisScratch"]

_TIMEOUT = 10.0
_PAGE = 500
#: A port of this machine on which nothing listens.
_NOBODY = 1


class RedisScratch:
    """See ``celeriac.ports.Scratch``."""

    publisher_schedules = False
    one_server = True

    def __init__(self, url: str, options: AdapterOptions, name: str) -> None:
        address = parse(url, options)
        parts = urlsplit(url)
        # A prefix in the URL would be the one of the user's own keys.
        query = [each for each in parse_qsl(parts.query) if each[0] != "global_keyprefix"]
        self.url = urlunsplit(parts._replace(query=urlencode(query)))
        self._prefix = f"{address.key_prefix}{name}:"
        self.options: Mapping[str, Any] = {"key_prefix": self._prefix}
        self.what = f"keys {self._prefix}*"
        self.unreachable = f"redis://user:s3cret-word@127.0.0.1:{_NOBODY}/0"
        self._pool = Pool(address, 1)

    def inject(self, queue: str, raw: bytes) -> None:
        """See ``Scratch.inject``."""
        self._pool.call(("LPUSH", self._prefix + queue, raw), _TIMEOUT)

    def clear(self) -> None:
        """See ``Scratch.clear``: page by page, so that nobody waits for it."""
        literal = "".join(f"\\{each}" if each in "*?[]\\" else each for each in self._prefix)
        cursor: Any = 0
        while True:
            cursor, keys = self._pool.call(("SCAN", cursor, "MATCH", f"{literal}*", "COUNT", _PAGE), _TIMEOUT)
            if keys:
                self._pool.call(("UNLINK", *keys), _TIMEOUT)
            if int(cursor) == 0:
                break
        self._pool.close()
