"""The claiming loop: outages, interruptions, cancellation, turns of the queues."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence

import pytest

from celeriac.model.message import Delivery
from tests.unit.worker.bench import FetcherBench
from tests.unit.worker.fakes import delivery, until


async def for_ever(limit: int, wait: float) -> Sequence[Delivery]:
    await asyncio.Event().wait()
    raise AssertionError


def then(*batches: Sequence[Delivery]) -> Callable[[int, float], Awaitable[Sequence[Delivery]]]:
    """Claims that return these, and then wait for ever."""
    left = list(batches)

    async def claim(limit: int, wait: float) -> Sequence[Delivery]:
        return left.pop(0) if left else await for_ever(limit, wait)

    return claim


async def turns(count: int = 20) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def claims(bench: FetcherBench) -> int:
    return sum(name == "claim" for name, _ in bench.broker.log)


def loop(body: Callable[[FetcherBench, asyncio.Task[None]], Awaitable[None]], bench: FetcherBench) -> FetcherBench:
    """Run ``body`` beside the fetcher; then stop it, which must end it at once."""

    async def main() -> None:
        running = asyncio.create_task(bench.fetcher.run())
        await turns()
        await body(bench, running)
        bench.fetcher.stop()
        await asyncio.wait({running}, timeout=30)
        assert running.done()

    asyncio.run(main())
    return bench


async def nothing(bench: FetcherBench, running: asyncio.Task[None]) -> None:
    pass


def test_what_is_claimed_is_admitted() -> None:
    bench, one = FetcherBench(), delivery()
    bench.broker.claim_with = then([one])
    loop(nothing, bench)
    assert bench.sync.inbox == [one]
    assert bench.fetcher.connected


def test_stop_ends_a_waiting_claim() -> None:
    bench = FetcherBench()
    bench.broker.claim_with = for_ever
    loop(nothing, bench)
    assert claims(bench) == 1


def test_other_queues_begin_a_new_claim() -> None:
    bench = FetcherBench()
    bench.broker.claim_with = for_ever

    async def body(bench: FetcherBench, running: asyncio.Task[None]) -> None:
        bench.fetcher.queues[:] = ["other"]
        bench.fetcher.requeued()
        await turns()
        assert not running.done()

    loop(body, bench)
    assert [what[0] for _, what in bench.broker.log] == [["celery"], ["other"]]


def test_an_interrupted_claim_says_nothing_about_the_connection(caplog: pytest.LogCaptureFixture) -> None:
    bench = FetcherBench()
    bench.broker.claim_with = for_ever
    bench.broker.faults.away("claim")

    async def body(bench: FetcherBench, running: asyncio.Task[None]) -> None:
        bench.fetcher.requeued()
        await turns()

    loop(body, bench)
    assert not bench.fetcher.connected
    assert "is back" not in caplog.text


def test_a_real_cancellation_goes_through() -> None:
    bench = FetcherBench()
    bench.broker.claim_with = for_ever

    async def body(bench: FetcherBench, running: asyncio.Task[None]) -> None:
        running.cancel()
        await asyncio.wait({running}, timeout=30)
        assert running.cancelled()

    loop(body, bench)


def test_a_real_cancellation_goes_through_an_interruption_too() -> None:
    bench = FetcherBench()
    bench.broker.claim_with = for_ever

    async def body(bench: FetcherBench, running: asyncio.Task[None]) -> None:
        bench.fetcher.requeued()
        running.cancel()
        await asyncio.wait({running}, timeout=30)
        assert running.cancelled()

    loop(body, bench)


def test_a_claim_that_came_in_that_moment_is_not_lost() -> None:
    """The adapter had its answer already: the cancellation comes too late, and what it took is admitted."""
    bench, one = FetcherBench(), delivery()

    async def stubborn(limit: int, wait: float) -> Sequence[Delivery]:
        try:
            return await for_ever(limit, wait)
        except asyncio.CancelledError:
            return [one]

    bench.broker.claim_with = stubborn
    loop(nothing, bench)
    assert list(bench.fetcher.held) == [one.token]
    assert [each.settlement.delivery for each in bench.concluded] == [one]


def test_an_outage_is_told_and_its_end(caplog: pytest.LogCaptureFixture) -> None:
    bench = FetcherBench()
    bench.broker.faults.away("claim", 3)
    bench.broker.claim_with = then([delivery()])
    with caplog.at_level(logging.WARNING):
        loop(nothing, bench)
    messages = [record.getMessage() for record in caplog.records]
    assert messages.count("Cannot reach the broker, next try in 0.00 s: away") == 2  # the 1st, the 2nd, not the 3rd
    assert messages[-1] == "The broker is back after 3 failed tries"
    assert bench.fetcher._backoff.failures == 0


def test_that_an_outage_is_over_is_known_at_once() -> None:
    bench = FetcherBench()
    waits: list[float] = []

    async def claim(limit: int, wait: float) -> Sequence[Delivery]:
        waits.append(wait)
        return [] if not wait else await for_ever(limit, wait)

    bench.broker.faults.away("claim", 3)
    bench.broker.claim_with = claim
    loop(nothing, bench)
    assert waits == [0.0, bench.fetcher.wait]
    assert bench.fetcher.connected


def test_an_outage_shows_as_not_connected() -> None:
    bench = FetcherBench()
    bench.broker.faults.plan("claim", None)
    bench.broker.faults.away("claim", 10_000)
    bench.broker.claim_with = then([])
    loop(nothing, bench)
    assert not bench.fetcher.connected


def test_any_other_error_is_not_swallowed() -> None:
    bench = FetcherBench()
    bench.broker.faults.plan("claim", ZeroDivisionError())

    async def main() -> None:
        await bench.fetcher.run()

    with pytest.raises(ZeroDivisionError):
        asyncio.run(main())


def test_each_queue_gets_its_turn() -> None:
    bench = FetcherBench(queues=("a", "b", "c"), sync=10)
    bench.broker.claim_with = then(*[[delivery() for _ in range(1)] for _ in range(3)])

    async def body(bench: FetcherBench, running: asyncio.Task[None]) -> None:
        while claims(bench) < 4:
            bench.fetcher.changed()
            await asyncio.sleep(0)

    loop(body, bench)
    assert [what[0][0] for name, what in bench.broker.log if name == "claim"] == ["a", "b", "c", "a"]


def test_the_lease_counts_from_before_the_claim() -> None:
    bench = FetcherBench(lease=30.0)
    before = time.monotonic()
    bench.broker.claim_with = then([delivery()])
    loop(nothing, bench)
    (claimed,) = bench.claimed
    assert before <= claimed <= time.monotonic()


@pytest.mark.parametrize(("lease", "wait"), [(30.0, 10.0), (300.0, 10.0), (3.0, 1.0)])
def test_a_claim_does_not_wait_its_lease_away(lease: float, wait: float) -> None:
    bench = FetcherBench(lease=lease)
    bench.broker.claim_with = for_ever
    loop(nothing, bench)
    assert bench.broker.log == [("claim", (["celery"], 1, wait))]


def test_it_sleeps_until_something_ends() -> None:
    bench, one = FetcherBench(), delivery()
    bench.broker.claim_with = then([one])

    async def body(bench: FetcherBench, running: asyncio.Task[None]) -> None:
        await turns()
        await until(lambda: claims(bench) >= 1)
        assert claims(bench) == 1
        bench.settled([one])
        await until(lambda: claims(bench) >= 2)

    loop(body, bench)
