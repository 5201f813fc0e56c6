"""How much is claimed: by run time, within bounds, and nothing that could not start here."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import pytest

from celeriac.model.message import Delivery, Marks
from celeriac.worker.appetite import CLAIM_LIMIT
from celeriac.worker.fetcher import STALL
from tests.unit.worker.bench import FetcherBench
from tests.unit.worker.fakes import delivery


def admit(bench: FetcherBench, batch: Sequence[Delivery]) -> None:
    asyncio.run(bench.fetcher.admit(batch))


def hold(bench: FetcherBench, count: int) -> None:
    for _ in range(count):
        each = delivery()
        bench.fetcher.held[each.token] = each


def test_nothing_known_one_for_each_slot() -> None:
    assert FetcherBench().fetcher.appetite.room() == 1
    assert FetcherBench(sync=4).fetcher.appetite.room() == 4


@pytest.mark.parametrize(
    ("runtime", "room"),
    [(10.0, 1), (0.0051, 1), (0.005, 2), (0.001, 6), (0.0005, 11), (0.000001, CLAIM_LIMIT)],
)
def test_as_many_as_fit_the_target(runtime: float, room: int) -> None:
    bench = FetcherBench(claim_target=0.005)
    bench.runner.runtimes["t"] = runtime
    first = delivery()
    admit(bench, [first])
    bench.sync.recall()
    bench.settled([first])
    assert bench.fetcher.appetite.room() == room


def test_half_a_target_at_a_time() -> None:
    bench = FetcherBench(claim_target=0.005)
    bench.fetcher.appetite.average = 0.0005  # a target of 11
    rooms = []
    for _ in range(12):
        rooms.append(bench.fetcher.appetite.room())
        hold(bench, 1)
    assert rooms[:6] == [11, 10, 9, 8, 7, 6]
    assert rooms[7:] == [0] * 5


def test_a_free_slot_never_waits() -> None:
    bench = FetcherBench(sync=10)
    hold(bench, 9)
    assert bench.fetcher.appetite.room() == 1
    hold(bench, 1)
    assert bench.fetcher.appetite.room() == 0


def test_the_target_is_the_mean_of_what_came() -> None:
    bench = FetcherBench()
    bench.runner.runtimes = {"t": 0.001}
    admit(bench, [delivery(), delivery("co")])  # co is not known yet
    assert bench.fetcher.appetite.average == pytest.approx(0.001)
    bench.runner.runtimes = {"t": 0.003}
    admit(bench, [delivery()])
    assert bench.fetcher.appetite.average == pytest.approx(0.002)


def test_the_prefetch_limit_is_a_bound_but_never_idles_a_slot() -> None:
    bench = FetcherBench(prefetch_limit=4)
    bench.fetcher.appetite.average = 0.00001
    assert bench.fetcher.appetite.room() == 4
    hold(bench, 2)
    assert bench.fetcher.appetite.room() == 2
    hold(bench, 2)
    assert bench.fetcher.appetite.room() == 0
    assert FetcherBench(prefetch_limit=1, sync=3).fetcher.appetite.room() == 3


def test_no_more_than_the_child_may_still_run() -> None:
    bench = FetcherBench(max_tasks_per_child=10)
    bench.fetcher.appetite.average = 0.00001
    assert bench.fetcher.appetite.room() == 10
    bench.runner.count = 6
    hold(bench, 3)
    assert bench.fetcher.appetite.room() == 1
    hold(bench, 1)
    assert bench.fetcher.appetite.room() <= 0


def test_a_suspect_waits_until_nothing_is_held_then_one_is_claimed() -> None:
    bench = FetcherBench(sync=8)
    innocent, suspect = delivery(), delivery(marks=Marks(suspect=True))
    admit(bench, [innocent, suspect])
    assert bench.fetcher.appetite.room() == 0
    bench.settled([suspect])
    assert bench.fetcher.appetite.room() == 0
    bench.settled([innocent])
    assert bench.fetcher.appetite.room() == 1
    admit(bench, [suspect])
    assert bench.fetcher.appetite.room() == 0
    bench.settled([suspect])
    assert bench.fetcher.appetite.room() == 1
    ordinary = delivery()
    admit(bench, [ordinary])
    assert bench.fetcher.appetite.room() == 7


def stalled(bench: FetcherBench, waiting: int = 0) -> list[Delivery]:
    """A bench whose only slot runs a long task; ``waiting`` more were claimed behind it."""
    batch = [delivery() for _ in range(1 + waiting)]
    admit(bench, batch)
    bench.sync.start(1, time.monotonic() - 2 * STALL)
    bench.fetcher.relieve(time.monotonic())
    return batch


def test_a_stalled_child_claims_nothing() -> None:
    bench = FetcherBench()
    bench.fetcher.appetite.average = 0.00001
    stalled(bench)
    assert bench.fetcher.appetite.room() == 0


def test_what_it_gave_back_does_not_end_the_stall() -> None:
    bench = FetcherBench()
    bench.fetcher.appetite.average = 0.00001
    running, *behind = stalled(bench, waiting=3)
    bench.settled(behind)
    assert bench.fetcher.appetite.room() == 0
    bench.sync.finish()
    bench.settled([running])
    assert bench.fetcher.appetite.room() == CLAIM_LIMIT


def test_the_stall_ends_with_the_long_task_whatever_is_still_held() -> None:
    bench = FetcherBench()
    bench.fetcher.appetite.average = 0.00001
    stalled(bench)
    hold(bench, 1)  # somebody else's
    bench.sync.finish()
    bench.fetcher.relieve(time.monotonic())
    assert bench.fetcher.appetite.room() > 0


def test_one_free_thread_is_no_stall() -> None:
    bench = FetcherBench(sync=2)
    admit(bench, [delivery(), delivery()])
    bench.sync.start(1, time.monotonic() - 2 * STALL)
    bench.fetcher.relieve(time.monotonic())
    assert bench.sync.waiting() == 1
    assert bench.concluded == []


def test_one_short_task_is_no_stall() -> None:
    bench = FetcherBench(sync=2)
    admit(bench, [delivery(), delivery()])
    now = time.monotonic()
    bench.sync.start(1, now - 2 * STALL)
    bench.sync.start(1, now)
    bench.fetcher.relieve(now)
    assert bench.fetcher.appetite.stalled is False


def test_coroutines_widen_the_claim_by_their_share() -> None:
    bench = FetcherBench()
    only = [delivery("co") for _ in range(4)]
    admit(bench, only)
    bench.coroutines.inbox.clear()
    bench.settled(only)
    assert 1 < bench.fetcher.appetite.room() < 100
    for _ in range(10):
        more = [delivery("co")]
        admit(bench, more)
        bench.settled(more)
    assert bench.fetcher.appetite.room() == 100
    for _ in range(10):
        more = [delivery("t")]
        admit(bench, more)
        bench.settled(more)
    assert bench.fetcher.appetite.room() == 1


def test_a_stalled_child_still_claims_for_its_coroutines() -> None:
    bench = FetcherBench(coroutines=3)
    admit(bench, [delivery("co"), delivery("t")])
    bench.coroutines.start(1, time.monotonic())
    bench.sync.start(1, time.monotonic() - 2 * STALL)
    bench.fetcher.relieve(time.monotonic())
    assert bench.fetcher.appetite.room() == 2


def test_nothing_is_claimed_without_queues_or_room() -> None:
    async def main() -> None:
        bench = FetcherBench()
        bench.fetcher.queues.clear()
        running = asyncio.create_task(bench.fetcher.run())
        for _ in range(5):
            await asyncio.sleep(0)
        assert bench.broker.log == []
        bench.fetcher.stop()
        await asyncio.wait_for(running, 30)

    asyncio.run(main())
