"""Conformance: opening, closing, declaring, and what an adapter says of itself."""

from __future__ import annotations

import asyncio
import math
import threading

import pytest

from celeriac.exceptions import OperationalError
from celeriac.ports import Depth, Unified
from celeriac.testing.conformance.harness import Harness
from celeriac.testing.conformance.tools import Background, asynchronous, ids, message, messages, take

__all__ = ["LifeCycle"]


class LifeCycle:
    """``open``, ``close``, ``declare``, ``traits``."""

    @asynchronous
    async def test_open_and_close_are_idempotent(self, harness: Harness) -> None:
        broker, store = harness.broker(), harness.store()
        for port in (broker, store):
            await port.close()
            await port.open()
            await port.open()
        await broker.publish([message("a")])
        assert ids(await take(broker)) == ["a"], "open: a second open changes nothing"
        for port in (broker, store):
            await port.close()
            await port.close()

    @asynchronous
    async def test_a_closed_broker_raises_until_it_is_opened_again(self, harness: Harness) -> None:
        broker = await harness.open_broker()
        await broker.publish([message("a")])
        await broker.close()
        with pytest.raises(OperationalError):
            await broker.claim(["q"], limit=1, wait=0.0)
        with pytest.raises(OperationalError):
            await broker.publish([message("b")])
        with pytest.raises(OperationalError):
            await broker.maintain()
        await broker.open()
        assert ids(await take(broker)) == ["a"], "close: a closed broker does nothing; open brings it back"

    @asynchronous
    async def test_a_closed_store_raises_until_it_is_opened_again(self, harness: Harness) -> None:
        store = await harness.open_store()
        await store.close()
        with pytest.raises(OperationalError):
            await store.get(["a"])
        await store.open()
        assert list(await store.get(["a"])) == [None], "open: a store can be opened again"

    @asynchronous
    async def test_leases_stay_when_their_broker_is_closed(self, harness: Harness) -> None:
        first, second = await harness.open_broker(), await harness.open_broker()
        await first.publish([message("a")])
        await take(first)
        await first.close()
        assert await take(second) == [], "close: leases stay until they expire"
        await second.maintain()
        assert (await second.depth(["q"]))["q"].leased == 1, "close: leases stay until they expire"

    @asynchronous
    async def test_close_ends_a_waiting_claim(self, harness: Harness) -> None:
        broker = await harness.open_broker()
        waiting = asyncio.ensure_future(broker.claim(["q"], limit=1, wait=1000.0))
        await harness.elapse(0.05)
        assert not waiting.done(), "claim: waits with nothing there"
        await broker.close()
        async with asyncio.timeout(harness.late * 5):
            try:
                assert list(await waiting) == [], "close: a waiting claim ends with nothing"
            except OperationalError:
                pass

    @asynchronous
    async def test_declare_is_idempotent_and_drops_nothing(self, harness: Harness) -> None:
        broker = await harness.open_broker()
        await broker.declare(["q", "other"])
        await broker.publish(messages("a", "b"))
        await broker.declare(["q", "other", "q"])
        await broker.declare([])
        assert ids(await take(broker)) == ["a", "b"], "declare: idempotent"

    @asynchronous
    async def test_queues_need_no_declaration(self, harness: Harness) -> None:
        broker = await harness.open_broker()
        assert await take(broker, "new") == [], "claim: an unknown queue is empty"
        assert dict(await broker.depth(["new"])) == {"new": Depth()}, "depth: an unknown queue is empty"
        assert await broker.purge("new") == 0, "purge: an unknown queue is empty"
        await broker.publish([message("a", "new")])
        assert ids(await take(broker, "new")) == ["a"], "publish: makes the queue"

    @asynchronous
    async def test_nothing_in_nothing_out(self, harness: Harness) -> None:
        broker, store = await harness.open_broker(), await harness.open_store()
        await broker.publish([])
        assert list(await broker.settle([])) == []
        assert list(await broker.extend([])) == []
        assert dict(await broker.depth([])) == {}
        assert list(await broker.dead()) == []
        assert list(await broker.orphans("nobody")) == []
        await store.put([])
        await store.forget([])
        assert list(await store.get([])) == []
        if isinstance(broker, Unified):
            assert list(await broker.finish([])) == []

    @asynchronous
    async def test_maintain_says_when_it_is_useful_again(self, harness: Harness) -> None:
        broker = await harness.open_broker()
        idle = await broker.maintain()
        assert math.isfinite(idle), "maintain: returns finite seconds"
        assert idle >= 0, "maintain: returns no negative seconds"
        await broker.publish([message("a", due=harness.now() + 3.0)])
        assert 0 <= await broker.maintain() <= 3.0, "maintain: is useful when the next message is due"

    @asynchronous
    async def test_traits_tell_the_server(self, harness: Harness) -> None:
        broker, store = harness.broker(), harness.store()
        kind, address = broker.traits.server
        assert kind, "traits: server names its kind"
        assert harness.password not in address, "traits: no password in the address"
        if isinstance(broker, Unified):
            assert store.traits.server == broker.traits.server, "traits: one URL, one server"

    def test_blocking_ports_close_twice_and_come_back(self, harness: Harness) -> None:
        publisher, reader, caller = harness.publisher(), harness.reader(), harness.caller()
        for port in (publisher, reader, caller):
            port.close()
        publisher.publish([message("a")], timeout=5.0)
        assert list(reader.get(["a"], timeout=5.0)) == [None], "close: a later call connects anew"
        assert publisher.depth(["q"], timeout=5.0)["q"].ready == 1, "close: a later call connects anew"
        for port in (publisher, reader, caller):
            port.close()
            port.close()

    @asynchronous
    async def test_all_may_begin_at_once(self, harness: Harness) -> None:
        barrier = threading.Barrier(10, timeout=30.0)

        def produce(name: str) -> None:
            publisher = harness.publisher()
            barrier.wait()
            publisher.publish([message(name)], timeout=10.0)
            publisher.close()

        def read(name: str) -> None:
            reader = harness.reader()
            barrier.wait()
            reader.get([name], timeout=10.0)
            reader.close()

        acts = [produce, read] * 5
        threads = [Background(lambda act=act, name=f"id-{n}": act(name)) for n, act in enumerate(acts)]  # type: ignore[misc]
        for thread in threads:
            await asyncio.to_thread(thread.join)
        broker = await harness.open_broker()
        got = sorted(ids(await take(broker)))
        assert got == [f"id-{number}" for number in range(0, 10, 2)], "open: a new server may be met by many at once"
