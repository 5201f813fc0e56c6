"""Events and remote control through a small table of the file: each listener reads what is new when it is rung.

Lossy: rows go after a minute, and none is written when nobody listens. broker_port.py passes its ``Bus`` port on to
here; caller_port.py is the blocking side.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from functools import partial
from typing import Any

from celeriac.brokers.sqlite.bells import Bell, Bells, exchange_topic, reply_topic
from celeriac.brokers.sqlite.errors import Busy
from celeriac.brokers.sqlite.session import Session, rung
from celeriac.brokers.sqlite.statements import statements
from celeriac.codec import json
from celeriac.exceptions import CeleryError, OperationalError

__all__ = ["SQLiteBus", "add", "decoded", "last", "listened", "since"]

SQL = statements("bus.sql")
#: Seconds that a row is kept.
_KEPT = 60.0
_AT_ONCE = 500
#: Seconds after which a listener looks without having been rung, and after which it tries a broken file again.
_LOOK_AGAIN = 1.0


def add(sqlite: sqlite3.Connection, exchange: str, routing_key: str, headers: bytes, payload: bytes) -> None:
    """Store one item."""
    sqlite.execute(SQL["add"], (exchange, routing_key, time.time() + _KEPT, headers, payload))


def last(sqlite: sqlite3.Connection) -> int:
    """The number of the newest item ever."""
    return int(sqlite.execute(SQL["last"]).fetchone()[0])


def since(sqlite: sqlite3.Connection, seq: int) -> list[tuple[int, str, str, bytes, bytes]]:
    """Items after ``seq``: number, exchange, routing key, headers, payload."""
    return sqlite.execute(SQL["since"], (seq, _AT_ONCE)).fetchall()


def listened(bells: Bells, exchange: str) -> bool:
    """Whether anybody listens to an exchange, as far as can be seen."""
    return exchange_topic(exchange) in bells.waiting("e") or bells.blind


class SQLiteBus:
    """The ``Bus`` port on a broker's session."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._generation = 0

    async def emit(self, exchange: str, routing_key: str, payload: Any, headers: Mapping[str, Any]) -> None:
        """Send to whoever listens now."""
        if listened(self._session.bells, exchange):
            await self._send(exchange, routing_key, payload, headers, exchange_topic(exchange))

    async def reply(self, exchange: str, routing_key: str, payload: Any, headers: Mapping[str, Any]) -> None:
        """Answer a request."""
        await self._send(exchange, routing_key, payload, headers, reply_topic(exchange, routing_key))

    async def _send(
        self, exchange: str, routing_key: str, payload: Any, headers: Mapping[str, Any], topic: str
    ) -> None:
        head, body = json.dumps(dict(headers)), json.dumps(payload)
        await self._session.write(lambda sqlite: add(sqlite, exchange, routing_key, head, body), rows=1)
        self._session.bells.ring((topic,))

    def listen(self, exchange: str) -> AsyncIterator[tuple[Any, Mapping[str, Any]]]:
        """Payload and headers of everything sent from now on, until the broker is closed."""
        bell = self._session.bells.hang(exchange_topic(exchange))
        try:
            seen = self._session.at_once(last)
        except (Busy, OperationalError):
            seen = None
        return self._listen(exchange, bell, seen)

    async def _listen(
        self, exchange: str, bell: Bell, seen: int | None
    ) -> AsyncIterator[tuple[Any, Mapping[str, Any]]]:
        generation = self._generation
        try:
            while generation == self._generation:
                try:
                    seen = await self._session.bare(last) if seen is None else seen
                    rows = await self._session.bare(partial(since, seq=seen))
                except OperationalError:
                    seen, rows = None, []
                for seq, to, _, headers, payload in rows:
                    seen = seq
                    if to == exchange:
                        for item in decoded(headers, payload):
                            yield item
                if len(rows) < _AT_ONCE and not await rung(bell, _LOOK_AGAIN) and bell.gone:
                    bell.close()
                    bell = self._session.bells.hang(exchange_topic(exchange))
        finally:
            bell.close()

    def close(self) -> None:
        """End all listeners at their next look."""
        self._generation += 1


def decoded(headers: bytes, payload: bytes) -> Iterator[tuple[Any, Mapping[str, Any]]]:
    """The item, or nothing when it cannot be decoded."""
    try:
        head, body = json.loads(headers), json.loads(payload)
    except (CeleryError, ValueError):
        return
    if isinstance(head, dict):
        yield body, head
