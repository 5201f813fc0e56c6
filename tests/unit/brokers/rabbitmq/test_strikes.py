"""Senders whom a signal interrupts, at every point: the others go on, and no confirm is another's."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from struct import pack, unpack_from

import pytest

from celeriac.brokers.rabbitmq import blocking, convoy
from celeriac.brokers.rabbitmq import methods as m
from celeriac.brokers.rabbitmq.blocking import Line, monotonic
from celeriac.brokers.rabbitmq.convoy import Convoy
from celeriac.brokers.rabbitmq.frames import Event, Parser
from celeriac.brokers.rabbitmq.layout import Layout
from celeriac.brokers.rabbitmq.outgoing import Outgoing
from celeriac.exceptions import OperationalError
from celeriac.ports import AdapterOptions
from tests.servers.base import wait_until
from tests.strikes import STRIKES, each_strike, struck
from tests.unit.brokers.rabbitmq.test_convoy import ADDRESS, LONG, Script, Sender


def letter(body: str, queue: str = "q") -> Outgoing:
    return Outgoing("", queue, queue, pack(">HHQH", 60, 0, len(body), 0), body.encode())


class Server(Script):
    """Counts what was written as a server does, and confirms it, but for what is ``held`` back."""

    def __init__(self) -> None:
        super().__init__()
        self.taken: list[bytes] = []
        self.held: set[bytes] = set()
        self.gone = False
        self.closed = False
        #: Called when it gets a message, before it confirms it.
        self.on_taken: Callable[[bytes], None] = lambda body: None

    def send(self, data: bytes, deadline: float) -> None:
        if self.gone:
            raise BrokenPipeError("gone")
        super().send(data, deadline)
        for body in _bodies(data):
            self.taken.append(body)
            self.on_taken(body)
            if body not in self.held:
                self.acks(len(self.taken))

    def let_go(self) -> None:
        for body in self.held:
            if body in self.taken and not self.gone:
                self.acks(self.taken.index(body) + 1)
        self.held = set()

    def look(self) -> None:
        if self.gone:
            raise ConnectionResetError("gone")

    def hang_up(self) -> None:
        self.gone = True
        super().hang_up()

    def close(self) -> None:
        self.gone = self.closed = True


def _bodies(data: bytes) -> Iterator[bytes]:
    """Of the messages in what was written; each has one frame for its body."""
    at = 0
    while at < len(data):
        kind, _, size = unpack_from(">BHI", data, at)
        if kind == 3:
            yield data[at + 7 : at + 7 + size]
        at += 8 + size


class Place:
    """A convoy whose connections are servers of this kind."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *held: bytes, on_taken: Callable[[bytes], None]) -> None:
        self.servers: list[Server] = []

        def connect(*_: object, **__: object) -> Server:
            server = Server()
            server.held, server.on_taken = set(held), on_taken
            self.servers.append(server)
            return server

        monkeypatch.setattr(blocking, "Connection", connect)
        self.convoy = Convoy((ADDRESS,), Layout(AdapterOptions()))

    @property
    def taken(self) -> list[bytes]:
        return [body for server in self.servers for body in server.taken]

    def finds_nothing_wrong(self, where: str, *others: Sender) -> None:
        """All others come to an end, who is told that it was sent is told the truth, and the next one can send."""
        for server in self.servers:
            server.let_go()
        for other in others:
            assert not isinstance(other.ends(), AssertionError), where
        last = Sender(self.convoy, letter("last"))
        error = last.ends()
        assert error is None, f"{where}: {error}"
        assert b"last" in self.taken, where
        convoy = self.convoy
        assert convoy._flight is None, where
        assert convoy._alone is None, where
        assert not convoy._lock.locked(), where
        convoy.close()
        assert self.servers[-1].closed, where


@pytest.mark.parametrize("error", STRIKES)
def test_a_lone_sender(monkeypatch: pytest.MonkeyPatch, error: type[BaseException]) -> None:
    monkeypatch.setattr(convoy, "_PARCEL", 1)  # each leaves by itself

    def run(at: int) -> str:
        place = Place(monkeypatch, on_taken=lambda body: None)
        letters = [letter("one"), letter("two")]
        where, raised = struck(lambda: place.convoy.send(letters, monotonic() + LONG), error, at)
        assert (type(raised) is error) is bool(where), f"{where}: {raised!r}"
        if raised is None:
            assert place.taken == [b"one", b"two"]
        place.finds_nothing_wrong(where)
        return where

    assert len(each_strike(run)) > 100


@pytest.mark.parametrize("error", STRIKES[:1])
def test_one_who_joins_while_another_reads(monkeypatch: pytest.MonkeyPatch, error: type[BaseException]) -> None:
    def run(at: int) -> str:
        place = Place(monkeypatch, b"first", on_taken=lambda body: None)
        first = Sender(place.convoy, letter("first"))
        wait_until(lambda: b"first" in place.taken, LONG)
        where, raised = struck(lambda: place.convoy.send([letter("mine")], monotonic() + LONG), error, at)
        assert (type(raised) is error) is bool(where), f"{where}: {raised!r}"
        if raised is None:
            assert b"mine" in place.taken
        second = Sender(place.convoy, letter("second"))
        wait_until(lambda: second.error or b"second" in place.taken, LONG)
        place.finds_nothing_wrong(where, first, second)
        for sender, body in ((first, b"first"), (second, b"second")):
            assert sender.error is None or sender.error.uncertain, where
            assert sender.error is not None or body in place.taken, where
        return where

    assert len(each_strike(run)) > 30


@pytest.mark.parametrize("error", STRIKES[:1])
def test_one_who_reads_for_another(monkeypatch: pytest.MonkeyPatch, error: type[BaseException]) -> None:
    """It is our confirm that comes first, so that the other one has to go on reading."""

    def run(at: int) -> str:
        others: list[Sender] = []

        def on_taken(body: bytes) -> None:
            if body == b"mine":
                others.append(Sender(place.convoy, letter("other")))
                wait_until(lambda: place.convoy._flight is None or len(place.convoy._flight.aboard) == 2, LONG)

        place = Place(monkeypatch, b"other", on_taken=on_taken)
        where, raised = struck(lambda: place.convoy.send([letter("mine")], monotonic() + LONG), error, at)
        assert (type(raised) is error) is bool(where), f"{where}: {raised!r}"
        for other in others:
            wait_until(lambda other=other: other.error or b"other" in place.taken, LONG)  # type: ignore[misc]
        place.finds_nothing_wrong(where, *others)
        for other in others:
            assert other.error is None or other.error.uncertain, where
            assert other.error is not None or b"other" in place.taken, where
        return where

    assert len(each_strike(run)) > 60


@pytest.mark.parametrize("error", STRIKES[:1])
def test_one_who_waits_for_his_turn(monkeypatch: pytest.MonkeyPatch, error: type[BaseException]) -> None:
    """Another queue has to be declared, which nobody does while others are under way."""

    def run(at: int) -> str:
        place = Place(monkeypatch, b"first", on_taken=lambda body: None)
        first = Sender(place.convoy, letter("first"))
        wait_until(lambda: b"first" in place.taken, LONG)
        server = place.servers[0]
        release = threading.Thread(target=lambda: (wait_until(lambda: place.convoy._bells, LONG), server.let_go()))
        release.start()
        mine = letter("mine", "elsewhere")
        where, raised = struck(lambda: place.convoy.send([mine], monotonic() + LONG), error, at)
        assert (type(raised) is error) is bool(where), f"{where}: {raised!r}"
        if not place.convoy._bells:
            place.convoy._bells.append(threading.Lock())
        release.join()
        place.finds_nothing_wrong(where, first)
        assert first.error is None, where
        return where

    assert len(each_strike(run)) > 60


class Echo(blocking.Connection):
    """A connection without a socket. Its server answers ``queue.purge`` with the number that is the queue's name."""

    def __init__(self) -> None:
        self.address = ADDRESS
        self.closed = False
        self.heartbeat = 0
        self.frame_max = 131072
        self.blocked = ""
        self.declared = set()
        self.delivered = []
        self.midway = False
        self._parser, self._answered, self._returned = Parser(), [], []
        self._open = self._closing = False
        self._server, self._inbox = Parser(), list[bytes]()

    def send(self, data: bytes, deadline: float) -> None:
        for event in self._server.feed(data):
            if event.number == m.QUEUE_PURGE:
                number = int(m.arguments(event.number, event.payload)[1])
                self._inbox.append(m.method(1, m.QUEUE_PURGE_OK, number))
            elif event.number == m.CHANNEL_OPEN:
                self._inbox.append(m.method(1, m.CHANNEL_OPEN_OK, b""))
            else:
                self._inbox.append(m.method(1, m.CONFIRM_SELECT_OK))

    def _read(self, deadline: float) -> list[Event]:
        if not self._inbox:
            raise TimeoutError("nothing comes")
        return self._parser.feed(self._inbox.pop(0))

    def look(self) -> None:
        """Nothing has come yet: that is the worst case."""

    def close(self) -> None:
        self.closed = True


@pytest.mark.parametrize("error", STRIKES)
def test_questions_on_a_line(monkeypatch: pytest.MonkeyPatch, error: type[BaseException]) -> None:
    """No answer is ever that to another question."""
    monkeypatch.setattr(blocking, "Connection", lambda *_, **__: Echo())

    def ask(line: Line, number: int) -> int:
        with line.use(monotonic() + LONG) as connection:
            return int(connection.ask((m.QUEUE_PURGE, 0, str(number), False), monotonic() + LONG)[0])

    def run(at: int) -> str:
        line = Line((ADDRESS,))
        assert ask(line, 1) == 1
        where, raised = struck(lambda: ask(line, 2), error, at)
        assert (type(raised) is error) is bool(where), f"{where}: {raised!r}"
        try:
            assert ask(line, 3) == 3, where
        except OperationalError as lost:
            raise AssertionError(where) from lost
        line.close()
        return where

    assert len(each_strike(run)) > 20
