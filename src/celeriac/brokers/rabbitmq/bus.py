"""Events and remote control on Celery's exchanges, for the agent of a worker.

``celeryev`` is a topic exchange, ``celery.pidbox`` a fanout, ``reply.celery.pidbox`` direct; queues are exclusive and
go with their connection. What is sent is not confirmed: lossy by contract, and an alarm of the server drops it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Generator, Mapping
from typing import Any

from celeriac.brokers.rabbitmq import methods as m
from celeriac.brokers.rabbitmq.address import Address
from celeriac.brokers.rabbitmq.errors import Closed, refused
from celeriac.brokers.rabbitmq.fields import Properties, decode_header, encode_header, short
from celeriac.brokers.rabbitmq.frames import Event, publish
from celeriac.brokers.rabbitmq.layout import bind, declare_exchange, declare_queue
from celeriac.brokers.rabbitmq.outbox import Outbox, run
from celeriac.brokers.rabbitmq.wire import Channel, Wire, connect
from celeriac.brokers.subscription import Subscription
from celeriac.codec import json
from celeriac.codec.envelope import new_id
from celeriac.exceptions import CeleryError, OperationalError

__all__ = ["RabbitBus", "exchange_of", "opened", "written"]

_EVENTS = "celeryev"
#: Milliseconds: life of an unused queue and of a message, of events and of the rest.
_EVENT_LIFE, _CONTROL_LIFE = (60_000, 5_000), (10_000, 300_000)


def exchange_of(name: str) -> Generator[tuple[Any, ...], Any, None]:
    """An exchange of the bus as Celery declares it."""
    if name == _EVENTS:
        yield from declare_exchange(name, "topic", True, False)
    else:
        yield from declare_exchange(name, "direct" if name.startswith("reply.") else "fanout", False, False)


def written(payload: Any, headers: Mapping[str, Any], *, mode: int = 1) -> tuple[bytes, bytes]:
    """Content header and body of an event, a request or a reply. Raises ``EncodeError``."""
    body = json.dumps(payload)
    properties = Properties(
        content_type="application/json",
        content_encoding="utf-8",
        headers=json.plain(dict(headers)),
        delivery_mode=mode,
        priority=0,
    )
    return encode_header(properties, len(body)), body


def opened(event: Event) -> tuple[Any, Mapping[str, Any]] | None:
    """Payload and headers, or None when it is not to be read."""
    try:
        return json.loads(event.body), decode_header(event.header).headers
    except (CeleryError, ValueError, RecursionError):
        return None


class RabbitBus:
    """``Bus`` over the outbox's connection, with a further one for each listener."""

    def __init__(self, addresses: tuple[Address, ...], outbox: Outbox) -> None:
        self._addresses = addresses
        self._outbox = outbox
        self._listeners: set[_Listener] = set()
        self._channel: Channel | None = None

    async def emit(self, exchange: str, routing_key: str, payload: Any, headers: Mapping[str, Any]) -> None:
        """See ``Bus.emit``."""
        header, body = written(payload, headers)
        for listener in self._listeners:
            await listener.subscribed()  # what follows a call of listen() is heard
        await self._send(exchange, routing_key, header, body)

    async def reply(self, exchange: str, routing_key: str, payload: Any, headers: Mapping[str, Any]) -> None:
        """See ``Bus.reply``; a caller that is gone gets nothing, and nothing stays behind."""
        await self._send(exchange, routing_key, *written(payload, headers))

    async def _send(self, exchange: str, routing_key: str, header: bytes, body: bytes) -> None:
        wire = await self._outbox.wire()
        if wire.blocked:
            return
        await self._outbox.declare(f"exchange {exchange}", exchange_of(exchange))
        if self._channel is None or self._channel.closed is not None:
            self._channel = await wire.channel(None, self._forget)
        channel = self._channel
        frames = publish(
            channel.number, short(exchange), short(routing_key), header, body, wire.frame_max, mandatory=False
        )
        channel.send(frames)

    def _forget(self, error: OperationalError) -> None:
        """The channel is over: an exchange may have been deleted."""
        declared = self._outbox.declared
        declared.difference_update([name for name in declared if name.startswith("exchange ")])

    def listen(self, exchange: str) -> AsyncIterator[tuple[Any, Mapping[str, Any]]]:
        """See ``Bus.listen``."""
        listener = _Listener(self._addresses, exchange)
        self._listeners.add(listener)
        return self._stream(listener)

    async def _stream(self, listener: _Listener) -> AsyncIterator[tuple[Any, Mapping[str, Any]]]:
        try:
            async for event in listener.messages():
                message = opened(event)
                if message is not None:
                    yield message
        finally:
            self._listeners.discard(listener)
            listener.close()

    async def close(self) -> None:
        """End all listeners."""
        for listener in set(self._listeners):
            listener.close()
            await listener.closed()


class _Listener(Subscription[Event]):
    """To an exchange with all its routing keys."""

    def __init__(self, addresses: tuple[Address, ...], exchange: str) -> None:
        self._addresses = addresses
        self._wire: Wire | None = None
        super().__init__(exchange)

    async def _subscribe(self) -> None:
        if self._wire is not None:
            self._wire.abort("a new one is made")
            self._lost.clear()  # of that one
        wire = self._wire = await connect(self._addresses)
        queue = f"{_EVENTS}.{new_id()}" if self._topic == _EVENTS else f"celeriac.{new_id()}.{self._topic}"
        await run(wire, self._declaring(queue))
        channel = await wire.channel(self._told, lambda error: self._lost.set())
        try:
            await channel.ask(m.BASIC_CONSUME, 0, queue, "", False, True, False, False, {})
        except Closed as error:
            raise refused(wire.address, error) from None
        self._stands.set()

    def close(self) -> None:
        super().close()
        if self._wire is not None:
            self._wire.abort("the listener is closed")

    async def closed(self) -> None:
        """Wait until its socket is."""
        if self._wire is not None:
            await self._wire.close()

    def _declaring(self, queue: str) -> Generator[tuple[Any, ...], Any, None]:
        unused, life = _EVENT_LIFE if self._topic == _EVENTS else _CONTROL_LIFE
        yield from exchange_of(self._topic)
        yield from declare_queue(queue, False, True, True, {"x-expires": unused, "x-message-ttl": life})
        yield bind(queue, self._topic, "#" if self._topic == _EVENTS else "")

    def _told(self, event: Event) -> None:
        if event.number == m.BASIC_DELIVER:
            self._hear(event)
        elif event.number == m.BASIC_CANCEL:
            self._lost.set()
