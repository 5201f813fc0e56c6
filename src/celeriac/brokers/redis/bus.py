"""Events and remote control on Celery's wire: fan-out over pub/sub, replies over short-lived lists.

Used by the agent of a worker through ``RedisBroker``. The messages are the envelopes of kombu with base64 bodies.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from typing import Any

from celeriac.brokers.redis.address import Address
from celeriac.brokers.redis.broadcasts import REPLY_LIFE, broadcast_text, opened, reply_queues
from celeriac.brokers.redis.layout import Layout
from celeriac.brokers.redis.link import Link
from celeriac.exceptions import OperationalError

__all__ = ["RedisBus"]

logger = logging.getLogger("celeriac.brokers.redis")

_RECONNECT_FIRST, _RECONNECT_LAST = 0.1, 5.0
#: Longest time that an event waits for a subscription of this very process, in seconds.
_SUBSCRIBING = 1.0
#: Most messages that wait for a slow listener; the oldest go first. Lossy by contract.
_BACKLOG = 10_000


class RedisBus:
    """``Bus`` over the broker's connection, with a further one for each listener."""

    def __init__(self, address: Address, layout: Layout, link: Link) -> None:
        self._address = address
        self._layout = layout
        self._link = link
        self._listeners: set[_Listener] = set()

    async def emit(self, exchange: str, routing_key: str, payload: Any, headers: Mapping[str, Any]) -> None:
        """See ``Bus.emit``."""
        text = broadcast_text(exchange, routing_key, payload, headers)
        for listener in list(self._listeners):
            await listener.subscribed()  # what follows a call of listen() is heard
        await self._link.call("PUBLISH", self._layout.topic(exchange, routing_key), text)

    async def reply(self, exchange: str, routing_key: str, payload: Any, headers: Mapping[str, Any]) -> None:
        """See ``Bus.reply``; a caller that is gone gets nothing, and nothing stays behind."""
        members = await self._link.call("SMEMBERS", self._layout.bindings(exchange))
        text = broadcast_text(exchange, routing_key, payload, headers)
        wire = await self._link.wire()
        for queue in reply_queues(self._layout, members, routing_key):
            key = self._layout.prefix + queue
            wire.post("MULTI")
            wire.post("LPUSH", key, text)
            wire.post("EXPIRE", key, REPLY_LIFE)
            await self._link.call("EXEC")

    def listen(self, exchange: str) -> AsyncIterator[tuple[Any, Mapping[str, Any]]]:
        """See ``Bus.listen``."""
        listener = _Listener(self._address, self._layout.topic(exchange))
        self._listeners.add(listener)
        return self._stream(listener)

    async def _stream(self, listener: _Listener) -> AsyncIterator[tuple[Any, Mapping[str, Any]]]:
        try:
            async for text in listener.messages():
                message = opened(text)
                if message is not None:
                    yield message
        finally:
            self._listeners.discard(listener)
            listener.close()

    def close(self) -> None:
        """End all listeners."""
        for listener in set(self._listeners):
            listener.close()


class _Listener:
    """One subscription, to a fan-out exchange with all its routing keys, that outlives connections."""

    def __init__(self, address: Address, topic: str) -> None:
        self._topic = topic
        self._messages: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._lost = asyncio.Event()
        self._confirmed = asyncio.Event()
        self._closed = False
        self._link = Link(address, on_push=self._push, on_lost=self._lost.set)
        self._keeper = asyncio.create_task(self._keep_subscribed())

    def close(self) -> None:
        self._closed = True
        self._keeper.cancel()
        self._messages.put_nowait(None)
        self._confirmed.set()
        self._link.close()

    async def subscribed(self) -> None:
        """Wait a moment for a subscription that is under way."""
        if not self._confirmed.is_set():
            try:
                await asyncio.wait_for(self._confirmed.wait(), _SUBSCRIBING)
            except TimeoutError:
                pass

    async def messages(self) -> AsyncIterator[bytes]:
        while (text := await self._messages.get()) is not None:
            yield text

    async def _keep_subscribed(self) -> None:
        pause = _RECONNECT_FIRST
        while not self._closed:
            self._lost.clear()
            try:
                wire = await self._link.wire()
                wire.subscribe((self._topic,), (_literal(self._topic) + "/*",))
            except OperationalError as error:
                logger.debug("listening on %s: %s", self._topic, error)
                await asyncio.sleep(pause)
                pause = min(pause * 2, _RECONNECT_LAST)
            else:
                pause = _RECONNECT_FIRST
                await self._lost.wait()

    def _push(self, push: list[Any]) -> None:
        if push[0] in (b"message", b"pmessage"):
            if self._messages.qsize() >= _BACKLOG:
                self._messages.get_nowait()
            self._messages.put_nowait(push[-1])
        elif push[0] == b"psubscribe":
            self._confirmed.set()


def _literal(pattern: str) -> str:
    """The text as a pattern that matches just it."""
    return "".join(f"\\{c}" if c in "*?[]\\" else c for c in pattern)
