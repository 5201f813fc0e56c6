"""The asking side of remote control on Celery's exchanges: broadcast a request, collect the replies of the workers.

Each call has a connection of its own for a moment: the reply queue is exclusive and goes with it.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Mapping, Sequence
from typing import Any

from celeriac.brokers.rabbitmq import methods as m
from celeriac.brokers.rabbitmq.address import parse
from celeriac.brokers.rabbitmq.blocking import Connection, Line, monotonic
from celeriac.brokers.rabbitmq.bus import exchange_of, opened, written
from celeriac.brokers.rabbitmq.fields import short
from celeriac.brokers.rabbitmq.frames import publish
from celeriac.brokers.rabbitmq.layout import bind, declare_queue
from celeriac.codec.envelope import new_id
from celeriac.ports import AdapterOptions

__all__ = ["RabbitCaller"]

_REQUESTS, _REPLIES = "celery.pidbox", "reply.celery.pidbox"
#: Seconds beyond the caller's time for connecting.
_GRACE = 4.0
#: Milliseconds: life of the unused reply queue, and of a reply.
_UNUSED, _LIFE = 10_000, 300_000


class RabbitCaller:
    """See ``celeriac.ports.Caller``."""

    def __init__(self, url: str, options: AdapterOptions) -> None:
        self._addresses = parse(url, options)
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
        content = written(body, headers, mode=2)
        line = Line(self._addresses)
        begin = monotonic()
        try:
            with line.use(begin + timeout + _GRACE) as connection:
                deadline = begin + _GRACE
                connection.run(exchange_of(_REQUESTS), deadline)
                if reply:
                    key = str(body["reply_to"]["routing_key"])
                    connection.run(_declaring(f"{key}.{_REPLIES}", key), deadline)
                    connection.ask(
                        (m.BASIC_CONSUME, 0, f"{key}.{_REPLIES}", "", False, True, True, False, {}), deadline
                    )
                frame = publish(1, short(_REQUESTS), b"\0", *content, connection.frame_max, mandatory=False)
                connection.publish([frame], deadline)
                return _collected(connection, ticket, timeout, limit) if reply else ()
        finally:
            line.close()

    def close(self) -> None:
        """Nothing is kept between calls."""


def _declaring(queue: str, key: str) -> Generator[tuple[Any, ...], Any, None]:
    yield from exchange_of(_REPLIES)
    yield from declare_queue(queue, False, True, True, {"x-expires": _UNUSED, "x-message-ttl": _LIFE})
    yield bind(queue, _REPLIES, key)


def _collected(connection: Connection, ticket: str, timeout: float, limit: int | None) -> list[Mapping[str, Any]]:
    answers: list[Mapping[str, Any]] = []
    deadline = monotonic() + timeout
    while limit is None or len(answers) < limit:
        events, connection.delivered = connection.delivered, []
        for event in events:
            message = opened(event)
            if message is not None and message[1].get("ticket") == ticket and isinstance(message[0], dict):
                answers.append(message[0])
        if limit is not None and len(answers) >= limit:
            break
        try:
            connection.hear(deadline)
        except TimeoutError:
            break
    return answers if limit is None else answers[:limit]
