"""The blocking connection, for producers: a plain socket, one channel, one deadline for everything.

Loads no asyncio; works in greenlets (plain sockets with timeouts, which gevent replaces). No heartbeats, unless its
user sends them (``beats``): nobody would while it is idle; the kernel looks after dead peers, and a stale connection
is noticed before anything is sent. One thread may read while another writes (``convoy.py``).
"""

from __future__ import annotations

import math
import os
import select
import socket
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, TypeVar

from msgspec.structs import replace

from celeriac.brokers.dialing import dial
from celeriac.brokers.rabbitmq import methods as m
from celeriac.brokers.rabbitmq.address import Address
from celeriac.brokers.rabbitmq.confirms import Confirms, Parcel
from celeriac.brokers.rabbitmq.errors import Closed, alarmed, lost, refused
from celeriac.brokers.rabbitmq.frames import Event, Parser
from celeriac.brokers.rabbitmq.handshake import Handshake
from celeriac.brokers.rabbitmq.sockets import tune
from celeriac.brokers.turns import Turns
from celeriac.conf.tls import server_name, tls_context
from celeriac.exceptions import OperationalError

__all__ = ["Ask", "Connection", "Line", "Sent"]

T = TypeVar("T")
monotonic = time.monotonic
_CHUNK = 1 << 18
#: The one channel.
_CHANNEL = 1
#: A method to ask, with its arguments: what generators of ``layout.py`` yield.
Ask = tuple[Any, ...]


class Sent(list[Event]):
    """What came back of a batch: the messages that no queue took. ``refused`` are those the server would not keep."""

    refused = 0


class Connection:
    """One socket, which never blocks: it is polled. For one thread at a time, but that one may read while another
    sends. Raises ``OSError``, ``ValueError`` and ``Closed``."""

    def __init__(self, address: Address, deadline: float, *, beats: bool = False) -> None:
        self.address = address if beats else replace(address, heartbeat=0)
        #: Seconds after which the server wants a sign of life, 0: it does not.
        self.heartbeat = 0
        self.frame_max = address.frame_max
        self.blocked = ""
        #: Queues that were declared here.
        self.declared: set[str] = set()
        #: Content that was delivered here (basic.deliver), for whoever consumes.
        self.delivered: list[Event] = []
        #: The server has ended a consumer: its queue is gone.
        self.cancelled = False
        #: When something came in last.
        self.heard = monotonic()
        self._parser = Parser()
        self._confirms = Confirms()
        #: Parcels that are answered, and messages that no queue took, since somebody asked.
        self._answered: list[Parcel] = []
        self._returned: list[Event] = []
        self._open = False
        #: The server has closed the channel, and waits for our word.
        self._closing = False
        #: A question is not answered, or not even asked in full: whoever is interrupted leaves it so.
        self.midway = False
        self._socket = _connected(address, deadline)
        self._busy: tuple[type[Exception], ...] = (BlockingIOError,)
        #: OpenSSL reads and writes one after the other.
        self._turn: AbstractContextManager[object] = nullcontext()
        if address.tls is not None:
            from ssl import SSLWantReadError, SSLWantWriteError

            self._busy = (BlockingIOError, SSLWantReadError, SSLWantWriteError)
            self._turn = threading.Lock()
        self._readable = _poll(self._socket, select.POLLIN)
        try:
            self._greet(deadline)
        except BaseException:
            self.close()
            raise

    def _greet(self, deadline: float) -> None:
        handshake = Handshake(self.address)
        self.send(handshake.begin(), deadline)
        while not handshake.done:
            for event in self._read(deadline):
                answer = handshake.hear(event)
                if answer:
                    self.send(answer, deadline)
        self.frame_max = handshake.frame_max
        self.heartbeat = handshake.heartbeat

    # -- bytes

    def send(self, data: bytes, deadline: float) -> None:
        """All of it. Raises ``TimeoutError``."""
        rest = memoryview(data)
        while rest:
            try:
                with self._turn:
                    sent = self._socket.send(rest)
            except self._busy:
                _wait(_poll(self._socket, select.POLLOUT), deadline)
            else:
                rest = rest[sent:]

    def _read(self, deadline: float) -> list[Event]:
        _wait(self._readable, deadline)
        try:
            with self._turn:
                data = self._socket.recv(_CHUNK)
        except self._busy:
            return []  # a part of what was encrypted together
        if not data:
            raise ConnectionResetError("the server has closed the connection")
        self.heard = monotonic()
        return self._parser.feed(data)

    def close(self) -> None:
        """Without a word: the server gives back what was held here."""
        self._socket.close()

    def hang_up(self) -> None:
        """From another thread: whoever reads here finds the connection lost."""
        try:
            with self._turn:
                self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # it is

    def __del__(self) -> None:
        if hasattr(self, "_socket"):
            self._socket.close()

    # -- events

    def _hear(self, event: Event) -> Event | None:
        """An answer to a call; None for anything else, which is dealt with."""
        number = event.number
        if event.channel == 0:
            if number == m.CONNECTION_BLOCKED:
                (self.blocked,) = m.arguments(number, event.payload)
                self.blocked = self.blocked or "alarm"
            elif number == m.CONNECTION_UNBLOCKED:
                self.blocked = ""
            elif number == m.CONNECTION_CLOSE:
                code, text, first, second = m.arguments(number, event.payload)
                raise ConnectionResetError(f"{code} {text}")
            return None
        if number == m.CHANNEL_CLOSE:
            code, text, first, second = m.arguments(number, event.payload)
            self._open, self._closing, self.midway = False, True, False
            self._parser.forget(_CHANNEL)
            raise Closed(code, text, first << 16 | second)
        if number == m.BASIC_DELIVER:
            self.delivered.append(event)
        elif number == m.BASIC_CANCEL:
            self.cancelled = True
        elif number in {m.BASIC_ACK, m.BASIC_NACK}:
            self._answered += self._confirms.hear(event)
        elif number == m.BASIC_RETURN:
            self._returned.append(event)
        else:
            return event
        return None

    def look(self) -> None:
        """Take in what came while it was idle. Raises when it is no longer any good."""
        while self._readable(0):
            self.hear(monotonic() + 1.0)

    def hear(self, deadline: float) -> None:
        """Wait for something to come in, and take it in. Raises ``TimeoutError``."""
        for event in self._read(deadline):
            self._hear(event)

    def ready(self, deadline: float) -> None:
        """Open the channel, with confirms."""
        if self._open:
            return
        self.midway = True
        self._confirms = Confirms()
        farewell = m.method(_CHANNEL, m.CHANNEL_CLOSE_OK) if self._closing else b""
        self._closing = False
        data = m.method(_CHANNEL, m.CHANNEL_OPEN, "") + m.method(_CHANNEL, m.CONFIRM_SELECT, False)
        self.send(farewell + data, deadline)
        self._answers(2, deadline)
        self._open, self.midway = True, False

    def _answers(self, count: int, deadline: float) -> list[Event]:
        answers: list[Event] = []
        while len(answers) < count:
            answers += [event for event in map(self._hear, self._read(deadline)) if event is not None]
        return answers

    # -- use

    def ask(self, ask: Ask, deadline: float) -> list[Any]:
        """One method and the arguments of its answer. Raises ``Closed`` when the server closes the channel over it."""
        event = self.event(ask, deadline)
        return m.arguments(event.number, event.payload)

    def event(self, ask: Ask, deadline: float) -> Event:
        """As ``ask``; the answer with its content."""
        self.ready(deadline)
        self.midway = True
        self.send(m.method(_CHANNEL, *ask), deadline)
        answers = self._answers(1, deadline)
        self.midway = False
        return answers[0]

    def run(self, asking: Generator[Ask, Any, T], deadline: float) -> T:
        """Ask what a generator wants asked; ``Closed`` is thrown into it."""
        try:
            ask = next(asking)
            while True:
                try:
                    answer = self.ask(ask, deadline)
                except Closed as error:
                    ask = asking.throw(error)
                else:
                    ask = asking.send(answer)
        except StopIteration as end:
            result: T = end.value
            return result

    def leave(self, deadline: float) -> None:
        """Close the channel: what is not acknowledged goes back, in its order."""
        if self._open:
            self._open, self.midway = False, True
            self.send(m.method(_CHANNEL, m.CHANNEL_CLOSE, 200, "", 0, 0), deadline)
            self._answers(1, deadline)
            self._parser.forget(_CHANNEL)
            self.midway = False

    def expect(self, count: int, sender: object = None) -> Parcel:
        """So many messages are sent now, behind those that were announced before."""
        return self._confirms.expect(count, sender)

    def news(self) -> tuple[list[Parcel], list[Event]]:
        """The parcels that were answered as a whole, and the messages that no queue took, since the last time."""
        news = self._answered, self._returned
        self._answered, self._returned = [], []
        return news

    def publish(self, frames: Sequence[bytes], deadline: float) -> Sent:
        """Send messages and wait until the server has answered for all; returns those that no queue took."""
        self.ready(deadline)
        while self.blocked:
            self.hear(deadline)
        self.news()
        self.midway = True
        parcel = self.expect(len(frames))
        self.send(b"".join(frames), deadline)
        while parcel.left:
            self.hear(deadline)
        self.midway = False
        sent = Sent(self.news()[1])
        sent.refused = parcel.refused
        return sent


class Line:
    """One connection of this process, for one thread at a time, made when it is needed and anew after a fork."""

    def __init__(self, addresses: tuple[Address, ...], *, beats: bool = False) -> None:
        self.addresses = addresses
        self._beats = beats
        self._renew()

    def _renew(self) -> None:
        self._pid = os.getpid()
        self._turns = Turns(1)
        self._connection: Connection | None = None
        self._inherited: Connection | None = None

    def of_this_process(self) -> None:
        """After a fork there is no connection; ``use`` and ``close`` see to that themselves."""
        if self._pid != os.getpid():
            inherited = self._connection  # its socket is the parent's: neither used nor closed
            self._renew()
            self._inherited = inherited

    @property
    def address(self) -> Address:
        """That of the connection, or the first."""
        return self._connection.address if self._connection is not None else self.addresses[0]

    def connection(self, deadline: float) -> Connection:
        """The connection, good as far as one can see, for its only user. Raises ``OperationalError``."""
        connection = self._connection
        if connection is not None:
            try:
                connection.look()
            except Closed:
                pass  # only the channel: it is opened again
            except (OSError, ValueError):
                self.drop()
            if connection.midway:
                self.drop()  # its user was interrupted, and again when he dropped it
        if self._connection is None:
            self._connection = self._connect(deadline)
        return self._connection

    def _connect(self, deadline: float) -> Connection:
        first: OperationalError | None = None
        for number, address in enumerate(self.addresses):
            # Those behind a silent one must have their turn within the same time.
            left = (deadline - monotonic()) / (len(self.addresses) - number)
            try:
                return Connection(address, monotonic() + min(address.connect_timeout, left), beats=self._beats)
            except Closed as error:
                first = first or refused(address, error)
            except (OSError, ValueError) as error:
                first = first or lost(address, error)
        assert first is not None
        raise first

    def drop(self) -> None:
        """The connection is no longer any good."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    @contextmanager
    def use(self, deadline: float) -> Iterator[Connection]:
        """The connection for a block. Turns its errors into ``OperationalError``; what failed is not used again."""
        self.of_this_process()
        turns, me = self._turns, object()
        try:
            if not turns.take(me, max(deadline, monotonic() + 0.001)):
                raise lost(self.address, "another thread is using the connection, and it took too long")
            yield from self._used(deadline)
        finally:
            try:
                turns.end(me)
            except BaseException:
                turns.end(me)  # somebody's signal came in between
                raise

    def _used(self, deadline: float) -> Iterator[Connection]:
        connection = self.connection(deadline)
        try:
            yield connection
        except Closed as error:
            raise refused(connection.address, error) from None
        except (OSError, ValueError) as error:
            self.drop()
            raise failed(connection, error) from None
        except BaseException:
            self.drop()  # somebody's signal: an answer may be under way
            raise

    def close(self) -> None:
        """Give the connection back, when nobody uses it. Idempotent; the next use makes another."""
        self.of_this_process()
        turns, me = self._turns, object()
        try:
            turns.take(me, math.inf)
            self.drop()
        finally:
            turns.end(me)


def failed(connection: Connection, error: BaseException) -> OperationalError:
    """What to raise when a request had left, in full or in part."""
    if connection.blocked:
        return alarmed(connection.address, connection.blocked, uncertain=True)
    return lost(connection.address, error, uncertain=True)


def _poll(sock: socket.socket, what: int) -> Callable[[float], object]:
    poll = select.poll()
    poll.register(sock, what)
    return poll.poll


def _wait(poll: Callable[[float], object], deadline: float) -> None:
    left = deadline - monotonic()
    if left <= 0 or not poll(left * 1000):
        raise TimeoutError("it took too long")


def _connected(address: Address, deadline: float) -> socket.socket:
    sock = dial(address.host, address.port, min(deadline, monotonic() + address.connect_timeout))
    try:
        tune(sock)
        if address.tls is not None:
            context = tls_context(address.tls, "RabbitMQ")
            sock = context.wrap_socket(sock, server_hostname=server_name(address.tls, address.host))
        sock.setblocking(False)
    except BaseException:
        sock.close()
        raise
    return sock
