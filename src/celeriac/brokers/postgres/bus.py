"""Events and remote control through a small table: each listener reads what is new when it is told.

Lossy: rows go after a minute, and none is written when nobody listens. broker_port.py passes its ``Bus`` port on to
here; caller_port.py is the blocking side.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any

from celeriac.brokers.postgres.rows import clean
from celeriac.brokers.postgres.session import Session, shielded
from celeriac.codec import json
from celeriac.codec.envelope import new_id
from celeriac.exceptions import CeleryError, OperationalError

__all__ = ["AT_ONCE", "PostgresBus", "decoded"]

AT_ONCE = 500
#: Seconds after which a listener looks without having been told; without LISTEN the second one; and between two words
#: that it is still there.
_LOOK_AGAIN, _POLL, _STILL_HERE = 5.0, 0.5, 20.0
#: After a broken connection.
_AGAIN = 0.5


class PostgresBus:
    """The ``Bus`` port on a broker's session."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._generation = 0
        self._ears: dict[str, int] = defaultdict(int)

    async def emit(self, exchange: str, routing_key: str, payload: Any, headers: Mapping[str, Any]) -> None:
        """Send to whoever listens now."""
        await self._send(exchange, routing_key, payload, headers, reply=False)

    async def reply(self, exchange: str, routing_key: str, payload: Any, headers: Mapping[str, Any]) -> None:
        """Answer a request."""
        await self._send(exchange, routing_key, payload, headers, reply=True)

    async def _send(
        self, exchange: str, routing_key: str, payload: Any, headers: Mapping[str, Any], *, reply: bool
    ) -> None:
        head, body = json.dumps(dict(headers)), json.dumps(payload)
        await self._session.call("emit", (clean(exchange), clean(routing_key), head, body, reply))

    def listen(self, exchange: str) -> AsyncIterator[tuple[Any, Mapping[str, Any]]]:
        """Payload and headers of everything sent from now on, until the broker is closed."""
        return self._listen(clean(exchange))

    async def _listen(self, exchange: str) -> AsyncIterator[tuple[Any, Mapping[str, Any]]]:
        generation, name = self._generation, new_id()
        session, ear = self._session, _Ear(self._session, exchange, name)
        try:
            while generation == self._generation:
                rings = session.rings
                try:
                    items = await ear.items()
                except OperationalError:
                    ear.forget()
                    if session.is_open:
                        await asyncio.sleep(_AGAIN)
                    elif generation == self._generation:
                        await session.rung(rings, _AGAIN)
                    continue
                for item in items:
                    yield item
                if len(items) < AT_ONCE and generation == self._generation:
                    await session.rung(rings, _LOOK_AGAIN if session.address.listen else _POLL)
        finally:
            await ear.leave()

    def close(self) -> None:
        """End all listeners at their next look."""
        self._generation += 1


class _Ear:
    """One listener, as the database knows it."""

    def __init__(self, session: Session, exchange: str, name: str) -> None:
        self._session, self._exchange, self._name = session, exchange, name
        self._seen: int | None = None
        self._connection = -1
        self._said = 0.0

    def forget(self) -> None:
        """The connection broke: begin anew, for what came meanwhile may be gone."""
        self._connection = -1

    async def items(self) -> list[tuple[Any, Mapping[str, Any]]]:
        """What came since the last time."""
        session = self._session
        if self._connection != session.generation or time.monotonic() - self._said > _STILL_HERE:
            ((newest,),) = await session.call("hear", (self._exchange, self._name, session.address.listen))
            self._connection, self._said = session.generation, time.monotonic()
            if self._seen is None:
                self._seen = newest
        rows = await session.call("heard", (self._exchange, None, self._seen, AT_ONCE))
        if rows:
            self._seen = rows[-1][0]
        return [item for _, headers, payload in rows for item in decoded(headers, payload)]

    async def leave(self) -> None:
        """Nothing is written for it any more."""
        if self._session.is_open:
            try:
                await shielded(self._session.call("turn_away", (self._exchange, self._name)))
            except (OperationalError, RuntimeError):
                pass  # it is forgotten after a minute


def decoded(headers: bytes, payload: bytes) -> Iterator[tuple[Any, Mapping[str, Any]]]:
    """The item, or nothing when it cannot be decoded."""
    try:
        head, body = json.loads(headers), json.loads(payload)
    except (CeleryError, ValueError):
        return
    if isinstance(head, dict):
        yield body, head
