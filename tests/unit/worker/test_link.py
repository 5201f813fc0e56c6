"""Questions and orders between an agent and its children; streams here, sockets in the integration tests."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import time
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import pytest

from celeriac.model.message import Delivery
from celeriac.model.outcome import Revoked
from celeriac.model.rules import Order, Rule, encode_order
from celeriac.worker import link
from celeriac.worker.inside import answer
from celeriac.worker.kept import KeptOrders
from celeriac.worker.link import LinkServer, LocalLink, _line
from celeriac.worker.options import NodeOptions
from celeriac.worker.rules import RuleBook, to_wire
from tests.unit.worker.fakes import delivery, malformed

#: More than any test needs, in seconds.
LONG = 30.0


class FakeChild:
    """All that ``inside`` looks at; ``cancellable`` are tokens that ``cancel`` can end."""

    def __init__(self) -> None:
        self.options = NodeOptions(hostname="w@h", queues=("celery",))
        self.rules = RuleBook()
        self.slot: Any = None
        self.exit_reason = ""
        self.sifted = 0
        self.active: list[tuple[Delivery, float]] = []
        self.requeued = 0
        self.cancellable: set[str] = set()
        self.graces: list[Any] = []
        self.runner = SimpleNamespace(totals={"t": 3}, count=3, terminated={}, now=lambda: self.now)
        #: Seconds since the epoch, by the broker.
        self.now = time.time()
        self.written: list[Any] = []
        self.completer = SimpleNamespace(early=set())
        self.services = SimpleNamespace(end=lambda *what: self.written.append(what))
        self.report = SimpleNamespace(events=False)
        self.fetcher = SimpleNamespace(
            held={}, queues=["celery"], connected=True, requeued=self._requeued, ruled=self._ruled
        )

    def _requeued(self) -> None:
        self.requeued += 1

    def _ruled(self) -> None:
        self.sifted += 1

    def running(self) -> list[tuple[Delivery, float]]:
        return self.active

    def cancel(self, token: str) -> bool:
        assert token in self.runner.terminated  # else its coroutine would not know why it ends
        return token in self.cancellable

    def stop(self, *, grace: float | None = None) -> None:
        self.graces.append(grace)

    def runs(self, *deliveries: Delivery) -> None:
        self.active += [(each, time.monotonic()) for each in deliveries]
        self.holds(*deliveries)

    def holds(self, *deliveries: Delivery) -> None:
        self.fetcher.held.update({each.token: each for each in deliveries})


@pytest.fixture
def child() -> FakeChild:
    return FakeChild()


def ask(child: FakeChild, method: str, **arguments: Any) -> Any:
    return json.loads(_line(answer(child, method, arguments)))  # type: ignore[arg-type]


def test_active_and_reserved(child: FakeChild) -> None:
    one = delivery(id="a", headers={"argsrepr": "(1,)", "kwargsrepr": "{}"}, priority=3, redelivered=True)
    two = delivery(id="b", routing_key="key")
    child.runs(one)
    child.holds(two)
    child.completer.early.add(one.token)
    (active,), (reserved,) = ask(child, "active"), ask(child, "reserved")
    assert (active["id"], active["args"], active["acknowledged"], active["hostname"]) == ("a", "(1,)", True, "w@h")
    assert active["time_start"] == pytest.approx(time.time(), abs=5)
    assert active["delivery_info"]["redelivered"] is True
    assert (reserved["id"], reserved["time_start"], reserved["acknowledged"]) == ("b", None, False)
    assert reserved["delivery_info"]["routing_key"] == "key"


def test_malformed_ones_are_shown_too(child: FakeChild) -> None:
    child.holds(malformed(id="x", task="t"))
    assert ask(child, "reserved") == [{"id": "x", "name": "t"}]


def test_stats(child: FakeChild) -> None:
    child.holds(delivery())
    stats = ask(child, "stats")
    assert (stats["total"], stats["count"], stats["held"], stats["connected"]) == ({"t": 3}, 3, 1, True)


def obey(child: FakeChild, *keys: str, **order: Any) -> Any:
    value = encode_order(Order(**order))
    return ask(child, "obey", rules=to_wire([Rule(key, value) for key in keys]))


def test_revoke_only_refuses(child: FakeChild) -> None:
    child.runs(delivery(id="a"))
    assert obey(child, "revoke:a", "revoke:b", "pause:q") == []
    assert (list(child.rules.revoked), child.rules.paused) == (["a", "b"], {"q"})
    assert (child.runner.terminated, child.sifted) == ({}, 1)


def test_orders_end_by_the_brokers_clock(child: FakeChild) -> None:
    one, child.now = delivery(id="a"), 1_000.0
    child.runs(one)
    rule = Rule("revoke:a", encode_order(Order(terminate=True)), 1_005.0)
    assert [each["token"] for each in ask(child, "obey", rules=to_wire([rule]))] == [one.token]


def test_terminate_cancels_what_can_be_cancelled_and_names_the_rest(child: FakeChild) -> None:
    coroutine, stuck, other = delivery(id="a"), delivery(id="b"), delivery(id="c")
    child.runs(coroutine, stuck, other)
    child.cancellable = {coroutine.token, other.token}
    (left,) = obey(child, "revoke:a", "revoke:b", terminate=True, signal="INT", by="me", reason="why")
    assert left == {"token": stuck.token, "pid": os.getpid(), "signal": "INT", "by": "me", "why": "why"}
    assert child.runner.terminated == {coroutine.token: Revoked("terminated", by="me", why="why")}


def test_a_coroutine_is_cancelled_once(child: FakeChild) -> None:
    """It may clean up; orders are repeated meanwhile."""
    one = delivery(id="a")
    child.runs(one)
    child.cancellable = {one.token}
    obey(child, "revoke:a", terminate=True)
    child.cancellable = set()
    assert obey(child, "revoke:a", terminate=True) == []
    assert list(child.runner.terminated) == [one.token]


def test_what_was_settled_before_its_run_is_written_first(child: FakeChild) -> None:
    one = delivery(id="a")
    child.runs(one)
    child.completer.early.add(one.token)
    assert obey(child, "revoke:a", terminate=True) == []
    assert child.written == [(one, Revoked("terminated"))]
    child.completer.early.clear()  # it is written
    assert [each["token"] for each in obey(child, "revoke:a", terminate=True)] == [one.token]


def test_a_process_of_threads_leaves_to_end_one(child: FakeChild) -> None:
    """As for hard limits: what cannot be ended has ended, and the others go back."""
    one = delivery(id="a")
    child.options = NodeOptions(hostname="w@h", queues=("celery",), pool="threads")
    child.runs(one, delivery(id="b"))
    child.slot = object()
    assert obey(child, "revoke:a", terminate=True) == []
    assert (child.written, child.graces) == ([(one, Revoked("terminated"))], [0.0])


def test_queues(child: FakeChild) -> None:
    mine = child.fetcher.queues
    ask(child, "queues", queues=["celery"])
    assert child.requeued == 0
    ask(child, "queues", queues=["a", "celery"])
    assert (mine, child.requeued) == (["a", "celery"], 1)
    ask(child, "queues", queues=["celery", "a"])
    assert (mine, child.requeued) == (["a", "celery"], 1)  # its order is the fetcher's affair
    ask(child, "queues", queues=[])
    assert (mine, child.requeued) == ([], 2)


def test_events_and_stop(child: FakeChild) -> None:
    assert ask(child, "events", on=True) is False
    assert ask(child, "events", on=True) is True
    assert child.report.events is True
    ask(child, "stop", grace=1.5)
    ask(child, "stop")
    assert child.graces == [1.5, None]


def test_in_one_process(child: FakeChild) -> None:
    link = LocalLink(child)  # type: ignore[arg-type]
    assert asyncio.run(link.ask("stats", {}))[0]["count"] == 3


# -- over a stream -------------------------------------------------------------------------------------------------


class Peer:
    """A child at the other end of a stream: reads what the agent writes, says what it is told."""

    def __init__(self, server: LinkServer) -> None:
        self.reader = asyncio.StreamReader()
        self.lines: list[dict[str, Any]] = []
        self.closed = False
        self.reply: Callable[[dict[str, Any]], bytes | None] = lambda request: None
        self.met = asyncio.create_task(server._meet(self.reader, self))  # type: ignore[arg-type]

    def write(self, line: bytes) -> None:
        request = json.loads(line)
        self.lines.append(request)
        said = self.reply(request)
        if said is not None:
            self.reader.feed_data(said)

    def close(self) -> None:
        self.closed = True

    def answers(self, value: Any) -> Peer:
        self.reply = lambda request: _line({"n": request["n"], "answer": value})
        return self


def serve(body: Callable[[LinkServer], Awaitable[None]]) -> None:
    async def main() -> None:
        await body(LinkServer("unused"))

    asyncio.run(main())


async def peers(server: LinkServer, count: int) -> list[Peer]:
    made = [Peer(server) for _ in range(count)]
    await asyncio.sleep(0)
    return made


def test_all_children_answer() -> None:
    async def body(server: LinkServer) -> None:
        assert await server.ask("stats", {}) == []
        for number, peer in enumerate(await peers(server, 3)):
            peer.answers(number)
        assert sorted(await server.ask("stats", {"x": 1}, timeout=5)) == [0, 1, 2]
        assert server._waiting == {}

    serve(body)


def test_who_is_silent_is_not_waited_for() -> None:
    async def body(server: LinkServer) -> None:
        loud, _ = await peers(server, 2)
        loud.answers("here")
        assert await server.ask("stats", {}, timeout=0.01) == ["here"]
        assert server._waiting == {}

    serve(body)


def test_late_and_foreign_answers_are_dropped() -> None:
    async def body(server: LinkServer) -> None:
        (peer,) = await peers(server, 1)
        peer.reply = lambda request: _line({"n": 77, "answer": "foreign"}) + _line({"n": request["n"], "answer": 1})
        assert await server.ask("stats", {}, timeout=5) == [1]
        peer.reader.feed_data(_line({"n": 1, "answer": "late"}))
        await asyncio.sleep(0)
        assert not peer.met.done()

    serve(body)


def test_orders_are_repeated_to_children_of_later() -> None:
    async def body(server: LinkServer) -> None:
        server.keep("events", {"on": True})
        server.keep("revoke", {"ids": ["a"]})
        server.keep("events", {"on": False})
        (peer,) = await peers(server, 1)
        assert peer.lines == [
            {"n": 0, "method": "events", "arguments": {"on": False}},
            {"n": 0, "method": "revoke", "arguments": {"ids": ["a"]}},
            {"n": 0, "method": "greeted", "arguments": {}},
        ]

    serve(body)


def test_orders_outlive_the_agent() -> None:
    kept = KeptOrders()

    async def main() -> None:
        LinkServer("unused", kept).keep("events", {"on": True})
        (peer,) = await peers(LinkServer("unused", kept), 1)
        assert peer.lines[0] == {"n": 0, "method": "events", "arguments": {"on": True}}

    asyncio.run(main())
    kept.close()


def test_a_child_is_greeted_when_it_has_obeyed_all_orders(child: FakeChild, monkeypatch: pytest.MonkeyPatch) -> None:
    tries, greeted = itertools.count(), asyncio.Event()

    async def connect(name: str) -> Any:
        if next(tries) < 3:
            raise ConnectionRefusedError  # the agent comes later
        reader = asyncio.StreamReader()
        reader.feed_data(_line({"n": 0, "method": "queues", "arguments": {"queues": ["a", "b"]}}))
        assert not greeted.is_set()
        reader.feed_data(_line({"n": 0, "method": "greeted", "arguments": {}}))
        return reader, SimpleNamespace(close=lambda: None)

    monkeypatch.setattr(link, "_connect", connect)
    monkeypatch.setattr(link, "_FIRST", 0.0)

    async def main() -> None:
        attending = asyncio.create_task(link.attend(child, "unused", greeted))  # type: ignore[arg-type]
        async with asyncio.timeout(LONG):
            await greeted.wait()
        assert child.fetcher.queues == ["a", "b"]
        attending.cancel()

    asyncio.run(main())


@pytest.mark.parametrize("last", [b"", b"{rubbish\n"])
def test_a_child_that_died_is_forgotten(last: bytes) -> None:
    async def body(server: LinkServer) -> None:
        (peer,) = await peers(server, 1)
        peer.reader.feed_data(last)
        peer.reader.feed_eof()
        await peer.met
        assert peer.closed
        assert await server.ask("stats", {}) == []

    serve(body)


def test_what_json_does_not_know_is_shown() -> None:
    assert json.loads(_line({"a": {1, 2}})) == {"a": "{1, 2}"}
