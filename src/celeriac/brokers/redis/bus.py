"""Events and remote control on Celery's wire: fan-out over pub/sub, replies over short-lived lists.

Used by the agent of a worker through ``RedisBroker``. The messages are the envelopes of kombu with base64 bodies.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any

from celeriac.brokers.redis.address import Address
from celeriac.brokers.redis.broadcasts import REPLY_LIFE, broadcast_text, opened, reply_queues
from celeriac.brokers.redis.layout import Layout
from celeriac.brokers.redis.link import Link
from celeriac.brokers.subscription import Subscription

__all__ = ["RedisBus"]


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


class _Listener(Subscription[bytes]):
    """To a fan-out exchange with all its routing keys."""

    def __init__(self, address: Address, topic: str) -> None:
        super().__init__(topic)
        self._link = Link(address, on_push=self._push, on_lost=self._lost.set)

    async def _subscribe(self) -> None:
        wire = await self._link.wire()
        wire.subscribe((self._topic,), (_literal(self._topic) + "/*",))

    def close(self) -> None:
        super().close()
        self._link.close()

    def _push(self, push: list[Any]) -> None:
        if push[0] in (b"message", b"pmessage"):
            self._hear(push[-1])
        elif push[0] == b"psubscribe":
            self._stands.set()


def _literal(pattern: str) -> str:
    """The text as a pattern that matches just it."""
    return "".join(f"\\{c}" if c in "*?[]\\" else c for c in pattern)
