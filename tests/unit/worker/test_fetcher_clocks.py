"""A fetcher whose clock is wrong: the broker's counts, and nothing is claimed a thousand times a second."""

from __future__ import annotations

import asyncio
import time

from celeriac.model.message import Delivery
from celeriac.model.settle import Release
from tests.unit.worker.bench import FetcherBench
from tests.unit.worker.fakes import delivery


def again(each: Delivery) -> Delivery:
    """The same message, claimed once more."""
    return Delivery(message=each.message, token=f"{each.token}-again", queue=each.queue)


def test_what_comes_back_at_once_is_due_by_the_brokers_clock() -> None:
    bench, early = FetcherBench(), delivery(due=time.time() + 3600)
    asyncio.run(bench.fetcher.admit([early]))
    assert [type(each.settlement) for each in bench.concluded] == [Release]
    assert bench.sync.inbox == []
    back = again(early)
    asyncio.run(bench.fetcher.admit([back]))
    assert bench.sync.inbox == [back]


def test_another_due_time_of_the_same_task_is_another_matter() -> None:
    bench = FetcherBench()
    for due in (time.time() + 60, time.time() + 120):
        asyncio.run(bench.fetcher.admit([delivery(id="x", due=due)]))
    assert len(bench.concluded) == 2
    assert bench.sync.inbox == []


def test_claims_that_bring_again_what_went_back_are_counted() -> None:
    bench, unknown = FetcherBench(), delivery("nobody.knows")
    for _ in range(3):
        asyncio.run(bench.fetcher.admit([unknown]))
    assert bench.fetcher._fruitless.count == 2
    asyncio.run(bench.fetcher.admit([unknown, delivery()]))
    assert bench.fetcher._fruitless.count == 0


def test_what_goes_back_for_the_first_time_is_claimed_at_full_speed() -> None:
    bench = FetcherBench()
    for _ in range(20):
        asyncio.run(bench.fetcher.admit([delivery(due=time.time() + 3600) for _ in range(64)]))
    assert bench.fetcher._fruitless.pause == 0


def test_tasks_that_take_no_time_are_claimed_far_ahead() -> None:
    bench = FetcherBench(sync=1)
    bench.fetcher.appetite.average = 1e-320
    assert bench.fetcher.appetite.room() == 256  # CLAIM_LIMIT
