"""The blocking ``Caller`` of SQLite: remote control for ``app.control`` and the command line."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from celeriac.brokers.sqlite import bus
from celeriac.brokers.sqlite.address import Address
from celeriac.brokers.sqlite.bells import Bell, exchange_topic, reply_topic
from celeriac.brokers.sqlite.blocking import Desk, Pool
from celeriac.codec import json
from celeriac.codec.envelope import new_id
from celeriac.ports import AdapterOptions

__all__ = ["SQLiteCaller"]

_REQUESTS = "celery.pidbox"
_REPLIES = "reply.celery.pidbox"
#: Seconds after which it looks for replies without having been rung.
_LOOK_AGAIN = 0.5


class SQLiteCaller:
    """Broadcasts and collects replies, from any thread; see the ``Caller`` port."""

    def __init__(self, address: Address, options: AdapterOptions) -> None:
        self._pool = Pool(address, options.pool_limit)
        self._timeout = options.connect_timeout

    def call(
        self, request: Mapping[str, Any], *, timeout: float, limit: int | None = None, reply: bool = True
    ) -> Sequence[Mapping[str, Any]]:
        """Broadcast; with ``reply`` collect what comes within ``timeout`` seconds, at most ``limit``. When no worker
        listens it returns at once."""
        ticket = request.get("ticket") or new_id()
        own = request.get("reply_to")
        address = own["routing_key"] if own else new_id()
        body = {**request, "ticket": ticket}
        if reply and not own:
            body["reply_to"] = {"exchange": _REPLIES, "routing_key": address}
        head = json.dumps({"clock": 1, "expires": time.time() + timeout})
        text = json.dumps(body)
        with self._pool.desk() as desk:
            if not bus.listened(desk.bells, _REQUESTS):
                return []
            bell = desk.bells.hang(reply_topic(_REPLIES, address))
            try:
                seen = desk.bare(bus.last, self._timeout)
                desk.write(lambda sqlite: bus.add(sqlite, _REQUESTS, "", head, text), self._timeout)
                desk.bells.ring((exchange_topic(_REQUESTS),))
                return self._collect(desk, bell, seen, address, ticket, timeout, limit) if reply else []
            finally:
                bell.close()

    def _collect(
        self, desk: Desk, bell: Bell, seen: int, address: str, ticket: str, timeout: float, limit: int | None
    ) -> list[Mapping[str, Any]]:
        deadline = time.monotonic() + timeout
        replies: list[Mapping[str, Any]] = []
        while True:
            rows = desk.bare(partial(bus.since, seq=seen), self._timeout)
            for seq, exchange, routing_key, headers, payload in rows:
                seen = seq
                if exchange == _REPLIES and routing_key == address:
                    replies += [
                        item
                        for item, head in bus.decoded(headers, payload)
                        if isinstance(item, dict) and head.get("ticket") == ticket
                    ]
            if limit is not None and len(replies) >= limit:
                return replies[:limit]
            left = deadline - time.monotonic()
            if left <= 0:
                return replies
            if not rows:
                bell.wait(min(left, _LOOK_AGAIN))

    def close(self) -> None:
        """Close the connections; a later call opens others."""
        self._pool.close()
