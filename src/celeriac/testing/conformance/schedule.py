"""Conformance: due times. Never early, a little late at most, in order."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Sequence

import pytest

from celeriac.model.message import Delivery
from celeriac.model.settle import Release
from celeriac.ports import Timekeeper
from celeriac.testing.conformance.harness import Harness
from celeriac.testing.conformance.tools import asynchronous, ids, message, only, take, well_formed

__all__ = ["Schedule"]


class Schedule:
    """Messages and releases with a due time."""

    @asynchronous
    async def test_what_is_due_later_waits_on_the_schedule(self, harness: Harness) -> None:
        broker = await harness.open_broker()
        await broker.publish([message("later", due=harness.now() + harness.soon), message("now")])
        assert ids(await take(broker)) == ["now"], "claim: never early"
        await broker.maintain()
        depth = (await broker.depth(["q"]))["q"]
        assert (depth.ready, depth.scheduled) == (0, 1), "publish: a future due time goes to the schedule"
        await harness.lapse(harness.soon + 0.05)
        assert ids(await take(broker)) == ["later"], "claim: takes messages whose time has come from the schedule"

    @asynchronous
    async def test_whoever_asks_often_gets_nothing_early(self, harness: Harness) -> None:
        broker = await harness.open_broker()
        due = harness.now() + 0.1
        await broker.publish([message("a", due=due)])
        while not (taken := await broker.claim(["q"], limit=5, wait=0.0)):
            assert harness.now() <= due + harness.late, "claim: takes messages whose time has come from the schedule"
            await harness.elapse(0.007)
            await broker.maintain()
        assert harness.now() >= due - 1e-6, "claim, maintain: never early"
        assert ids(taken) == ["a"], "claim: takes messages whose time has come from the schedule"

    @asynchronous
    async def test_what_was_due_is_ready(self, harness: Harness) -> None:
        broker = await harness.open_broker()
        await broker.publish([message("past", due=harness.now() - 5), message("long ago", due=1.0)])
        assert ids(await take(broker)) == ["past", "long ago"], "publish: a past due time is none"

    @asynchronous
    async def test_the_earliest_first(self, harness: Harness) -> None:
        broker = await harness.open_broker()
        start = harness.now()
        dues = {"c": 0.15, "a": 0.05, "e": 0.25, "b": 0.1, "d": 0.2}
        await broker.publish([message(name, due=start + due) for name, due in dues.items()])
        await harness.elapse(0.3)
        assert ids(await take(broker)) == ["a", "b", "c", "d", "e"], "claim: the earliest due first"

    @asynchronous
    async def test_fractions_of_a_second_and_far_future(self, harness: Harness) -> None:
        broker = await harness.open_broker()
        now = harness.now()
        await broker.publish([message("far", due=now + 40 * 365 * 86400), message("near", due=now + 0.0375)])
        delivery = await _arrival(harness, broker.claim(["q"], limit=5, wait=2.0), seconds=0.0375)
        assert ids(delivery) == ["near"], "claim: waits for what becomes due"
        assert harness.now() >= now + 0.0375 - 1e-6, "claim: never early"

    @pytest.mark.parametrize("after", [0.05, 0.25])
    @asynchronous
    async def test_a_waiting_claim_gets_what_becomes_due(self, harness: Harness, after: float) -> None:
        broker = await harness.open_broker()
        due = harness.now() + after
        await broker.publish([message("a", due=due)])
        taken = await _arrival(harness, broker.claim(["q"], limit=5, wait=20.0), seconds=after)
        assert ids(taken) == ["a"], "claim: waits for what becomes due"
        late = harness.now() - due
        assert late >= -1e-6, "claim: never early"
        assert late <= harness.late, "claim: late by little"

    @asynchronous
    async def test_an_earlier_one_shortens_the_wait(self, harness: Harness) -> None:
        broker, other = await harness.open_broker(), await harness.open_broker()
        start = harness.now()
        await broker.publish([message("later", due=start + 5.0)])
        waiting = asyncio.ensure_future(broker.claim(["q"], limit=5, wait=20.0))
        await harness.elapse(0.05)
        due = harness.now() + 0.1
        await other.publish([message("sooner", due=due)])
        assert ids(await _arrival(harness, waiting, seconds=0.1)) == ["sooner"], "claim: waits for what becomes due"
        assert -1e-6 <= harness.now() - due <= harness.late, "claim: never early, late by little"

    @asynchronous
    async def test_maintain_makes_due_ones_ready(self, harness: Harness) -> None:
        broker = await harness.open_broker()
        due = harness.now() + 0.1
        await broker.publish([message(f"id-{number}", due=due) for number in range(5)])
        await harness.elapse(0.15)
        await broker.maintain()
        depth = (await broker.depth(["q"]))["q"]
        assert (depth.ready, depth.scheduled) == (5, 0), "maintain: due → ready"
        assert len(await take(broker)) == 5, "maintain: due → ready, once"

    @asynchronous
    async def test_many_due_at_one_instant_come_once(self, harness: Harness) -> None:
        brokers = [await harness.open_broker() for _ in range(3)]
        due = harness.now() + harness.soon
        await brokers[0].publish([message(f"id-{number}", due=due) for number in range(1500)])
        await harness.lapse(harness.soon + 0.05)
        taken, _, more = await asyncio.gather(take(brokers[0]), brokers[1].maintain(), take(brokers[2]))
        rest = await take(brokers[0], limit=2000)
        got = sorted(ids([*taken, *more, *rest]))
        assert got == sorted(f"id-{number}" for number in range(1500)), "claim, maintain: each due message once"

    @asynchronous
    async def test_priorities_hold_for_due_ones(self, harness: Harness) -> None:
        broker = await harness.open_broker()
        start = harness.now()
        await broker.publish([message("low", priority=9, due=start + 0.05), message("high", due=start + 0.1)])
        await harness.elapse(0.15)
        assert ids(await take(broker)) == ["high", "low"], "claim: the lower step first, from the schedule too"

    @asynchronous
    async def test_queues_have_schedules_of_their_own(self, harness: Harness) -> None:
        broker = await harness.open_broker()
        start = harness.now()
        await broker.publish([message("a", "qa", due=start + 0.05), message("b", "qb", due=start + 0.05)])
        await harness.elapse(0.1)
        assert ids(await take(broker, "qb")) == ["b"], "claim: due messages of the queues it names only"
        assert ids(await take(broker, "qa")) == ["a"], "claim: due messages of the queues it names only"

    @asynchronous
    async def test_release_with_due_waits(self, harness: Harness) -> None:
        broker = await harness.open_broker()
        await broker.publish([message("a", priority=3)])
        delivery = await only(broker)
        assert not await broker.settle([Release(delivery, due=harness.now() + harness.soon)]), "settle: a held token"
        assert await take(broker) == [], "release: with a due time to the schedule"
        depth = (await broker.depth(["q"]))["q"]
        assert (depth.ready, depth.scheduled, depth.leased) == (0, 1, 0), "release: with a due time to the schedule"
        await harness.lapse(harness.soon + 0.05)
        again = await only(broker)
        assert again.raw == delivery.raw, "release: without marks the stored bytes go back unchanged"
        assert again.token != delivery.token, "claim: a new lease has a new token"

    @asynchronous
    async def test_release_with_a_past_due_time_is_ready(self, harness: Harness) -> None:
        broker = await harness.open_broker()
        await broker.publish([message("a"), message("b")])
        delivery = (await broker.claim(["q"], limit=1, wait=0.0))[0]
        await broker.settle([Release(delivery, due=harness.now() - 1)])
        assert ids(await take(broker)) == ["a", "b"], "release: a past due time means ready, at the front"

    @asynchronous
    async def test_a_message_once_due_is_not_due_again(self, harness: Harness) -> None:
        broker = await harness.open_broker()
        await broker.publish([message("a", due=harness.now() + 0.05)])
        await harness.elapse(0.1)
        await broker.settle([Release(await only(broker))])
        assert ids(await take(broker)) == ["a"], "release: without due it is ready"

    @asynchronous
    async def test_a_publishers_due_message_never_runs_early_unnoticed(self, harness: Harness) -> None:
        broker, publisher = await harness.open_broker(), harness.publisher()
        due = harness.now() + harness.soon
        publisher.publish([message("a", due=due)], timeout=5.0)
        publisher.close()
        early = await take(broker)
        if harness.publisher_schedules:
            assert early == [], "publish: a future due time goes to the schedule"
        for delivery in early:
            assert well_formed(delivery).due == pytest.approx(due, abs=1e-3), "claim: whoever gets it early can see it"
            await broker.settle([Release(delivery, due=well_formed(delivery).due)])
            assert await take(broker) == [], "release: with a due time to the schedule"
        await harness.lapse(harness.soon + 0.05)
        assert ids(await take(broker)) == ["a"], "claim: takes messages whose time has come"

    @asynchronous
    async def test_now_is_the_servers_time(self, harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
        broker = await harness.open_broker()
        if not isinstance(broker, Timekeeper):
            return
        assert broker.now() == pytest.approx(time.time(), abs=5), "now: before the first claim the machine's time"
        await broker.publish([message("a")])
        await take(broker)
        before = broker.now()
        assert before == pytest.approx(time.time(), abs=5), "now: the server's time"
        monkeypatch.setattr(time, "time", lambda: before + 3600)
        assert broker.now() - before < 60, "now: carried on by the monotonic clock"
        await broker.publish([message("b", due=before + 60)])
        assert await take(broker) == [], "publish: what the server's time calls the future goes to the schedule"
        assert broker.now() - before < 60, "now: as of the last claim"


async def _arrival(harness: Harness, claim: Awaitable[Sequence[Delivery]], *, seconds: float) -> Sequence[Delivery]:
    """What a claim returns while ``seconds`` pass."""
    waiting = asyncio.ensure_future(claim)
    await harness.elapse(seconds + 0.001)  # dues are whole microseconds
    async with asyncio.timeout(harness.late * 5):
        return await waiting
