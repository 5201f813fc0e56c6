"""The agent's side of the number of children: what it sees in the slots and the queues, and what it tells."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

import pytest

from celeriac.model.autoscale import Bounds
from celeriac.ports import Depth
from celeriac.testing.clock import VirtualClock
from celeriac.worker.autoscale import Autoscale
from celeriac.worker.memory import NodeMemory
from celeriac.worker.slot import LEFT, READY, STANDBY, TERMINATED, Slots
from tests.unit.worker.fakes import FakeBroker


class Queues(FakeBroker):
    """So many messages are ready."""

    ready, oldest, asked = 0, None, 0
    looked: list[list[str]]

    def __init__(self) -> None:
        super().__init__()
        self.looked = []

    async def depth(self, queues: Sequence[str]) -> Mapping[str, Depth]:
        self.asked += 1
        self.looked.append(list(queues))
        self.faults.meet("depth")
        return {name: Depth(ready=self.ready, oldest=self.oldest) for name in queues}


class Bench:
    def __init__(self, bounds: Bounds | None = None, wanted: int = 2) -> None:
        self.slots, self.kicks = Slots(41), 0
        self.memory = NodeMemory(self.slots, self._kick, 20)
        self.slots.words.wanted = wanted
        self.clock, self.broker = VirtualClock(), Queues()
        self.made = self.again(bounds)

    def again(self, bounds: Bounds | None) -> Autoscale:
        """Another one for the same node, as a new agent makes it."""
        return Autoscale(
            self.broker,  # type: ignore[arg-type]
            self.memory,
            self.clock,
            bounds=bounds,
            queues=lambda: ["celery"],
            buried=lambda: 0,
        )

    def _kick(self) -> None:
        self.kicks += 1

    def children(self, count: int, *, held: int = 0, state: int = READY) -> None:
        for index in range(1, count + 1):
            self.slots[index].live(1000 + index, state)
            self.slots[index].pulse(1.0, 5, held, True)

    def live(self, seconds: float) -> None:
        async def main() -> None:
            running = asyncio.create_task(self.made.run())
            await asyncio.sleep(0)
            await self.clock.advance(seconds)
            running.cancel()

        asyncio.run(main())


def test_it_grows_while_all_are_busy_and_tasks_wait() -> None:
    bench = Bench(Bounds(most=4, fewest=2))
    bench.children(2, held=1)
    bench.broker.ready = 10
    bench.live(3.0)
    assert (bench.slots.words.wanted, bench.kicks) == (4, 1)


def test_those_that_stand_by_or_have_left_are_no_children() -> None:
    bench = Bench(Bounds(most=4, fewest=2))
    bench.children(2, held=1)
    for index, state in ((3, STANDBY), (4, LEFT)):
        bench.slots[index].live(7, state)
    bench.broker.ready = 10
    bench.live(3.0)
    assert bench.slots.words.wanted == 4, "they are not idle children"


def test_it_shrinks_after_the_keepalive() -> None:
    bench = Bench(Bounds(most=9, fewest=1, keepalive=5.0), wanted=4)
    bench.children(4)
    bench.live(12.0)
    assert bench.slots.words.wanted == 1


def test_without_bounds_nobody_is_asked() -> None:
    bench = Bench()
    bench.children(2, held=1)
    bench.broker.ready = 10
    bench.live(60.0)
    assert (bench.broker.asked, bench.slots.words.wanted, bench.kicks) == (0, 2, 0)


def test_an_outage_changes_nothing() -> None:
    bench = Bench(Bounds(most=4, fewest=2))
    bench.children(2, held=1)
    bench.broker.ready = 10
    bench.broker.faults.away("depth", 1000)
    bench.live(5.0)
    assert bench.slots.words.wanted == 2


def test_by_hand() -> None:
    bench = Bench()
    assert bench.made.grow(3) == 5
    assert bench.made.shrink(4) == 1
    assert (bench.made.bounds, bench.kicks) == (None, 2)
    with pytest.raises(ValueError, match="a pool of 0 children cannot be: it has 1 to 20"):
        bench.made.shrink(1)
    with pytest.raises(ValueError, match="a pool of 101 children"):
        bench.made.grow(100)


def test_by_hand_beyond_the_bounds_moves_them() -> None:
    bench = Bench(Bounds(most=4, fewest=2))
    bench.made.grow(4)
    assert bench.made.bounds is not None
    assert (bench.made.bounds.most, bench.made.bounds.fewest) == (6, 2)
    bench.made.shrink(5)
    assert (bench.made.bounds.most, bench.made.bounds.fewest, bench.made.wanted) == (6, 1, 1)


def test_new_bounds_hold_at_once() -> None:
    bench = Bench()
    bench.made.bound(8, 5)
    assert bench.made.wanted == 5
    bench.made.bound(3, 0)
    assert bench.made.wanted == 3
    for most, fewest in ((0, 0), (2, 3), (5, -1), (21, 1)):
        with pytest.raises(ValueError, match="give MAX from 1 to 20 and MIN up to MAX"):
            bench.made.bound(most, fewest)


@pytest.mark.parametrize("before", [None, Bounds(most=2, fewest=2, keepalive=5.0)])
def test_bounds_by_hand_outlive_the_agent(before: Bounds | None) -> None:
    bench = Bench(before)
    made = [bench.made, bench.again(before)]
    assert made[1].bounds == before
    made[0].bound(8, 5)
    assert bench.again(before).bounds == made[0].bounds
    made[0].grow(10)
    assert bench.again(before).bounds == made[0].bounds
    assert made[0].bounds is not None
    assert (made[0].bounds.most, made[0].bounds.fewest) == (15, 5)
    assert bench.again(before).wanted == 15


# -- what else the memory says -------------------------------------------------------------------------------------


def test_why_a_node_is_not_ready() -> None:
    bench = Bench()
    assert bench.memory.unready() == "none of its children has come up"
    bench.children(2)
    assert bench.memory.unready() == ""
    for index in (1, 2):
        bench.slots[index].pulse(2.0, 5, 0, False)
    assert bench.memory.unready() == "its children cannot reach the broker"
    bench.slots[1].pulse(3.0, 5, 0, True)
    assert bench.memory.unready() == ""
    bench.slots.words.failing = 4
    assert bench.memory.unready() == "its children die as they start, 4 times in a row"


def test_a_pool_that_is_empty_on_purpose_is_ready() -> None:
    assert Bench(wanted=0).memory.unready() == ""


def test_who_is_ended_on_request_is_marked() -> None:
    bench = Bench()
    bench.children(2)
    bench.memory.terminated(1002)
    bench.memory.terminated(99)
    assert [bench.slots[index].order for index in (1, 2)] == [0, TERMINATED]
