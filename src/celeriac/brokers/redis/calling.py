"""The asking side of remote control on Celery's wire: broadcast a request, collect the replies of the workers.

The reply queue is bound as kombu binds it and registered in kombu's table of deadlines, so that its binding goes even
when this process is killed; the list of replies itself has a time to live.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from celeriac.brokers.redis.blocking import Pool, monotonic
from celeriac.brokers.redis.broadcasts import REPLY_LIFE, broadcast_text, opened
from celeriac.brokers.redis.layout import SEPARATOR, Layout
from celeriac.brokers.redis.urls import parse
from celeriac.codec.envelope import new_id
from celeriac.exceptions import OperationalError
from celeriac.ports import AdapterOptions

__all__ = ["RedisCaller"]

_REQUESTS, _REPLIES = "celery.pidbox", "reply.celery.pidbox"
#: kombu keeps a binding table for an hour after its last renewal.
_BINDING_LIFE_MS = 3_600_000
#: Longest single BRPOP, in seconds.
_SLICE = 1.0
#: Seconds beyond the caller's time for connecting and cleaning up.
_GRACE = 4.0


class RedisCaller:
    """See ``celeriac.ports.Caller``."""

    def __init__(self, url: str, options: AdapterOptions, *, pool: Pool | None = None) -> None:
        """With a ``pool`` it is part of a cluster's, and the pool knows the address."""
        self._address = parse(url, options) if pool is None else pool.address
        self._layout = Layout(self._address, options)
        self._pool = pool or Pool(self._address, max(options.pool_limit, 1))
        self._clock = 0

    def call(
        self, request: Mapping[str, Any], *, timeout: float, limit: int | None = None, reply: bool = True
    ) -> Sequence[Mapping[str, Any]]:
        """See ``Caller.call``. Raises ``OperationalError`` and ``EncodeError``."""
        self._clock += 1
        ticket = request.get("ticket") or new_id()
        body = {**request, "ticket": ticket}
        if reply and "reply_to" not in request:
            body["reply_to"] = {"exchange": _REPLIES, "routing_key": new_id()}
        # Workers drop what they could not answer in time.
        headers = {"clock": self._clock, "expires": time.time() + timeout}
        text = broadcast_text(_REQUESTS, "", body, headers, mode=2)
        publish = ("PUBLISH", self._layout.topic(_REQUESTS), text)
        if not reply:
            self._pool.call(publish, _GRACE)
            return ()
        caller_id = body["reply_to"]["routing_key"]
        queue = f"{caller_id}.{_REPLIES}"
        member = SEPARATOR.join((caller_id, "", queue))
        self._bind(member)
        try:
            self._pool.call(publish, _GRACE)
            return self._collect(self._layout.prefix + queue, ticket, timeout, limit)
        finally:
            self._unbind(member, self._layout.prefix + queue)

    def close(self) -> None:
        """Close the pooled connections; a later call opens new ones."""
        self._pool.close()

    def _bind(self, member: str) -> None:
        until = int(time.time() * 1000) + _BINDING_LIFE_MS
        self._pool.transaction(
            [
                ("SADD", self._layout.bindings(_REPLIES), member),
                ("ZADD", self._layout.binding_deadlines, "GT", until, _REPLIES),
            ],
            _GRACE,
        )

    def _unbind(self, member: str, key: str) -> None:
        try:
            self._pool.transaction([("SREM", self._layout.bindings(_REPLIES), member), ("DEL", key)], _GRACE)
        except OperationalError:
            pass  # the answers are there; the list expires and kombu sweeps the binding

    def _collect(self, key: str, ticket: str, timeout: float, limit: int | None) -> list[Mapping[str, Any]]:
        answers: list[Mapping[str, Any]] = []
        deadline = monotonic() + timeout
        while limit is None or len(answers) < limit:
            left = deadline - monotonic()
            if left <= 0:
                break
            pause = max(min(left, _SLICE), 0.01)
            popped = self._pool.call(("BRPOP", key, f"{pause:.3f}"), pause + _GRACE)
            if popped is None:
                continue
            # Workers of Celery leave the list without a time to live.
            self._pool.call(("EXPIRE", key, REPLY_LIFE), _GRACE, repeat=True)
            message = opened(popped[1])
            if message is not None and message[1].get("ticket") == ticket and isinstance(message[0], dict):
                answers.append(message[0])
        return answers
