"""Conformance: a claim that waits: woken, timed out, cancelled."""

from __future__ import annotations

import asyncio
import time

import pytest

from celeriac.model.message import Delivery
from celeriac.model.settle import Release
from celeriac.testing.conformance.harness import Harness
from celeriac.testing.conformance.tools import (
    Background,
    asynchronous,
    child,
    ended,
    ids,
    message,
    messages,
    only,
    take,
)

__all__ = ["Waiting"]

#: Long enough to end only by being woken.
_LONG = 1000.0


class Waiting:
    """``claim(wait=…)``."""

    @asynchronous
    async def test_a_wait_ends_on_time(self, harness: Harness) -> None:
        broker = await harness.open_broker()
        begin = harness.now()
        waiting = asyncio.ensure_future(broker.claim(["q", "other"], limit=5, wait=0.3))
        await harness.elapse(0.2)
        assert not waiting.done(), "claim: waits up to wait seconds"
        await harness.elapse(0.11)
        assert list(await waiting) == [], "claim: returns what is there, even if nothing"
        assert harness.now() - begin <= 0.31 + harness.late, "claim: waits no longer than wait seconds"

    @asynchronous
    async def test_no_wait_is_none(self, harness: Harness) -> None:
        broker = await harness.open_broker()
        begin = time.monotonic()
        for _ in range(20):
            assert list(await broker.claim(["q"], limit=5, wait=0.0)) == []
        assert time.monotonic() - begin <= harness.late, "claim: returns at once without wait"

    @asynchronous
    async def test_what_is_there_ends_the_wait(self, harness: Harness) -> None:
        broker = await harness.open_broker()
        await broker.publish([message("a")])
        async with asyncio.timeout(harness.late * 3):
            assert ids(await broker.claim(["q"], limit=5, wait=_LONG)) == ["a"], "claim: waits only with nothing there"

    @pytest.mark.parametrize("which", ["same broker", "other broker", "second queue", "low priority", "batch"])
    @asynchronous
    async def test_woken_by_a_publish(self, harness: Harness, which: str) -> None:
        broker = await harness.open_broker()
        other = broker if which == "same broker" else await harness.open_broker()
        waiting = asyncio.ensure_future(broker.claim(["q", "second"], limit=5, wait=_LONG))
        await harness.elapse(0.1)
        queue = "second" if which == "second queue" else "q"
        sent = [message("a", queue, priority=9 if which == "low priority" else 0)]
        sent += messages("b", "c") if which == "batch" else []
        await other.publish(sent)
        async with asyncio.timeout(harness.late * 3):
            taken = [*await waiting, *await take(broker)]
        assert ids(taken) == [each.id for each in sent], "claim: a waiting one is woken by a publish"

    @asynchronous
    async def test_woken_by_a_release(self, harness: Harness) -> None:
        broker, other = await harness.open_broker(), await harness.open_broker()
        await other.publish([message("a")])
        delivery = await only(other)
        waiting = asyncio.ensure_future(broker.claim(["q"], limit=5, wait=_LONG))
        await harness.elapse(0.1)
        await other.settle([Release(delivery)])
        async with asyncio.timeout(harness.late * 3):
            assert ids(await waiting) == ["a"], "claim: a waiting one is woken by a release"

    @asynchronous
    async def test_woken_by_a_restored_lease(self, harness: Harness) -> None:
        broker, gone = await harness.open_broker(), await harness.open_broker(lease=harness.lease)
        await gone.publish([message("a")])
        await only(gone)
        waiting = asyncio.ensure_future(broker.claim(["q"], limit=5, wait=_LONG))
        await harness.lapse(harness.lease * 1.2)
        await broker.maintain()
        async with asyncio.timeout(harness.late * 3):
            assert ids(await waiting) == ["a"], "claim: a waiting one is woken by a restore"

    @asynchronous
    async def test_woken_from_a_thread(self, harness: Harness) -> None:
        broker, publisher = await harness.open_broker(), harness.publisher()
        waiting = asyncio.ensure_future(broker.claim(["q"], limit=5, wait=_LONG))
        await harness.elapse(0.1)
        await asyncio.to_thread(publisher.publish, [message("a")], timeout=5.0)
        publisher.close()
        async with asyncio.timeout(harness.late * 3):
            assert ids(await waiting) == ["a"], "claim: a waiting one is woken from another thread"

    @asynchronous
    async def test_woken_from_a_process(self, harness: Harness) -> None:
        if not harness.between_processes:
            harness.cannot("be reached from another process")
        broker = await harness.open_broker()
        waiting = asyncio.ensure_future(broker.claim(["q"], limit=5, wait=_LONG))
        await harness.elapse(0.1)
        pid = child(lambda: harness.publisher().publish([message("a")], timeout=5.0))
        async with asyncio.timeout(harness.late * 11):
            assert ids(await waiting) == ["a"], "claim: a waiting one is woken from another process"
        assert await asyncio.to_thread(ended, pid) == 0

    @asynchronous
    async def test_all_that_wait_are_served(self, harness: Harness) -> None:
        brokers = [await harness.open_broker() for _ in range(3)]
        waiting = [asyncio.ensure_future(each.claim(["q"], limit=1, wait=_LONG)) for each in brokers * 4]
        await harness.elapse(0.1)
        await brokers[0].publish(messages(*(f"id-{number}" for number in range(12))))
        async with asyncio.timeout(harness.late * 7):
            taken = [each for batch in await asyncio.gather(*waiting) for each in batch]
        assert len(set(ids(taken))) == 12, "claim: as many are woken as there are messages"

    @asynchronous
    async def test_a_cancelled_waiter_takes_nothing_along(self, harness: Harness) -> None:
        broker, other = await harness.open_broker(), await harness.open_broker()
        waiting = asyncio.ensure_future(broker.claim(["q"], limit=5, wait=_LONG))
        await harness.elapse(0.05)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        await other.publish([message("a")])
        await harness.elapse(0.05)
        assert ids(await take(other)) == ["a"], "claim: a cancelled one takes nothing"
        await broker.publish([message("b")])
        assert ids(await take(broker)) == ["b"], "claim: works after a cancelled one"

    @asynchronous
    async def test_cancelling_in_the_middle_loses_nothing(self, harness: Harness) -> None:
        broker, other = await harness.open_broker(lease=harness.lease), await harness.open_broker(lease=harness.lease)
        got: list[Delivery] = []
        names = [f"id-{number}" for number in range(40)]
        for number, name in enumerate(names):
            waiting = asyncio.ensure_future(broker.claim(["q"], limit=5, wait=_LONG))
            await asyncio.sleep(0)
            publishing = asyncio.ensure_future(other.publish([message(name)]))
            for _ in range(number % 8):
                await asyncio.sleep(0)
            if number % 2:
                await publishing
            waiting.cancel()
            (end,) = await asyncio.gather(waiting, return_exceptions=True)
            got += [] if isinstance(end, BaseException) else end
            await publishing
        held = set(ids(got))
        await broker.depth(["q"])  # answered behind whatever the cancelled ones asked for
        await harness.lapse(harness.lease * 1.2)
        await other.extend(got)
        await other.maintain()
        again = ids(await take(other))
        assert sorted([*held, *again]) == sorted(names), (
            "claim: cancelling a waiting one loses nothing, doubles nothing"
        )

    @asynchronous
    async def test_what_a_cancelled_claim_took_goes_back_when_no_other_follows(self, harness: Harness) -> None:
        broker, other = await harness.open_broker(), await harness.open_broker()
        for turns in range(6):
            await other.publish([message(f"id-{turns}")])
            claiming = asyncio.ensure_future(broker.claim(["q"], limit=1, wait=_LONG))
            for _ in range(turns):
                await asyncio.sleep(0)
            claiming.cancel()
            (end,) = await asyncio.gather(claiming, return_exceptions=True)
            if isinstance(end, BaseException):
                taken = await other.claim(["q"], limit=1, wait=_LONG)
                assert ids(taken) == [f"id-{turns}"], "claim: what a cancelled one took goes back soon"

    @asynchronous
    async def test_a_claim_after_an_empty_one_misses_nothing(self, harness: Harness) -> None:
        broker, publisher = await harness.open_broker(), harness.publisher()
        names = [f"id-{number}" for number in range(200)]
        taken: list[str] = []

        def produce() -> None:
            for name in names:
                publisher.publish([message(name)], timeout=5.0)

        producing = Background(produce)
        async with asyncio.timeout(45):
            while len(taken) < len(names):
                batch = await broker.claim(["q"], limit=1, wait=_LONG)
                taken += ids(batch)
        producing.join()
        publisher.close()
        assert taken == names, "claim: no publish between two claims is missed"
