"""Conformance: broken connections, servers that are away or silent. Nothing hangs, nothing is lost."""

from __future__ import annotations

import asyncio
import time
import traceback
from collections.abc import Awaitable, Callable
from typing import TypeVar

import pytest

from celeriac.exceptions import OperationalError
from celeriac.model.settle import Accept
from celeriac.testing.conformance.harness import Harness
from celeriac.testing.conformance.results import record
from celeriac.testing.conformance.tools import asynchronous, ids, message, messages, take

__all__ = ["Faults"]

T = TypeVar("T")


class Faults:
    """Reconnecting, and giving up in time."""

    @asynchronous
    async def test_after_a_cut_everything_goes_on(self, harness: Harness) -> None:
        broker, store = await harness.open_broker(), await harness.open_store()
        await broker.publish(messages("a", "b"))
        held = await broker.claim(["q"], limit=1, wait=0.0)
        await harness.cut()
        assert await _retried(lambda: broker.extend(held)) == [], "a lease survives a broken connection"
        await harness.cut()
        assert ids(await _retried(lambda: broker.claim(["q"], limit=5, wait=0.0))) == ["b"], (
            "the next call connects anew"
        )
        await harness.cut()
        await _retried(lambda: store.put([record("a")]))
        await harness.cut()
        assert list(await _retried(lambda: store.get(["a"]))) == [record("a").body], "the next call connects anew"
        await harness.cut()
        await _retried(lambda: broker.settle([Accept(held[0])]))
        assert (await broker.depth(["q"]))["q"].leased == 1, "settle: works after a broken connection"

    @asynchronous
    async def test_a_cut_ends_a_waiting_claim_or_is_survived(self, harness: Harness) -> None:
        broker, other = await harness.open_broker(), await harness.open_broker()
        waiting = asyncio.ensure_future(broker.claim(["q"], limit=5, wait=5.0))
        await harness.elapse(0.1)
        await harness.cut()
        await _retried(lambda: other.publish([message("a")]))
        async with asyncio.timeout(harness.late * 5):
            try:
                taken = ids(await waiting)
            except OperationalError:
                taken = []
        taken += ids(await _retried(lambda: broker.claim(["q"], limit=5, wait=0.5)))
        assert taken[:1] == ["a"], "claim: a broken connection is told or mended, and loses nothing"

    @asynchronous
    async def test_what_was_acknowledged_survives_cuts(self, harness: Harness) -> None:
        broker, publisher = await harness.open_broker(), harness.publisher()
        acknowledged = []
        for number in range(30):
            try:
                publisher.publish([message(f"id-{number}")], timeout=2.0)
                acknowledged.append(f"id-{number}")
            except OperationalError:
                pass
            if number % 3 == 0:
                await harness.cut()
        assert len(acknowledged) >= 10, "publish: survives broken connections"
        publisher.close()
        taken = []
        while more := await _retried(lambda: broker.claim(["q"], limit=100, wait=0.0)):
            taken += ids(more)
        assert set(acknowledged) <= set(taken), "publish: durable when it returns"

    @asynchronous
    async def test_a_reader_reads_again_after_a_cut(self, harness: Harness) -> None:
        await harness.cut()
        reader, store = harness.reader(), await harness.open_store()
        waiting = asyncio.ensure_future(asyncio.to_thread(reader.wait, ["a"], timeout=8.0))
        await asyncio.sleep(0.1)
        await harness.cut()
        await _retried(lambda: store.put([record("a")]))
        begin = time.monotonic()
        woken = await waiting
        while (await asyncio.to_thread(reader.get, ["a"], timeout=5.0)) == [None]:
            woken = await asyncio.to_thread(reader.wait, ["a"], timeout=8.0)
        assert woken == "a", "wait: reconnects after a lost connection and reads again"
        assert time.monotonic() - begin <= 2 + harness.late, "wait: reconnects soon"
        reader.close()

    @asynchronous
    async def test_an_unreachable_server_is_told_in_time(self, harness: Harness) -> None:
        url = harness.unreachable
        if url is None:
            harness.cannot("be unreachable")
        publisher, reader = (
            harness.publisher(url=url, connect_timeout=1.0),
            harness.reader(url=url, connect_timeout=1.0),
        )
        calls: list[Callable[[], object]] = [
            lambda: publisher.publish([message("a")], timeout=1.0),
            lambda: publisher.depth(["q"], timeout=1.0),
            lambda: reader.get(["a"], timeout=1.0),
            lambda: reader.put([record("a")], timeout=1.0),
        ]
        for call in calls:
            begin = time.monotonic()
            with pytest.raises(OperationalError) as caught:
                call()
            assert time.monotonic() - begin <= 1.0 + harness.late, "publish: OperationalError within timeout seconds"
            _keeps_secret(harness, caught.value)
        with pytest.raises(OperationalError) as caught:
            await harness.broker(url=url, connect_timeout=1.0).open()
        _keeps_secret(harness, caught.value)
        with pytest.raises(OperationalError) as caught:
            await harness.store(url=url, connect_timeout=1.0).open()
        _keeps_secret(harness, caught.value)
        publisher.close()
        reader.close()

    @asynchronous
    async def test_a_silent_server_is_told_in_time(self, harness: Harness) -> None:
        publisher, reader = harness.publisher(connect_timeout=1.0), harness.reader(connect_timeout=1.0)
        publisher.publish([message("a")], timeout=5.0)
        reader.get(["a"], timeout=5.0)
        await harness.silence(True)
        calls: list[Callable[[], object]] = [
            lambda: publisher.publish([message("b")], timeout=0.3),
            lambda: reader.put([record("a")], timeout=0.3),
        ]
        try:
            for call in calls:
                begin = time.monotonic()
                with pytest.raises(OperationalError):
                    await asyncio.to_thread(call)
                assert time.monotonic() - begin <= 0.3 + harness.late, "a blocking call never hangs"
        finally:
            await harness.silence(False)
        publisher.publish([message("c")], timeout=5.0)
        broker = await harness.open_broker()
        taken = ids(await take(broker))
        assert (taken[0], taken[-1]) == ("a", "c"), "publish: works again; what was acknowledged is there"
        assert taken in (["a", "c"], ["a", "b", "c"]), "publish: what raised is there once or not at all"
        publisher.close()
        reader.close()


async def _retried(call: Callable[[], Awaitable[T]]) -> T:
    """The loss of a connection may raise once, from the call that meets it."""
    try:
        return await call()
    except OperationalError:
        return await call()


def _keeps_secret(harness: Harness, error: BaseException) -> None:
    text = "".join(traceback.format_exception(error)) + repr(error)
    assert harness.password not in text, "OperationalError: its text never holds a password"
    assert str(error), "OperationalError: says what happened"
