"""Conformance: ``Bus`` and ``Caller``: events and remote control. Lossy, so tests repeat until they are heard."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, cast

from celeriac.ports import Broker, Bus
from celeriac.testing.conformance.harness import Harness
from celeriac.testing.conformance.tools import asynchronous

__all__ = ["Remote"]

PIDBOX = "celery.pidbox"
EVENTS = "celeryev"
Letter = tuple[Any, Mapping[str, Any]]


def _bus(harness: Harness, broker: Broker) -> Bus:
    if not hasattr(broker, "emit"):
        harness.cannot("carry events")
    return cast("Bus", broker)


class Remote:
    """``emit``, ``listen``, ``reply``, ``call``."""

    @asynchronous
    async def test_all_who_listen_hear(self, harness: Harness) -> None:
        speaker = _bus(harness, await harness.open_broker())
        ears = [_Ear(_bus(harness, await harness.open_broker()), EVENTS) for _ in range(2)]
        deaf = _Ear(_bus(harness, await harness.open_broker()), PIDBOX)
        payload = {"type": "worker-heartbeat", "n": [1, None, "ü"], "f": 1.5}
        headers = {"hostname": "w1@host", "clock": 7}

        async def speak() -> None:
            await speaker.emit(EVENTS, "worker.heartbeat", payload, headers)

        await _until(lambda: all(ear.heard for ear in ears), speak)
        for ear in ears:
            got, told = ear.heard[0]
            assert got == payload, "listen: payload of what is sent to the exchange, whatever its routing key"
            assert {name: told.get(name) for name in headers} == headers, "listen: with its headers"
        assert not deaf.heard, "listen: to one exchange"
        for ear in (*ears, deaf):
            await ear.stop()

    @asynchronous
    async def test_order_and_routing_keys(self, harness: Harness) -> None:
        speaker = _bus(harness, await harness.open_broker())
        ear = _Ear(_bus(harness, await harness.open_broker()), EVENTS)
        await _until(lambda: bool(ear.heard), lambda: speaker.emit(EVENTS, "task.sent", "hello", {}))
        for number in range(50):
            await speaker.emit(EVENTS, f"task.number{number}", [number], {})
        await _until(lambda: any(got == [49] for got, _ in ear.heard))
        numbers = [got[0] for got, _ in ear.heard if isinstance(got, list)]
        assert numbers == list(range(50)), "listen: everything from now on, in order"
        await ear.stop()

    @asynchronous
    async def test_nobody_listens(self, harness: Harness) -> None:
        bus = _bus(harness, await harness.open_broker())
        await bus.emit(EVENTS, "task.sent", {}, {})
        await bus.reply("reply.celery.pidbox", "nobody", {}, {})

    @asynchronous
    async def test_listening_ends_when_closed(self, harness: Harness) -> None:
        broker = await harness.open_broker()
        ear = _Ear(_bus(harness, broker), EVENTS)
        await asyncio.sleep(0.05)
        await broker.close()
        async with asyncio.timeout(harness.late * 5):
            await ear.task

    @asynchronous
    async def test_undecodable_letters_are_skipped(self, harness: Harness) -> None:
        bus = _bus(harness, await harness.open_broker())
        ear = _Ear(bus, EVENTS)
        await _until(lambda: bool(ear.heard), lambda: bus.emit(EVENTS, "task.sent", "first", {}))
        for raw in (b"", b"{", b"\xff\xfe", b"null", b"[1]", b'{"body": 5}', b'{"body": "W", "properties": {}}'):
            await harness.inject_topic(EVENTS, raw)
        before = len(ear.heard)
        await _until(lambda: len(ear.heard) > before, lambda: bus.emit(EVENTS, "task.sent", "last", {}))
        odd = [got for got, _ in ear.heard if got not in ("first", "last")]
        assert odd == [], "listen: undecodable messages are skipped"
        await ear.stop()

    @asynchronous
    async def test_a_call_collects_replies(self, harness: Harness) -> None:
        nodes = [_Node(_bus(harness, await harness.open_broker()), name) for name in ("w1@host", "w2@host")]
        caller = harness.caller()
        await _until(lambda: all(node.ear.heard for node in nodes), lambda: _ask(caller, reply=False))
        begin = time.monotonic()
        answers = await _ask(caller, timeout=20.0, limit=2)
        assert time.monotonic() - begin <= 1 + harness.late, "call: returns when limit replies came"
        assert sorted(name for answer in answers for name in answer) == ["w1@host", "w2@host"], "call: collects replies"
        assert all(answer[name] == {"ok": "pong"} for answer in answers for name in answer), "call: replies as sent"
        begin = time.monotonic()
        span = max(0.5, harness.late)
        assert len(await _ask(caller, timeout=span)) == 2, "call: collects until the time is up"
        assert span - 0.1 <= time.monotonic() - begin <= span + harness.late, "call: collects until the time is up"
        request, headers = nodes[0].ear.heard[-1]
        assert (request["method"], request["arguments"]) == ("ping", {"x": 1}), "call: the request as given"
        assert request["ticket"], "call: fills in the ticket"
        assert set(request["reply_to"]) == {"exchange", "routing_key"}, "call: fills in reply_to"
        assert headers["expires"] > 0, "call: headers say until when it matters"
        caller.close()
        for node in nodes:
            await node.ear.stop()

    @asynchronous
    async def test_a_request_keeps_its_own_ticket_and_address(self, harness: Harness) -> None:
        node = _Node(_bus(harness, await harness.open_broker()), "w1@host")
        caller = harness.caller()
        await _until(lambda: bool(node.ear.heard), lambda: _ask(caller, reply=False))
        own = {"ticket": "of its own", "reply_to": {"exchange": "reply.celery.pidbox", "routing_key": "to-me"}}
        answers = await asyncio.to_thread(
            lambda: caller.call({"method": "ping", "arguments": {}, **own}, timeout=20.0, limit=1)
        )
        assert [list(answer) for answer in answers] == [["w1@host"]], "call: replies come to the request's own address"
        request, _ = node.ear.heard[-1]
        assert {key: request[key] for key in own} == own, "call: the request's own ticket and reply_to"
        caller.close()
        await node.ear.stop()

    @asynchronous
    async def test_a_call_without_reply(self, harness: Harness) -> None:
        node = _Node(_bus(harness, await harness.open_broker()), "w1@host")
        caller = harness.caller()
        begin = time.monotonic()
        await _until(lambda: bool(node.ear.heard), lambda: _ask(caller, timeout=20.0, reply=False))
        assert time.monotonic() - begin <= 5, "call: without reply returns at once"
        assert not node.ear.heard[0][0].get("reply_to"), "call: without reply there is no address"
        caller.close()
        await node.ear.stop()

    @asynchronous
    async def test_nobody_answers(self, harness: Harness) -> None:
        caller = harness.caller()
        begin = time.monotonic()
        assert list(await _ask(caller, timeout=0.3)) == [], "call: no replies"
        assert time.monotonic() - begin <= 0.3 + harness.late, "call: collects until the time is up, no longer"
        caller.close()

    @asynchronous
    async def test_replies_to_other_calls_are_left_out(self, harness: Harness) -> None:
        bus = _bus(harness, await harness.open_broker())
        ear = _Ear(bus, PIDBOX)
        caller = harness.caller()
        await _until(lambda: bool(ear.heard), lambda: _ask(caller, reply=False))
        ear.heard.clear()
        calling = asyncio.ensure_future(_ask(caller, timeout=20.0, limit=1))
        await _until(lambda: bool(ear.heard))
        address, ticket = ear.heard[0][0]["reply_to"], ear.heard[0][0]["ticket"]
        for told, answer in (("stale", "wrong"), (ticket, "right")):
            await bus.reply(address["exchange"], address["routing_key"], {"w1": answer}, {"ticket": told, "clock": 1})
        assert list(await calling) == [{"w1": "right"}], "call: replies to its own ticket only"
        caller.close()
        await ear.stop()

    @asynchronous
    async def test_calls_from_many_threads(self, harness: Harness) -> None:
        node = _Node(_bus(harness, await harness.open_broker()), "w1@host")
        caller = harness.caller()
        await _until(lambda: bool(node.ear.heard), lambda: _ask(caller, reply=False))
        answers = await asyncio.gather(*(_ask(caller, timeout=20.0, limit=1) for _ in range(5)))
        assert [len(each) for each in answers] == [1] * 5, "call: safe in threads"
        caller.close()
        await node.ear.stop()


async def _ask(
    caller: Any, *, timeout: float = 1.0, limit: int | None = None, reply: bool = True
) -> list[Mapping[str, Any]]:
    request = {"method": "ping", "arguments": {"x": 1}, "destination": None, "pattern": None, "matcher": None}
    return list(await asyncio.to_thread(caller.call, request, timeout=timeout, limit=limit, reply=reply))


async def _until(holds: Callable[[], bool], act: Callable[[], Any] | None = None, timeout: float = 40.0) -> None:
    """Act again and again, as the wire is lossy and listening takes a moment to begin, until something holds."""
    async with asyncio.timeout(timeout):
        while not holds():
            if act is not None:
                await act()
            await asyncio.sleep(0.02)


class _Ear:
    """Collects what one listener hears."""

    def __init__(self, bus: Bus, exchange: str, answer: Callable[[Letter], Any] | None = None) -> None:
        self.heard: list[Letter] = []
        self._answer = answer
        self.task = asyncio.ensure_future(self._run(bus.listen(exchange)))

    async def _run(self, letters: AsyncIterator[Letter]) -> None:
        async for letter in letters:
            self.heard.append(letter)
            if self._answer is not None:
                await self._answer(letter)

    async def stop(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


class _Node:
    """Answers every request."""

    def __init__(self, bus: Bus, name: str) -> None:
        self._bus, self._name = bus, name
        self.ear = _Ear(bus, PIDBOX, self._reply)

    async def _reply(self, letter: Letter) -> None:
        request, _ = letter
        if address := request.get("reply_to"):
            headers = {"ticket": request["ticket"], "clock": 1}
            answer = {self._name: {"ok": "pong"}}
            await self._bus.reply(address["exchange"], address["routing_key"], answer, headers)
