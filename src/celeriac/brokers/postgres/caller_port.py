"""The blocking ``Caller`` of PostgreSQL: remote control for ``app.control`` and the command line."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from celeriac.brokers.postgres.address import Address
from celeriac.brokers.postgres.blocking import Desk, Pool
from celeriac.brokers.postgres.bus import AT_ONCE, decoded
from celeriac.brokers.postgres.rows import clean
from celeriac.codec import json
from celeriac.codec.envelope import new_id
from celeriac.ports import AdapterOptions

__all__ = ["PostgresCaller"]

_REQUESTS = "celery.pidbox"
_REPLIES = "reply.celery.pidbox"
#: Seconds after which it looks for replies without having been told; without LISTEN the second one.
_LOOK_AGAIN, _POLL = 0.5, 0.05
monotonic = time.monotonic


class PostgresCaller:
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
        with self._pool.desk() as desk:
            listens = reply and desk.address.listen
            if listens:
                ((channel,),) = desk.call("listen_reply", (f"{_REPLIES} {clean(address)}",), self._timeout)
                desk.listen(channel, self._timeout)
            try:
                head = json.dumps({"clock": 1, "expires": time.time() + timeout})
                args = (_REQUESTS, "", head, json.dumps(body), False)
                ((heard,),) = desk.call("emit", args, self._timeout)
                return self._collect(desk, clean(address), ticket, timeout, limit) if reply and heard else []
            finally:
                if listens and desk.is_open:
                    desk.forget(self._timeout)

    def _collect(
        self, desk: Desk, address: str, ticket: str, timeout: float, limit: int | None
    ) -> list[Mapping[str, Any]]:
        deadline = monotonic() + timeout
        replies: list[Mapping[str, Any]] = []
        seen = 0
        while True:
            rows = desk.call("heard", (_REPLIES, address, seen, AT_ONCE), self._timeout)
            for seq, headers, payload in rows:
                seen = seq
                replies += [
                    item
                    for item, head in decoded(headers, payload)
                    if isinstance(item, dict) and head.get("ticket") == ticket
                ]
            if limit is not None and len(replies) >= limit:
                return replies[:limit]
            left = deadline - monotonic()
            if left <= 0:
                return replies
            if not rows and desk.address.listen:
                desk.notified(min(left, _LOOK_AGAIN))
            elif not rows:
                time.sleep(min(left, _POLL))

    def close(self) -> None:
        """Close the connections; a later call opens others."""
        self._pool.close()
