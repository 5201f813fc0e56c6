"""The asynchronous connection: ``asyncio.Protocol`` over the frames. Knows channels, not queues.

Writes of one turn of the event loop leave together. Replies of a channel come in the order of its calls. A connection
that has said nothing for a while is asked for a sign of life; one that owes it for too long is given up.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

from celeriac.brokers.dialing import dialed
from celeriac.brokers.rabbitmq import methods as m
from celeriac.brokers.rabbitmq.address import PING_INTERVAL, REPLY_TIMEOUT, Address
from celeriac.brokers.rabbitmq.errors import Closed, lost, refused
from celeriac.brokers.rabbitmq.frames import HEARTBEAT, Event, Parser
from celeriac.brokers.rabbitmq.handshake import Handshake
from celeriac.brokers.rabbitmq.sockets import hang_up, tune
from celeriac.conf.tls import server_name, tls_context
from celeriac.exceptions import OperationalError

__all__ = ["Channel", "Wire", "connect"]

#: Seconds for the server's answer to a goodbye.
GOODBYE = 1.0

#: Answers: they resolve the oldest call of their channel.
_REPLIES = frozenset(
    {
        m.CHANNEL_OPEN_OK, m.CHANNEL_FLOW_OK, m.EXCHANGE_DECLARE_OK, m.EXCHANGE_BIND_OK, m.QUEUE_DECLARE_OK,
        m.QUEUE_BIND_OK, m.QUEUE_PURGE_OK, m.QUEUE_DELETE_OK, m.BASIC_QOS_OK, m.BASIC_CONSUME_OK, m.BASIC_CANCEL_OK,
        m.BASIC_GET_OK, m.BASIC_GET_EMPTY, m.CONFIRM_SELECT_OK, m.CHANNEL_CLOSE_OK,
    }
)  # fmt: skip

_GOT = frozenset({m.BASIC_GET_OK, m.BASIC_GET_EMPTY})


class Channel:
    """One channel. ``on_event`` gets what is no answer to a call; ``on_closed`` hears once when it is over."""

    def __init__(
        self,
        wire: Wire,
        number: int,
        on_event: Callable[[Event], None] | None = None,
        on_closed: Callable[[OperationalError], None] | None = None,
    ) -> None:
        self.wire = wire
        self.number = number
        self.closed: OperationalError | None = None
        #: The server's words, when it closed this channel.
        self.verdict: Closed | None = None
        self._on_event = on_event
        self._on_closed = on_closed
        self._calls: deque[asyncio.Future[Event]] = deque()

    def call(self, number: int, *values: Any) -> asyncio.Future[Event]:
        """Send a method that is answered. Its failure is ``Closed`` or ``OperationalError``."""
        future: asyncio.Future[Event] = self.wire.loop.create_future()
        if self.closed is not None:
            future.set_exception(self.verdict or self.closed)
            return future
        self._calls.append(future)
        self.wire.send(m.method(self.number, number, *values))
        return future

    async def ask(self, number: int, *values: Any) -> list[Any]:
        """Call, and the arguments of the answer. Raises ``Closed`` or ``OperationalError``."""
        event = await self.wire.within(self.call(number, *values))
        return m.arguments(event.number, event.payload)

    def send(self, data: bytes) -> None:
        """Frames that are not answered. Raises ``OperationalError`` on a closed channel."""
        if self.closed is not None:
            raise self.closed
        self.wire.send(data)

    async def close(self) -> None:
        """Give it back. Idempotent."""
        if self.closed is None:
            try:
                await self.ask(m.CHANNEL_CLOSE, 200, "", 0, 0)
            except (Closed, OperationalError):
                pass
            self.end(OperationalError("this channel is closed"))

    def hear(self, event: Event) -> None:
        """Something came in for it."""
        number = event.number
        if number in _REPLIES:
            if number in _GOT and self._on_event is not None:
                # Whoever asked may be gone: a delivery must not get lost with the question.
                self._on_event(event)
            if self._calls:
                future = self._calls.popleft()
                if not future.done():
                    future.set_result(event)
        elif number == m.CHANNEL_CLOSE:
            code, text, first, second = m.arguments(number, event.payload)
            self.wire.send(m.method(self.number, m.CHANNEL_CLOSE_OK))
            self.verdict = Closed(code, text, first << 16 | second)
            self.end(refused(self.wire.address, self.verdict))
        elif self._on_event is not None:
            self._on_event(event)

    def end(self, error: OperationalError) -> None:
        """It is over: everybody hears it."""
        if self.closed is not None:
            return
        self.closed = error
        self.wire.forget(self)
        while self._calls:
            future = self._calls.popleft()
            if not future.done():
                future.set_exception(self.verdict or error)
                future.exception()  # a caller that was cancelled does not ask
        if self._on_closed is not None:
            self._on_closed(error)


class Wire(asyncio.Protocol):
    """One connection. ``blocked`` holds the server's reason while it takes no messages."""

    def __init__(self, address: Address, loop: asyncio.AbstractEventLoop) -> None:
        self.address = address
        self.loop = loop
        self.closed: OperationalError | None = None
        self.blocked = ""
        self.frame_max = address.frame_max
        #: When something came in last, by the loop's clock.
        self.heard = loop.time()
        #: Whether a write has to wait.
        self.writable = asyncio.Event()
        self.writable.set()
        #: Called when ``blocked`` begins or ends.
        self.on_blocked: set[Callable[[], None]] = set()
        self._ready: asyncio.Future[None] = loop.create_future()
        self._handshake = Handshake(address)
        self._parser = Parser()
        self._channels: dict[int, Channel] = {}
        self._transport: asyncio.Transport | None = None
        self._out: list[bytes] = []
        self._flushing = False
        self._wrote = self.heard
        self._timer: asyncio.TimerHandle | None = None
        #: Since when the server owes a sign of life; 0: it does not.
        self._owed = 0.0
        #: The server has answered our goodbye, or is gone.
        self._farewell = asyncio.Event()
        #: The socket is closed.
        self._gone = asyncio.Event()

    # -- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]
        sock = transport.get_extra_info("socket")
        if sock is not None:
            tune(sock)
        self._transport.set_write_buffer_limits(high=1 << 20)  # type: ignore[union-attr]
        self._transport.write(self._handshake.begin())  # type: ignore[union-attr]

    def data_received(self, data: bytes) -> None:
        self.heard = self.loop.time()
        self._owed = 0.0
        try:
            for event in self._parser.feed(data):
                self._hear(event)
        except ValueError as error:
            self.abort(str(error))

    def connection_lost(self, exc: Exception | None) -> None:
        self._gone.set()
        self.abort(str(exc) if exc is not None else "the server has closed the connection")

    def pause_writing(self) -> None:
        self.writable.clear()

    def resume_writing(self) -> None:
        self.writable.set()

    # -- inside

    def _hear(self, event: Event) -> None:
        channel = self._channels.get(event.channel)
        if channel is not None:
            channel.hear(event)
        elif event.channel == 0 and event.number:
            if self._ready.done():
                self._about_connection(event)
                return
            try:
                answer = self._handshake.hear(event)
            except Closed as error:
                self._end(refused(self.address, error))
                return
            if answer:
                self.send(answer)
            if self._handshake.done:
                self.frame_max = self._handshake.frame_max
                self._timer = self.loop.call_later(1.0, self._tick)
                self._ready.set_result(None)

    def _about_connection(self, event: Event) -> None:
        number = event.number
        if number == m.CONNECTION_BLOCKED:
            (self.blocked,) = m.arguments(number, event.payload)
            self.blocked = self.blocked or "alarm"
            for callback in tuple(self.on_blocked):
                callback()
        elif number == m.CONNECTION_UNBLOCKED:
            self.blocked = ""
            for callback in tuple(self.on_blocked):
                callback()
        elif number == m.CONNECTION_CLOSE_OK:
            self._farewell.set()
        elif number == m.CONNECTION_CLOSE:
            code, text, first, second = m.arguments(number, event.payload)
            self.send(m.method(0, m.CONNECTION_CLOSE_OK))
            self._flush()
            self._end(refused(self.address, Closed(code, text, first << 16 | second)))

    def _tick(self) -> None:
        """Heartbeats, and a look whether the server is still there."""
        if self.closed is not None:
            return
        now = self.loop.time()
        beat = self._handshake.heartbeat
        if beat and now - self._wrote > beat / 2:
            self.send(HEARTBEAT)
        if self._owed and now - self._owed > REPLY_TIMEOUT:
            self.abort(f"no answer within {REPLY_TIMEOUT:g} s")
            return
        if now - self.heard > PING_INTERVAL and not self._owed and not self.blocked and self._channels:
            # Any channel will do: flow is answered by all and changes nothing.
            channel = next(iter(self._channels.values()))
            self._owed = now
            channel.call(m.CHANNEL_FLOW, True).add_done_callback(_ignore)
        self._timer = self.loop.call_later(1.0, self._tick)

    def _flush(self) -> None:
        self._flushing = False
        if self._out and self._transport is not None and not self._transport.is_closing():
            self._transport.write(b"".join(self._out))
            self._wrote = self.loop.time()
        self._out.clear()

    def _end(self, error: OperationalError) -> None:
        if self.closed is not None:
            return
        self.closed = error
        if self._timer is not None:
            self._timer.cancel()
        if not self._ready.done():
            self._ready.set_exception(error)
            self._ready.exception()
        self.writable.set()
        self._farewell.set()
        for channel in tuple(self._channels.values()):
            channel.end(error)
        if self._transport is not None:
            sock = self._transport.get_extra_info("socket")
            if sock is not None:
                hang_up(sock)
            self._transport.abort()

    # -- use

    def fileno(self) -> int:
        """The descriptor of the open connection; below 0: it is over."""
        sock = self._transport.get_extra_info("socket") if self._transport is not None else None
        return -1 if sock is None or self.closed is not None else int(sock.fileno())

    @property
    def ready(self) -> asyncio.Future[None]:
        """Done when the connection is open, or cannot be."""
        return self._ready

    def send(self, data: bytes) -> None:
        """Write soon, together with what else is written now. Raises ``OperationalError`` once it is closed."""
        if self.closed is not None:
            raise self.closed
        self._out.append(data)
        if not self._flushing:
            self._flushing = True
            self.loop.call_soon(self._flush)

    async def within(self, answer: asyncio.Future[Event], seconds: float = REPLY_TIMEOUT) -> Event:
        """The answer, or ``OperationalError`` and the end of the connection when none comes in time."""
        try:
            async with asyncio.timeout(seconds):
                return await asyncio.shield(answer)  # the answers of a channel come in the order of the questions
        except TimeoutError:
            if not self.blocked:
                self.abort(f"no answer within {seconds:g} s")
            raise lost(self.address, f"no answer within {seconds:g} s", uncertain=True) from None

    async def channel(
        self,
        on_event: Callable[[Event], None] | None = None,
        on_closed: Callable[[OperationalError], None] | None = None,
    ) -> Channel:
        """A new channel, open. Raises ``OperationalError``."""
        if self.closed is not None:
            raise self.closed
        number = next(n for n in range(1, 2048) if n not in self._channels)
        channel = Channel(self, number, on_event, on_closed)
        self._channels[number] = channel
        try:
            await channel.ask(m.CHANNEL_OPEN, "")
        except Closed as error:
            raise refused(self.address, error) from None
        return channel

    def forget(self, channel: Channel) -> None:
        """A channel that is over makes room for another of its number."""
        self._parser.forget(channel.number)
        self._channels.pop(channel.number, None)

    def abort(self, cause: str) -> None:
        """Give the connection up."""
        self._end(lost(self.address, cause, uncertain=True))

    async def close(self) -> None:
        """Say goodbye, so that the server gives back at once what was held here. Idempotent."""
        if self.closed is None:
            self.send(m.method(0, m.CONNECTION_CLOSE, 200, "", 0, 0))
            # A socket that is closed while something unread is in it takes along what it has written last.
            await _for_a_moment(self._farewell)
            self._end(OperationalError(f"the connection to {self.address.masked} is closed: call open() first"))
        await _for_a_moment(self._gone)


async def _for_a_moment(event: asyncio.Event) -> None:
    try:
        async with asyncio.timeout(GOODBYE):
            await event.wait()
    except TimeoutError:
        pass


def _ignore(answer: asyncio.Future[Event]) -> None:
    if not answer.cancelled():
        answer.exception()


async def connect(addresses: tuple[Address, ...]) -> Wire:
    """The first of them that answers. Raises the first's ``OperationalError`` when none does."""
    first: OperationalError | None = None
    for address in addresses:
        try:
            return await _connect(address)
        except OperationalError as error:
            first = first or error
    assert first is not None
    raise first


async def _connect(address: Address) -> Wire:
    loop = asyncio.get_running_loop()
    tls = address.tls
    context = tls_context(tls, "RabbitMQ") if tls is not None else None
    name = server_name(tls, address.host) if tls is not None else None
    wire: Wire | None = None
    try:
        async with asyncio.timeout(address.connect_timeout):
            sock = await dialed(address.host, address.port, address.connect_timeout)
            _, wire = await loop.create_connection(
                lambda: Wire(address, loop), sock=sock, ssl=context, server_hostname=name
            )
            await asyncio.shield(wire.ready)
    except TimeoutError:
        if wire is not None:
            wire.abort("it took too long")
        raise lost(address, f"not within {address.connect_timeout:g} s") from None
    except OSError as error:
        raise lost(address, error) from None
    except BaseException:
        if wire is not None:
            wire.abort("given up")
        raise
    return wire
