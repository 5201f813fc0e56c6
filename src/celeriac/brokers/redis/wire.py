"""One asynchronous connection to Redis: an ``asyncio.Protocol`` on hiredis that batches by itself.

The first command leaves at once; what is sent in the same turn of the event loop leaves in one write. Replies come back
in order, RESP3 pushes go to a callback. A silent server is found: idle connections are pinged, and whoever owes a reply
for ``reply_timeout`` seconds without sending a byte is given up. Knows nothing of queues; ``link.py`` owns the wires.
See docs/adr/0001-redis-connection.md for the measurements behind it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, cast

import hiredis

from celeriac.brokers.dialing import dialed
from celeriac.brokers.redis.address import Address
from celeriac.brokers.redis.sockets import Word, pack, tune, version_of
from celeriac.conf.tls import server_name, tls_context

__all__ = ["LostWire", "Wire", "connect"]

_ALREADY = object()
#: A timer that is so late, in seconds, says more about our loop than about the server.
_STALL = 0.3


class LostWire(ConnectionError):
    """The connection broke; whether the commands under way were executed is not known."""


class Wire(asyncio.Protocol):
    """A connection after its handshake; made by ``connect``."""

    def __init__(self, address: Address, on_push: Callable[[list[Any]], None], on_lost: Callable[[], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._address = address
        self._on_push = on_push
        self._on_lost = on_lost
        self._reader = hiredis.Reader(notEnoughData=_ALREADY)
        self._pending: deque[asyncio.Future[Any] | None] = deque()
        self._orphans: dict[asyncio.Future[Any], Callable[[Any], None]] = {}
        self._unsent: list[bytes] = []
        self._flushing = False
        self._transport: asyncio.Transport | None = None
        self._watch: asyncio.TimerHandle | None = None
        self._look_at = self._heard = self._loop.time()
        self.lost: BaseException | None = None
        self.resp3 = True
        #: Version of the server; decides how scripts are spelled.
        self.version = (6, 2)
        #: Whether ``CLIENT TRACKING`` is on.
        self.tracking = False

    # -- sending

    def send(
        self, *words: Word, before: bytes = b"", orphan: Callable[[Any], None] | None = None
    ) -> asyncio.Future[Any]:
        """Send a command; the future gets its reply, an error reply as exception, or ``LostWire``.

        ``before`` is another command, packed, whose reply nobody wants, sent with it. When the future was cancelled its
        reply, or the error, goes to ``orphan``.
        """
        future: asyncio.Future[Any] = self._loop.create_future()
        if self.lost is not None:
            future.set_exception(LostWire(str(self.lost)))
            return future
        if orphan is not None:
            self._orphans[future] = orphan
            future.add_done_callback(self._answered)
        if before:
            self._write(before + pack(words), None, future)
        else:
            self._write(pack(words), future)
        return future

    def post(self, *words: Word) -> None:
        """Queue a command whose reply nobody wants."""
        if self.lost is None:
            self._write(pack(words), None)

    def subscribe(self, channels: tuple[str, ...], patterns: tuple[str, ...]) -> None:
        """Subscribe; confirmations and messages come as pushes."""
        if self.lost is None:
            self._unsent.append(pack(("SUBSCRIBE", *channels)))
            if patterns:
                self._unsent.append(pack(("PSUBSCRIBE", *patterns)))
            self._flush()

    def _write(self, packed: bytes, *futures: asyncio.Future[Any] | None) -> None:
        idle = not self._pending
        self._pending.extend(futures)
        if idle and self._transport is not None:
            # The first leaves at once, for the sake of latency; what comes while it is under way is batched.
            self._heard = self._loop.time()  # from now on the server owes us something
            self._transport.write(packed)
            return
        self._unsent.append(packed)
        if not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._flush)

    def _answered(self, future: asyncio.Future[Any]) -> None:
        if not future.cancelled():
            self._orphans.pop(future, None)

    def _flush(self) -> None:
        self._flushing = False
        if self._transport is not None and self.lost is None:
            unsent = self._unsent
            self._transport.write(unsent[0] if len(unsent) == 1 else b"".join(unsent))
        self._unsent.clear()

    # -- receiving

    def data_received(self, data: bytes) -> None:
        self._heard = self._loop.time()
        reader, pending = self._reader, self._pending
        try:
            reader.feed(data)
            reply = reader.gets()
            while reply is not _ALREADY:
                if self._is_push(reply):
                    self._on_push(reply)
                elif pending:
                    future = pending.popleft()
                    if future is not None:
                        self._answer(future, reply)
                reply = reader.gets()
        except hiredis.ProtocolError as error:
            self.abort(error)

    def _answer(self, future: asyncio.Future[Any], reply: Any) -> None:
        if future.done():
            orphan = self._orphans.pop(future, None)
            if orphan is not None:
                orphan(reply)
        elif isinstance(reply, Exception):  # also hiredis.ReplyError
            future.set_exception(reply)
        else:
            future.set_result(reply)

    def _is_push(self, reply: Any) -> bool:
        if type(reply) is hiredis.PushNotification:
            return True
        # Without RESP3 only connections that subscribe get pushes, and those look like replies.
        if self.resp3 or type(reply) is not list or not reply:
            return False
        return type(reply[0]) is bytes and reply[0] in _SUBSCRIBER_WORDS

    # -- life

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is no subclass
        if not self._address.path:
            tune(transport.get_extra_info("socket"), self._address)
        self._look_again(self._address.ping_interval)

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(exc or LostWire("the server closed the connection"))

    def abort(self, error: BaseException) -> None:
        """Drop the connection at once; commands under way end with ``LostWire``."""
        self._end(error)
        if self._transport is not None:
            self._transport.abort()

    def close(self) -> None:
        """Close after what was sent; commands under way end with ``LostWire``."""
        self._flush()
        self._end(LostWire("closed"))
        transport = self._transport
        if transport is None:
            return
        if self._address.tls is not None and not transport.get_write_buffer_size():
            # TLS would say goodbye and wait for the answer, longer than the loop may last.
            transport.abort()
        else:
            transport.close()

    def _end(self, error: BaseException) -> None:
        if self.lost is not None:
            return
        self.lost = error
        if self._watch is not None:
            self._watch.cancel()
        pending, self._pending = self._pending, deque()
        for future in pending:
            if future is not None:
                self._answer(future, LostWire(str(error) or type(error).__name__))
        self._on_lost()

    def _look(self) -> None:
        """Timer: give up a server that owes a reply for too long, ping one that was silent."""
        address, now = self._address, self._loop.time()
        silent = now - self._heard
        if now - self._look_at > _STALL:
            # Our own loop stood still, and some loops run timers before they read: what came meanwhile counts.
            self._look_again(_STALL / 2)
        elif self._pending and silent >= address.reply_timeout:
            self.abort(TimeoutError(f"no reply for {silent:.1f} s"))
        else:
            if not self._pending and silent >= address.ping_interval * 0.9:
                self.post("PING")
                silent = 0.0
            self._look_again((address.reply_timeout if self._pending else address.ping_interval) - silent)

    def _look_again(self, seconds: float) -> None:
        self._look_at = self._loop.time() + max(seconds, 0.05)
        self._watch = self._loop.call_at(self._look_at, self._look)


_SUBSCRIBER_WORDS = {b"message", b"pmessage", b"subscribe", b"psubscribe", b"unsubscribe", b"punsubscribe"}


async def connect(
    address: Address,
    *,
    on_push: Callable[[list[Any]], None],
    on_lost: Callable[[], None],
    tracking: bool = False,
) -> Wire:
    """Connect and say hello. Raises ``OSError`` when there is nobody, ``ReplyError`` when refused."""
    loop = asyncio.get_running_loop()
    tls = address.tls
    context = tls_context(tls, "Redis") if tls is not None else None
    name = server_name(tls, address.host) if tls is not None else None
    wire: Wire | None = None
    try:
        async with asyncio.timeout(address.connect_timeout):
            if address.path:
                _, wire = await loop.create_unix_connection(lambda: Wire(address, on_push, on_lost), address.path)
            else:
                sock = await dialed(address.host, address.port, address.connect_timeout)
                _, wire = await loop.create_connection(
                    lambda: Wire(address, on_push, on_lost), sock=sock, ssl=context, server_hostname=name
                )
            await _greet(wire, address, tracking)
    except TimeoutError:
        if wire is not None:
            wire.abort(TimeoutError("timed out"))
        raise TimeoutError(f"no answer within {address.connect_timeout:g} s") from None
    except BaseException as error:
        if wire is not None:
            wire.abort(error)
        raise
    return wire


async def _greet(wire: Wire, address: Address, tracking: bool) -> None:
    account: tuple[Word, ...] = ()
    if address.username or address.password:
        account = ("AUTH", address.username or "default", address.password)
    hello = wire.send("HELLO", 3, *account)
    selected = wire.send("SELECT", address.db)
    tracked = wire.send("CLIENT", "TRACKING", "ON", "OPTIN") if tracking else selected
    for future in (selected, tracked):
        future.add_done_callback(_seen)  # the first refusal is what counts
    try:
        facts = await hello
    except hiredis.ReplyError as error:
        if not str(error).startswith(("ERR unknown", "NOPROTO", "NOPERM")):
            raise
        # A proxy or an old server: RESP2, so no pushes.
        wire.resp3 = False
        if account:
            await wire.send(*(account if address.username else ("AUTH", address.password)))
        await wire.send("SELECT", address.db)
        return
    wire.version = version_of(facts)
    if address.db:  # who may not SELECT can still use database 0
        await selected
    if tracking:
        try:
            await tracked
            wire.tracking = True
        except hiredis.ReplyError:
            pass  # not allowed, or not known: claims poll
    if address.client_name:
        wire.post("CLIENT", "SETNAME", address.client_name)


def _seen(future: asyncio.Future[Any]) -> None:
    if not future.cancelled():
        future.exception()
