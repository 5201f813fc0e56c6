"""Conformance: random histories, compared step by step with a model. Needs Hypothesis; skipped without it.

Time is cut into slots of ten units. Things become due, and leases run out, in the middle of a slot; steps are taken
at its beginning. A machine too slow for that gives the history up, also in the middle of a step.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence
from typing import Any

import pytest

from celeriac.model.message import Delivery, Marks
from celeriac.model.settle import Accept, Completion, DeadLetter, DeadReason, Release, Settlement, Verdict
from celeriac.ports import Broker, Unified
from celeriac.testing.conformance.harness import Harness
from celeriac.testing.conformance.model import Entry, Model
from celeriac.testing.conformance.results import record
from celeriac.testing.conformance.tools import message

__all__ = ["Histories"]

_SLOT = 10.0
_LEASE = 25.0
#: Into the slot; steps beyond that may meet things that happen in its middle.
_BEGINNING = 4.0
_numbers = itertools.count()

Step = tuple[Any, ...]


class Histories:
    """Any sequence of calls behaves as the model does."""

    def test_random_histories(self, harness: Harness) -> None:
        hypothesis = pytest.importorskip("hypothesis")
        phases = [hypothesis.Phase.generate, *([hypothesis.Phase.shrink] if harness.shrinks else [])]
        settings = hypothesis.settings(
            phases=phases,
            max_examples=harness.examples,
            deadline=None,
            database=None,
            suppress_health_check=list(hypothesis.HealthCheck),
        )

        def play(steps: Sequence[Step]) -> None:
            asyncio.run(_play(harness, steps))

        settings(hypothesis.given(_histories(hypothesis.strategies))(play))()


def _histories(st: Any) -> Any:
    queues, any_one = st.sampled_from(["a", "b"]), st.integers(0, 50)
    dues = st.sampled_from([None, None, None, -5.0, 5.0, 15.0, 35.0])
    orders = st.sampled_from([("a", "b"), ("b", "a"), ("b",)])
    kinds = st.sampled_from(["accept", "front", "back", "due", "marks", "dead"])
    worker = st.integers(0, 1)
    steps = [
        st.tuples(st.just("publish"), queues, st.sampled_from([0, 2, 3, 9]), dues, st.integers(1, 3)),
        st.tuples(st.just("claim"), worker, orders, st.integers(1, 4)),
        st.tuples(st.just("settle"), worker, st.lists(st.tuples(any_one, kinds), min_size=1, max_size=3)),
        st.tuples(st.just("finish"), worker, any_one, kinds, dues),
        st.tuples(st.just("extend"), worker, any_one),
        st.tuples(st.just("elapse"), st.integers(1, 3)),
        st.tuples(st.just("maintain"), worker),
        st.tuples(st.just("purge"), queues),
        st.tuples(st.just("orphans"), worker),
    ]
    # Twice what makes histories long enough to be interesting.
    return st.lists(st.one_of(*steps, steps[0], steps[1], steps[1]), min_size=1, max_size=30)


async def _play(harness: Harness, steps: Sequence[Step]) -> None:
    player = _Player(harness)
    try:
        await player.begin()
        for step in [*steps, ("elapse", 6), ("maintain", 0), ("claim", 0, ("a", "b"), 200), ("settle all",)]:
            if player.is_late():
                break
            try:
                await player.take(step)
            except AssertionError:
                if player.is_late():  # who knows on which side of the slot's middle the server took it
                    break
                raise
        await player.clear()
    finally:
        await harness.close_all()


class _Player:
    """Takes each step twice, on the adapter and on the model."""

    def __init__(self, harness: Harness) -> None:
        self.harness = harness
        self.unit = harness.unit
        self.model = Model()
        self.name = f"history-{next(_numbers)}"
        self.history: list[Delivery] = []
        self.results: dict[str, bytes] = {}
        self.slot = 0

    async def begin(self) -> None:
        lease = _LEASE * self.unit
        self.owners = [f"{self.name}-{number}" for number in range(2)]
        self.brokers: list[Broker] = [await self.harness.open_broker(owner=owner, lease=lease) for owner in self.owners]
        self.store = await self.harness.open_store()
        self.start = self.harness.now()

    def is_late(self) -> bool:
        return self._offset() > _BEGINNING * self.unit

    def _offset(self) -> float:
        return self.harness.now() - self.start - self.slot * _SLOT * self.unit

    async def take(self, step: Step) -> None:
        kind, *arguments = step
        await getattr(self, kind.replace(" ", "_"))(*arguments)
        depth = await self.brokers[0].depth([self._queue("a"), self._queue("b")])
        for queue, each in depth.items():
            got = each.ready + each.scheduled, each.leased, each.dead
            assert got == self.model.counts(queue), f"depth: ready + scheduled, leased, dead after {step}"

    async def clear(self) -> None:
        """Leave nothing behind for the next history."""
        await self.brokers[0].settle([Accept(each) for each in self.history])
        for queue in ("a", "b"):
            await self.brokers[0].purge(self._queue(queue))

    def _queue(self, name: str) -> str:
        return f"{self.name}-{name}"

    def _due(self, offset: float | None) -> float | None:
        if offset is None:
            return None
        return round(self.start + (self.slot * _SLOT + offset) * self.unit, 6)

    def _pick(self, index: int) -> Delivery:
        return self.history[index % len(self.history)]

    # -- steps -------------------------------------------------------------------------------------------------------

    async def publish(self, queue: str, priority: int, offset: float | None, count: int) -> None:
        due = self._due(offset)
        sent = [self._message(queue, priority, due) for _ in range(count)]
        for each in sent:
            self.model.publish(Entry(each.id, each.queue, priority // 3, due), self.harness.now())
        await self.brokers[0].publish(sent)

    def _message(self, queue: str, priority: int, due: float | None) -> Any:
        return message(f"{self.name}-{next(_numbers)}", self._queue(queue), priority=priority, due=due)

    async def claim(self, worker: int, queues: Sequence[str], limit: int) -> None:
        names = [self._queue(each) for each in queues]
        now = self.harness.now()
        taken = await self.brokers[worker].claim(names, limit=limit, wait=0.0)
        lease = _LEASE * self.unit
        self.model.claim(taken, names, limit, owner=self.owners[worker], now=now, lease=lease)
        self.history += taken

    def _settlement(self, delivery: Delivery, kind: str) -> Settlement:
        ways: dict[str, Settlement] = {
            "accept": Accept(delivery),
            "front": Release(delivery),
            "back": Release(delivery, back=True),
            "due": Release(delivery, due=self._due(15.0)),
            "marks": Release(delivery, marks=Marks(crashes=1, suspect=True)),
            "dead": DeadLetter(delivery=delivery, reason=DeadReason.FAILED, at=self.harness.now()),
        }
        return ways[kind]

    async def settle(self, worker: int, picks: Sequence[tuple[int, str]]) -> None:
        if self.history:
            settlements = [self._settlement(self._pick(index), kind) for index, kind in picks]
            refused = self.model.settle(settlements, self.harness.now())
            assert list(await self.brokers[worker].settle(settlements)) == refused, "settle: refuses what is not held"

    async def settle_all(self) -> None:
        settlements: list[Settlement] = [Accept(each) for each in self.history]
        refused = self.model.settle(settlements, self.harness.now())
        assert list(await self.brokers[0].settle(settlements)) == refused, "settle: refuses what is not held"

    async def finish(self, worker: int, index: int, kind: str, offset: float | None) -> None:
        broker = self.brokers[worker]
        if not self.history or not isinstance(broker, Unified):
            return
        settlement = self._settlement(self._pick(index), kind)
        due = self._due(offset)
        sent = self._message("b", 0, due)
        task_id = settlement.delivery.message.id
        result = record(task_id, result=sent.id)
        done = Completion(settlement=settlement, publish=[sent], result=result)
        is_held = settlement.delivery.token in self.model.leases
        if is_held:
            self.model.publish(Entry(sent.id, sent.queue, 0, due), self.harness.now())
            self.model.settle([settlement], self.harness.now())
            self.results[task_id] = result.body
        verdict = Verdict.DONE if is_held else Verdict.FENCED
        assert list(await broker.finish([done])) == [verdict], "finish: fenced when the token is gone, else done"
        assert list(await self.store.get([task_id])) == [self.results.get(task_id)], "finish: stores when done"

    async def extend(self, worker: int, index: int) -> None:
        if self.history:
            delivery = self._pick(index)
            is_held = self.model.extend(delivery.token, self.harness.now(), _LEASE * self.unit)
            lost = await self.brokers[worker].extend([delivery])
            assert list(lost) == ([] if is_held else [delivery]), "extend: returns what is lost"

    async def elapse(self, slots: int) -> None:
        self.slot += slots
        await self.harness.elapse(max(0.0, -self._offset()))

    async def maintain(self, worker: int) -> None:
        self.model.maintain(self.harness.now())
        await self.brokers[worker].maintain()

    async def purge(self, queue: str) -> None:
        count = self.model.purge(self._queue(queue))
        assert await self.brokers[0].purge(self._queue(queue)) == count, "purge: returns how many it dropped"

    async def orphans(self, worker: int) -> None:
        got = {each.token for each in await self.brokers[1 - worker].orphans(self.owners[worker])}
        held = {token for token, each in self.model.leases.items() if each.owner == self.owners[worker]}
        assert got == held, "orphans: exactly what an owner holds"
