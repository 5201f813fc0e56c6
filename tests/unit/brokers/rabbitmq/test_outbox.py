"""What is sent, and what is not sent twice, when an alarm, a full queue or a missing one ends a call. No sockets."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from celeriac.brokers.rabbitmq import methods as m
from celeriac.brokers.rabbitmq import outbox as module
from celeriac.brokers.rabbitmq.address import parse
from celeriac.brokers.rabbitmq.errors import Closed, lost, refused
from celeriac.brokers.rabbitmq.frames import Event, Parser
from celeriac.brokers.rabbitmq.layout import Layout
from celeriac.brokers.rabbitmq.outbox import Outbox
from celeriac.brokers.rabbitmq.outgoing import Outgoing
from celeriac.exceptions import OperationalError
from celeriac.ports import AdapterOptions

ADDRESS = parse("amqp://somewhere//", AdapterOptions())[0]


class Server:
    """Wire and channel in one. ``answer`` says what comes back for the n-th message: "ack", "nack", "return" (and an
    ack), or "" for nothing."""

    def __init__(self) -> None:
        self.address, self.frame_max, self.number = ADDRESS, 131072, 1
        self.closed: OperationalError | None = None
        self.verdict: Closed | None = None
        self.blocked = ""
        self.writable = asyncio.Event()
        self.writable.set()
        self.on_blocked: set[Callable[[], None]] = set()
        self.wire = self
        self.sent: list[str] = []
        self.asked: list[int] = []
        self.answer: Callable[[str], str] = lambda body: "ack"
        self.on_send: Callable[[str], None] = lambda body: None
        self._hear: Any = None
        self._ended: Any = None

    async def channel(self, on_event: Any = None, on_closed: Any = None) -> Server:
        if on_event is not None:
            self._hear, self._ended = on_event, on_closed
        self.closed = self.verdict = None
        return self

    async def ask(self, number: int, *values: Any) -> list[Any]:
        self.asked.append(number)
        return []

    async def close(self) -> None: ...

    def send(self, data: bytes) -> None:
        if self.closed is not None:
            raise self.closed
        body = Parser().feed(_as_content(data))[0].body.decode()
        self.sent.append(body)
        self.on_send(body)
        asyncio.get_running_loop().call_soon(self.says, len(self.sent), body, self.answer(body))

    def says(self, tag: int, body: str, answer: str) -> None:
        if answer == "return":
            payload = m.method(1, m.BASIC_RETURN, 312, "NO_ROUTE", "", "q")[7:-1]
            self._hear(Event(1, m.BASIC_RETURN, payload, letter(body).header, body.encode()))
        if answer:
            number = m.BASIC_NACK if answer == "nack" else m.BASIC_ACK
            values = (tag, False, False) if answer == "nack" else (tag, False)
            (event,) = Parser().feed(m.method(1, number, *values))
            self._hear(event)

    def alarm(self, reason: str) -> None:
        self.blocked = reason
        for callback in tuple(self.on_blocked):
            callback()

    def abort(self, cause: str) -> None:
        self.ends(lost(ADDRESS, cause, uncertain=True))

    def ends(self, error: OperationalError, verdict: Closed | None = None) -> None:
        self.verdict, self.closed = verdict, error
        self.writable.set()
        self._ended(error)


def _as_content(data: bytes) -> bytes:
    """A publish as if it were delivered."""
    length = 8 + int.from_bytes(data[3:7], "big")
    return m.method(1, m.BASIC_DELIVER, "tag", 1, False, "", "q") + data[length:]


def letter(body: str) -> Outgoing:
    return Outgoing("", "q", "", b"\0\x3c\0\0" + len(body).to_bytes(8, "big") + b"\0\0", body.encode())


def letters(*bodies: str) -> list[Outgoing]:
    return [letter(body) for body in bodies]


def on_server(body: Callable[[Outbox, Server], Awaitable[None]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_CONFIRM", 0.05)
    monkeypatch.setattr(module, "_ALARM", 0.02)

    async def main() -> None:
        server = Server()

        async def connect(addresses: Any) -> Server:
            return server

        monkeypatch.setattr(module, "connect", connect)
        await body(Outbox((ADDRESS,), Layout(AdapterOptions())), server)

    asyncio.run(main())


async def fails(outbox: Outbox, *bodies: str) -> OperationalError:
    with pytest.raises(OperationalError) as caught:
        await outbox.publish(letters(*bodies))
    return caught.value


def test_a_server_that_stops_reading_is_an_error_of_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(outbox: Outbox, server: Server) -> None:
        server.on_send = lambda body: server.writable.clear()
        assert "read nothing" in str(await fails(outbox, "a", "b"))
        assert server.sent == ["a"]

    on_server(body, monkeypatch)


def test_during_an_alarm_what_is_left_waits_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(outbox: Outbox, server: Server) -> None:
        def full(body: str) -> None:
            server.writable.clear()
            server.alarm("memory")

        server.on_send, server.answer = full, lambda body: ""
        error = await fails(outbox, "a", "b", "c")
        assert "takes no messages" in str(error)
        assert (error.uncertain, server.sent) == (True, ["a", "b", "c"])
        assert not (await fails(outbox, "d")).uncertain, "it has not left"
        server.alarm("")
        for tag, sent in enumerate(server.sent, 1):
            server.says(tag, sent, "ack")
        server.on_send, server.answer = lambda body: None, lambda body: "ack"
        await outbox.publish(letters("a", "b", "c"))
        assert server.sent == ["a", "b", "c"], "no second time"

    on_server(body, monkeypatch)


@pytest.mark.parametrize("answer", ["return", "nack"])
def test_what_was_not_taken_after_an_alarm_is_sent_again(monkeypatch: pytest.MonkeyPatch, answer: str) -> None:
    async def body(outbox: Outbox, server: Server) -> None:
        server.on_send, server.answer = lambda body: server.alarm("memory"), lambda body: ""
        assert (await fails(outbox, "a")).uncertain
        server.alarm("")
        server.says(1, "a", answer)
        server.on_send, server.answer = lambda body: None, lambda body: "ack"
        await outbox.publish(letters("a"))
        assert server.sent == ["a", "a"]

    on_server(body, monkeypatch)


def test_the_parts_before_an_alarm_are_not_sent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BATCH", 1)

    async def body(outbox: Outbox, server: Server) -> None:
        server.on_send = lambda body: server.alarm("memory") if body == "b" else None
        server.answer = lambda body: "ack" if body != "b" else ""
        assert (await fails(outbox, "a", "b", "c")).uncertain
        server.alarm("")
        server.says(2, "b", "ack")
        await outbox.publish(letters("a", "b", "c"))
        assert server.sent == ["a", "b", "c"]

    on_server(body, monkeypatch)


def test_what_no_queue_takes_makes_no_doubles_of_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(outbox: Outbox, server: Server) -> None:
        server.answer = lambda body: "return" if body == "astray" else "ack"
        assert "has no queue" in str(await fails(outbox, "a", "astray", "b"))
        await fails(outbox, "a", "astray", "b")
        assert [server.sent.count(each) for each in ("a", "b")] == [1, 1]
        server.answer = lambda body: "ack"  # somebody has declared it
        await outbox.publish(letters("a", "astray", "b"))
        assert [server.sent.count(each) for each in ("a", "b")] == [1, 1]
        await outbox.publish(letters("a"))
        assert server.sent.count("a") == 2, "another call"

    on_server(body, monkeypatch)


def test_a_channel_that_the_server_closes_makes_everything_be_declared_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(outbox: Outbox, server: Server) -> None:
        def asking() -> Any:
            yield (m.QUEUE_BIND,)

        await outbox.declare("what delays", asking())
        verdict = Closed(404, "NOT_FOUND - no exchange")
        server.answer = lambda body: ""
        server.on_send = lambda body: server.ends(refused(ADDRESS, verdict), verdict)
        assert (await fails(outbox, "a")).uncertain, "others of the call may have been taken"
        await outbox.declare("what delays", asking())
        assert server.asked.count(m.QUEUE_BIND) == 2

    on_server(body, monkeypatch)


def test_nothing_is_declared_during_an_alarm(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(outbox: Outbox, server: Server) -> None:
        server.alarm("disk")
        with pytest.raises(OperationalError, match="takes no messages"):
            await outbox.declare("q", iter(()))  # type: ignore[arg-type]

    on_server(body, monkeypatch)
