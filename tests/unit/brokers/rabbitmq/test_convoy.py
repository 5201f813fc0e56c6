"""Many threads over one connection: who waits for whom, and whose an error is. No sockets: the server is a script."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from celeriac.brokers.rabbitmq import methods as m
from celeriac.brokers.rabbitmq.address import parse
from celeriac.brokers.rabbitmq.blocking import monotonic
from celeriac.brokers.rabbitmq.confirms import Confirms, Parcel
from celeriac.brokers.rabbitmq.convoy import Convoy
from celeriac.brokers.rabbitmq.frames import Event, Parser
from celeriac.brokers.rabbitmq.layout import Layout
from celeriac.brokers.rabbitmq.outgoing import Outgoing
from celeriac.exceptions import OperationalError
from celeriac.ports import AdapterOptions
from celeriac.testing.conformance.tools import child, ended
from tests.servers.base import wait_until

ADDRESS = parse("amqp://somewhere//", AdapterOptions())[0]
LONG = 60.0


class Script:
    """A connection whose server says what the test says."""

    def __init__(self) -> None:
        self.address = ADDRESS
        self.frame_max = 131072
        self.blocked = ""
        self.midway = False
        self.heard = monotonic()
        self.declared: set[str] = set()
        self.asked: list[Any] = []
        self.written: list[bytes] = []
        self._confirms = Confirms()
        self._news: tuple[list[Parcel], list[Event]] = ([], [])
        self._inbox: list[Event | Exception] = []
        self._arrived = threading.Condition()

    # -- the test's side

    def says(self, *events: Event | Exception) -> None:
        with self._arrived:
            self._inbox += events
            self._arrived.notify_all()

    def acks(self, tag: int, multiple: bool = False) -> None:
        self.says(_event(m.BASIC_ACK, tag, multiple))

    # -- Connection

    def run(self, asking: Iterator[Any], deadline: float) -> None:
        self.asked += asking

    def ready(self, deadline: float) -> None: ...

    def look(self) -> None: ...

    def hear(self, deadline: float) -> None:
        with self._arrived:
            if not self._arrived.wait_for(lambda: self._inbox, deadline - monotonic()):
                raise TimeoutError("it took too long")
            events, self._inbox = self._inbox, []
        for event in events:
            if isinstance(event, Exception):
                raise event
            self.heard = monotonic()
            if event.number == m.BASIC_RETURN:
                self._news[1].append(event)
            elif event.number:
                self._news[0].extend(self._confirms.hear(event))

    def expect(self, count: int, sender: object) -> Parcel:
        return self._confirms.expect(count, sender)

    def news(self) -> tuple[list[Parcel], list[Event]]:
        news, self._news = self._news, ([], [])
        return news

    def send(self, data: bytes, deadline: float) -> None:
        self.written.append(data)

    def hang_up(self) -> None:
        self.says(ConnectionResetError("gone"))

    def close(self) -> None: ...


def _event(number: int, *values: Any, letter: Outgoing | None = None) -> Event:
    (event,) = Parser().feed(m.method(1, number, *values)) if letter is None else [Event(1, number, b"")]
    if letter is not None:
        payload = m.method(1, number, *values)[7:-1]
        event = Event(1, number, payload, letter.header, letter.body)
    return event


def letter(body: str, queue: str = "q") -> Outgoing:
    return Outgoing("", queue, queue, b"h" * 14, body.encode())


class Sender(threading.Thread):
    """Sends on a thread of its own; ``error`` is what it raised."""

    def __init__(self, convoy: Convoy, *letters: Outgoing, seconds: float = LONG) -> None:
        super().__init__(daemon=True)
        self.error: OperationalError | None = None
        self._call: Callable[[], None] = lambda: convoy.send(letters, monotonic() + seconds)
        self.start()

    def run(self) -> None:
        try:
            self._call()
        except OperationalError as error:
            self.error = error

    def ends(self) -> OperationalError | None:
        self.join(LONG)
        assert not self.is_alive()
        return self.error


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch) -> list[Script]:
    """The connections that were made."""
    made: list[Script] = []

    def make(*_: object, **__: object) -> Script:
        made.append(Script())
        return made[-1]

    monkeypatch.setattr("celeriac.brokers.rabbitmq.blocking.Connection", make)
    return made


@pytest.fixture
def convoy(scripts: list[Script]) -> Convoy:
    return Convoy((ADDRESS,), Layout(AdapterOptions()))


def under_way(convoy: Convoy, scripts: list[Script], *bodies: str) -> tuple[list[Sender], Script]:
    """One thread for each, in this order, none confirmed."""
    senders = []
    for number, body in enumerate(bodies, 1):
        senders.append(Sender(convoy, letter(body)))
        wait_until(lambda number=number: scripts and len(scripts[0].written) == number)  # type: ignore[misc]
    return senders, scripts[0]


def test_others_send_while_one_waits_and_each_ends_with_its_own_confirm(convoy: Convoy, scripts: list[Script]) -> None:
    (first, second, third), server = under_way(convoy, scripts, "one", "two", "three")
    server.acks(2)
    assert second.ends() is None
    assert first.is_alive()
    assert third.is_alive()
    server.acks(3, multiple=True)
    assert first.ends() is None
    assert third.ends() is None
    assert len(scripts) == 1
    assert [ask[2] for ask in server.asked if ask[0] == m.QUEUE_DECLARE] == ["q"], "declared once"


def test_another_reads_when_the_one_who_read_is_done(convoy: Convoy, scripts: list[Script]) -> None:
    (first, second), server = under_way(convoy, scripts, "one", "two")
    server.acks(1)
    assert first.ends() is None
    server.acks(2)
    assert second.ends() is None


def test_what_the_server_refuses_is_the_error_of_its_sender(convoy: Convoy, scripts: list[Script]) -> None:
    (first, second), server = under_way(convoy, scripts, "one", "two")
    server.says(_event(m.BASIC_NACK, 2, False, False))
    error = second.ends()
    assert isinstance(error, OperationalError)
    assert "refused 1 messages" in str(error)
    assert error.uncertain
    server.acks(1)
    assert first.ends() is None


def test_what_no_queue_takes_is_sent_once_more_and_then_an_error(convoy: Convoy, scripts: list[Script]) -> None:
    (first, second), server = under_way(convoy, scripts, "one", "two")
    returned = _event(m.BASIC_RETURN, 312, "NO_ROUTE", "", "q", letter=letter("two"))
    server.says(returned, _event(m.BASIC_ACK, 2, True))
    assert first.ends() is None
    wait_until(lambda: len(server.written) == 3)
    assert [ask[2] for ask in server.asked if ask[0] == m.QUEUE_DECLARE] == ["q", "q"], "declared anew"
    server.says(returned, _event(m.BASIC_ACK, 3, False))
    error = second.ends()
    assert isinstance(error, OperationalError)
    assert "no queue for queue 'q'" in str(error)


def test_what_is_sent_beside_what_no_queue_takes_is_not_sent_again(convoy: Convoy, scripts: list[Script]) -> None:
    sender = Sender(convoy, letter("one"), letter("two"))
    wait_until(lambda: scripts and scripts[0].written)
    server = scripts[0]
    returned = _event(m.BASIC_RETURN, 312, "NO_ROUTE", "", "q", letter=letter("two"))
    server.says(returned, _event(m.BASIC_ACK, 2, True))
    wait_until(lambda: len(server.written) == 2)
    server.says(returned, _event(m.BASIC_ACK, 3, False))
    error = sender.ends()
    assert isinstance(error, OperationalError)
    assert error.uncertain, "a caller that tries all again would send the first twice"


def test_a_lost_connection_is_an_error_of_all_and_the_next_call_makes_another(
    convoy: Convoy, scripts: list[Script]
) -> None:
    (first, second), server = under_way(convoy, scripts, "one", "two")
    server.says(ConnectionResetError("gone"))
    for sender in (first, second):
        error = sender.ends()
        assert isinstance(error, OperationalError)
        assert error.uncertain
    third = Sender(convoy, letter("three"))
    wait_until(lambda: len(scripts) == 2 and scripts[1].written)
    scripts[1].acks(1)
    assert third.ends() is None


def test_who_has_no_time_left_leaves_the_others_alone(convoy: Convoy, scripts: list[Script]) -> None:
    (hasty, patient), server = under_way(convoy, scripts, "one", "two")
    server.says(Event(0, 0, b""), TimeoutError())  # it is alive, but the time of the one who reads is over
    error = hasty.ends()
    assert isinstance(error, OperationalError)
    assert error.uncertain
    assert patient.is_alive()
    server.acks(2)
    assert patient.ends() is None
    assert len(scripts) == 1


def test_a_short_time_ends_nothing_of_others(convoy: Convoy, scripts: list[Script]) -> None:
    hasty = Sender(convoy, letter("one"), seconds=0.2)
    wait_until(lambda: scripts and len(scripts[0].written) == 1)
    patient = Sender(convoy, letter("two"))
    wait_until(lambda: len(scripts[0].written) == 2)
    error = hasty.ends()
    assert isinstance(error, OperationalError)
    assert error.uncertain
    scripts[0].acks(2)
    assert patient.ends() is None, "the server was slow, and not away"
    assert len(scripts) == 1


def test_who_is_interrupted_before_it_sends_is_in_nobodys_way(
    convoy: Convoy, scripts: list[Script], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(deadline: float) -> bool:
        monkeypatch.undo()
        raise KeyboardInterrupt

    made = scripts
    monkeypatch.setattr(convoy._line, "connection", interrupted)
    with pytest.raises(KeyboardInterrupt):
        convoy.send([letter("one")], monotonic() + LONG)
    assert convoy._alone is None
    assert made == []


def test_a_silent_connection_is_given_up(convoy: Convoy, scripts: list[Script]) -> None:
    (first,), server = under_way(convoy, scripts, "one")
    server.says(TimeoutError())
    error = first.ends()
    assert isinstance(error, OperationalError)
    assert error.uncertain
    again = Sender(convoy, letter("two"))
    wait_until(lambda: len(scripts) == 2 and scripts[1].written)
    scripts[1].acks(1)
    assert again.ends() is None


def test_during_an_alarm_nothing_more_is_sent(convoy: Convoy, scripts: list[Script]) -> None:
    (first,), server = under_way(convoy, scripts, "one")
    server.blocked = "memory"
    error = Sender(convoy, letter("two"), seconds=0.1).ends()
    assert isinstance(error, OperationalError)
    assert "memory" in str(error)
    assert not error.uncertain
    assert len(server.written) == 1
    server.blocked = ""
    server.acks(1)
    assert first.ends() is None


def test_another_queue_waits_until_nothing_is_under_way(convoy: Convoy, scripts: list[Script]) -> None:
    (first,), server = under_way(convoy, scripts, "one")
    other = Sender(convoy, letter("two", "elsewhere"))
    wait_until(lambda: convoy._flight is not None and not convoy._flight.boarding)
    assert len(server.written) == 1
    server.acks(1)
    assert first.ends() is None
    wait_until(lambda: len(server.written) == 2)
    assert [ask[2] for ask in server.asked if ask[0] == m.QUEUE_DECLARE] == ["q", "elsewhere"]
    server.acks(2)
    assert other.ends() is None


def test_a_large_send_leaves_in_parts(convoy: Convoy, scripts: list[Script]) -> None:
    sender = Sender(convoy, *(letter("x" * 50_000) for _ in range(10)))
    wait_until(lambda: scripts and len(scripts[0].written) == 4)
    assert len(b"".join(scripts[0].written)) > 500_000
    scripts[0].acks(7)
    scripts[0].acks(10, multiple=True)
    assert sender.ends() is None


def test_a_fork_while_another_thread_sends(convoy: Convoy, scripts: list[Script]) -> None:
    (first,), server = under_way(convoy, scripts, "one")
    with convoy._lock:
        pid = child(convoy.close)
    assert ended(pid) == 0
    server.acks(1)
    assert first.ends() is None
    assert len(scripts) == 1


class Letters(list[Outgoing]):
    """Counts how often somebody goes through them."""

    gone_through = 0

    def __iter__(self) -> Iterator[Outgoing]:
        self.gone_through += 1
        return super().__iter__()


def test_many_that_come_back_are_looked_up_not_searched_for(convoy: Convoy, scripts: list[Script]) -> None:
    letters = Letters(letter(str(number)) for number in range(1_000))
    sending = threading.Thread(target=lambda: convoy.send(letters, monotonic() + LONG), daemon=True)
    sending.start()
    wait_until(lambda: scripts and scripts[0].written)
    before = letters.gone_through
    back = [_event(m.BASIC_RETURN, 312, "NO_ROUTE", "", "q", letter=each) for each in list(letters)]
    scripts[0].says(*back, _event(m.BASIC_ACK, 1_000, True))
    wait_until(lambda: len(scripts[0].written) == 2)
    scripts[0].acks(2_000, multiple=True)
    sending.join(LONG)
    assert not sending.is_alive()
    assert letters.gone_through - before < 10
