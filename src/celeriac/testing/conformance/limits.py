"""Conformance: limits across workers. Rates keep pace and order, seats are held by leases, nobody is forgotten."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from typing import Any

import pytest

from celeriac.exceptions import OperationalError
from celeriac.model.limits import GO, LOST, PARKED, SLACK, Ask, Permission, Permit, Rate, Seats
from celeriac.model.message import Delivery
from celeriac.model.rules import RuleChange
from celeriac.model.settle import Accept, Release
from celeriac.ports import Broker, Limiter
from celeriac.testing.conformance.harness import Harness
from celeriac.testing.conformance.rules import rules_of
from celeriac.testing.conformance.tools import accept, asynchronous, gathered, ids, message, messages, only, take

__all__ = ["Limits"]

_SEATS = Seats("task", 2)
_ONE = Seats("task", 1)


class Limits:
    """What may run now, and what becomes of the rest."""

    # -- rates -------------------------------------------------------------------------------------------------------

    @asynchronous
    async def test_a_rate_gives_each_its_time_in_order(self, harness: Harness) -> None:
        broker, limiter = await _limiter(harness)
        await broker.publish(messages("a", "b", "c", "d"))
        held, start = await take(broker), harness.now()
        permits = await limiter.permit([Ask(each, Rate("r", 100.0)) for each in held])
        assert permits[0] == GO, "permit: the first may start"
        assert [each.permission for each in permits[1:]] == [Permission.LATER] * 3, "permit: LATER for the others"
        dues = [each.due - start for each in permits[1:]]
        assert all(abs(due - 100.0 * n) < 1 + harness.late for n, due in enumerate(dues, 1)), (
            f"permit: one interval after the other, got {dues}"
        )
        assert not await broker.extend(held), "permit: LATER leaves the delivery leased"
        more = await only_of(broker, "e")
        (late,) = await limiter.permit([Ask(more, Rate("r", 100.0))])
        assert abs(late.due - start - 400) < 1 + harness.late, "permit: a later one stands at the end of the line"
        (other,) = await limiter.permit([Ask(more, Rate("other", 100.0))])
        assert other == GO, "permit: each bucket has a pace of its own"

    @asynchronous
    async def test_what_comes_back_in_time_may_start(self, harness: Harness) -> None:
        broker, limiter = await _limiter(harness)
        await broker.publish(messages("a", "b", "c"))
        rate = Rate("r", max(0.4, harness.late))
        first, second, third = await take(broker)
        asks = [Ask(each, rate) for each in (first, second, third)]
        permits = await limiter.permit(asks)
        await broker.settle([reserved(second, permits[1]), reserved(third, permits[2])])
        await accept(broker, [first])
        await harness.elapse(max(0.0, permits[1].due - harness.now()) + 0.02)
        back, *_ = await take(broker, wait=harness.late)  # on a machine that is late the third one, too
        assert (back.message.id, back.marks.reserved, back.redelivered) == ("b", True, False), (
            "release: what waited for its turn is marked, and not redelivered"
        )
        await broker.publish([message("new")])
        new = next(each for each in await take(broker) if each.message.id == "new")
        permits = await limiter.permit([Ask(new, rate), Ask(back, rate)])
        assert permits[1] == GO, "permit: who has reserved this time starts"
        assert permits[0].permission is Permission.LATER, "permit: nobody goes before those in the line"

    @asynchronous
    async def test_those_that_all_come_late_keep_the_pace(self, harness: Harness) -> None:
        broker, limiter = await _limiter(harness)
        names = [f"id-{number}" for number in range(8)]
        await broker.publish(messages(*names))
        rate = Rate("r", 0.05)
        # Of those that come within one interval, SLACK lets some start ahead.
        ahead = int(SLACK / rate.interval) + 1
        held = await take(broker)
        permits = await limiter.permit([Ask(each, rate) for each in held])
        assert [each.permission for each in permits].count(Permission.GO) in (ahead, ahead + 1), "permit: SLACK"
        later = [reserved(d, p) for d, p in zip(held, permits, strict=True) if p.due]
        await broker.settle(later)
        await harness.elapse(1.0)
        late = await take(broker)
        assert len(late) == len(later), "claim: all are due by now"
        again = await limiter.permit([Ask(each, rate) for each in late])
        assert [each.permission for each in again].count(Permission.GO) <= ahead + 1, (
            "permit: starts keep their interval, however many come back at once"
        )
        assert again[0] == GO, "permit: the first of them starts"

    @asynchronous
    async def test_a_pause_is_no_credit(self, harness: Harness) -> None:
        broker, limiter = await _limiter(harness)
        rate = Rate("r", 0.2)
        assert (await limiter.permit([Ask(await only_of(broker, "first"), rate)])) == [GO]
        await harness.elapse(1.0)
        await broker.publish(messages("a", "b", "c"))
        permits = await limiter.permit([Ask(each, rate) for each in await take(broker)])
        goes = [each.permission for each in permits]
        assert goes == [Permission.GO, Permission.LATER, Permission.LATER], "permit: starts keep their interval"

    # -- seats -------------------------------------------------------------------------------------------------------

    @asynchronous
    async def test_what_was_allowed_stays_allowed(self, harness: Harness) -> None:
        """A request that is repeated may come when the task runs already."""
        broker, limiter = await _parking(harness)
        await broker.publish(messages("a", "b"))
        first, second = await take(broker)
        rate = Rate("slow", 100.0)
        assert list(await limiter.permit([Ask(first, rate, _ONE)])) == [GO]
        assert list(await limiter.permit([Ask(first, rate, _ONE)])) == [GO], "permit: GO again, whatever the rate says"
        assert list(await limiter.permit([Ask(second, None, _ONE)])) == [PARKED], "permit: it kept its seat"

    @asynchronous
    async def test_as_many_as_there_are_seats(self, harness: Harness) -> None:
        broker, limiter = await _parking(harness)
        await broker.publish(messages("a", "b", "c", "d"))
        held = await take(broker)
        assert await seated(limiter, held) == [GO, GO, PARKED, PARKED], "permit: PARKED where no seat is free"
        assert await broker.extend(held) == held[2:], "permit: what is parked is no longer leased"
        depth = (await broker.depth(["q"]))["q"]
        assert (depth.ready, depth.scheduled, depth.leased) == (0, 2, 2), "depth: parked counts as scheduled"
        assert list(await seated(limiter, held)) == [GO, GO, LOST, LOST], "permit: a second ask takes no second seat"
        other = await only_of(broker, "other")
        assert await seated(limiter, [other], Seats("another", 1)) == [GO], "permit: each key has seats of its own"

    @asynchronous
    async def test_freed_seats_wake_in_order(self, harness: Harness) -> None:
        broker, limiter = await _parking(harness)
        await broker.publish(messages("a", "b", "c", "d", "e"))
        held = await take(broker)
        await seated(limiter, held)
        await broker.publish([message("behind")])
        await limiter.freed([_SEATS])
        assert (await broker.depth(["q"]))["q"].scheduled == 3, "freed: nobody is woken while seats are taken"
        await accept(broker, held[:2])
        await limiter.freed([_SEATS])
        back = await take(broker)
        assert ids(back) == ["c", "d", "behind"], "freed: as many as there are seats, the first first, in front"
        assert back[0].raw == held[2].raw, "freed: unchanged"
        newer = back[2]
        assert await seated(limiter, [newer, *back[:2]]) == [PARKED, GO, GO], "freed: the seats are kept for them"
        await accept(broker, back[:2])
        await limiter.freed([_SEATS])
        assert ids(await take(broker)) == ["e", "behind"], "permit: behind those that wait"

    @asynchronous
    async def test_who_waits_goes_before_who_comes(self, harness: Harness) -> None:
        broker, limiter = await _parking(harness)
        await broker.publish(messages("a", "b"))
        held = await take(broker)
        await seated(limiter, held, _ONE)
        await accept(broker, held[:1])
        new = await only_of(broker, "new")
        assert await seated(limiter, [new], _ONE) == [PARKED], "permit: behind those that wait for a seat"
        assert ids(await take(broker)) == ["b"], "permit: who waits is woken"

    @asynchronous
    async def test_a_seat_ends_with_its_lease_however_that_ends(self, harness: Harness) -> None:
        broker, limiter = await _parking(harness)
        await broker.publish(messages("a", "b"))
        held = await take(broker)
        assert await seated(limiter, held) == [GO, GO]
        await broker.settle([Release(held[0]), Release(held[1], due=harness.now() + 1000)])
        await broker.publish([message("c")])
        again = await take(broker)
        assert ids(again) == ["a", "c"]
        assert await seated(limiter, again) == [GO, GO], "permit: GO takes a seat until the lease ends"

    @asynchronous
    async def test_maintenance_wakes_behind_a_dead_holder(self, harness: Harness) -> None:
        dead = await harness.open_broker(lease=harness.lease)
        broker, limiter = await _parking(harness)
        await broker.publish([message("a")])
        held = await take(dead)
        assert isinstance(dead, Limiter)
        assert await seated(dead, held, _ONE) == [GO]
        waiting = await only_of(broker, "b")
        assert await seated(limiter, [waiting], _ONE) == [PARKED]
        assert await broker.maintain() <= 1.0, "maintain: soon again while somebody waits"
        assert await take(broker) == [], "maintain: a seat is held as long as its lease"
        await harness.lapse(harness.lease * 1.2)
        await broker.maintain()
        back = {each.message.id: each for each in [*await take(broker, limit=1), *await take(broker, limit=1)]}
        assert back.keys() == {"a", "b"}, "maintain: wakes those for whom there is a seat"
        assert await seated(limiter, [back["b"]], _ONE) == [GO], "maintain: whose seat is kept for it"
        assert await seated(limiter, [back["a"]], _ONE) == [PARKED]
        await accept(broker, [back["b"]])
        await limiter.freed([_ONE])
        suspect = await only(broker)
        assert (suspect.message.id, suspect.marks.suspect) == ("a", True), "permit: parked with its marks"

    @asynchronous
    async def test_a_kept_seat_is_given_to_others_in_the_end(self, harness: Harness) -> None:
        broker, limiter = await _parking(harness, seat_promise=1.5 * harness.soon)
        await broker.publish(messages("a", "b", "c"))
        held = await take(broker)
        await seated(limiter, held, _ONE)
        await accept(broker, held[:1])
        await limiter.freed([_ONE])
        slow = await only(broker)
        await limiter.freed([_ONE])
        assert await take(broker) == [], "freed: the seat is kept"
        await harness.lapse(1.5 * harness.soon + 0.05)
        await broker.maintain()
        quick = await only(broker)
        assert (slow.message.id, quick.message.id) == ("b", "c"), "freed: for so many seconds"
        assert await seated(limiter, [quick], _ONE) == [GO]
        late = await only_of(broker, "d")
        assert await seated(limiter, [late, slow], _ONE) == [PARKED, PARKED]
        await accept(broker, [quick])
        await limiter.freed([_ONE])
        assert ids(await take(broker)) == ["b"], "freed: what then asks without a seat waits in front"

    @asynchronous
    async def test_a_forgone_seat_is_free_at_once(self, harness: Harness) -> None:
        broker, limiter = await _parking(harness)
        await broker.publish(messages("a", "b", "c", "d"))
        held = await take(broker)
        await seated(limiter, held, _ONE)
        await accept(broker, held[:1])
        await limiter.freed([_ONE])
        revoked = await only(broker)
        await limiter.freed([], [Ask(revoked, None, _ONE)])
        paused = await only(broker)
        assert (revoked.message.id, paused.message.id) == ("b", "c"), "freed: a forgone seat wakes the next one"
        await accept(broker, [revoked])
        await broker.settle([Release(paused, due=harness.now() + harness.soon)])
        await limiter.freed([], [Ask(revoked, None, _ONE), Ask(paused, None, _ONE)])
        running = await only(broker)
        assert running.message.id == "d", "freed: again, and for those that go back"
        assert await seated(limiter, [running], _ONE) == [GO]
        await limiter.freed([], [Ask(running, None, _ONE)])
        await harness.lapse(harness.soon + 0.05)
        back = await only(broker)
        late = await only_of(broker, "e")
        assert await seated(limiter, [late, back], _ONE) == [PARKED, PARKED], "freed: a seat that is taken stays so"
        await accept(broker, [running])
        await limiter.freed([_ONE])
        assert ids(await take(broker)) == ["c"], "freed: who comes back waits in front"

    @asynchronous
    async def test_who_waits_in_a_paused_queue_lets_others_pass(self, harness: Harness) -> None:
        broker, limiter = await _parking(harness)
        rules = rules_of(harness, broker)
        await broker.declare(["q", "other"])
        running = await only_of(broker, "running")
        await broker.publish(messages("a", "b", "c"))
        waiting = await take(broker)
        assert await seated(limiter, [running, *waiting], _ONE) == [GO, PARKED, PARKED, PARKED]
        await rules.set_rules([RuleChange("pause:q", b"{}")])
        await accept(broker, [running])
        await limiter.freed([_ONE])
        await broker.maintain()
        assert (await broker.depth(["q"]))["q"].scheduled == 3, "freed, maintain: nobody is woken in a paused queue"
        await broker.publish(messages("x", "y", queue="other"))
        others = await take(broker, "other")
        assert await seated(limiter, others, _ONE) == [GO, PARKED], "permit: its seats are others' meanwhile"
        await accept(broker, others[:1])
        await limiter.freed([_ONE])
        (last,) = await take(broker, "other")
        assert await seated(limiter, [last], _ONE) == [GO], "freed: others pass"
        await accept(broker, [last])
        await rules.set_rules([RuleChange("pause:q", None)])
        order = []
        for _ in waiting:
            await broker.maintain()
            each = await only(broker)
            assert await seated(limiter, [each], _ONE) == [GO]
            order.append(each.message.id)
            await accept(broker, [each])
        assert order == ["a", "b", "c"], "maintain: resumed, in the order in which they were parked"

    @asynchronous
    async def test_purge_finds_what_is_parked(self, harness: Harness) -> None:
        broker, limiter = await _parking(harness)
        await broker.publish([*messages("a", "b", "c"), *messages("x", "y", queue="other")])
        held = await take(broker, "q", "other")
        permits = await seated(limiter, held, _ONE)
        assert permits.count(PARKED) == 4
        await broker.publish([message("ready"), message("due", due=harness.now() + 1000)])
        parked = sum(p is PARKED or p == PARKED for p, d in zip(permits, held, strict=True) if d.queue == "q")
        assert await broker.purge("q") == parked + 2, "purge: parked ones too"
        depth = await broker.depth(["q", "other"])
        assert depth["q"].scheduled == 0, "purge: nothing is left"
        assert depth["other"].scheduled == 4 - parked, "purge: of this queue alone"

    @asynchronous
    async def test_priorities_and_queues_come_back_as_they_were(self, harness: Harness) -> None:
        broker, limiter = await _parking(harness)
        await broker.declare(["q", "other"])
        first = await only_of(broker, "first")
        await broker.publish([message("low", priority=9), message("high", priority=0), message("other", "other")])
        waiting = await take(broker, "q", "other")
        assert await seated(limiter, [first, *waiting], _ONE) == [GO, PARKED, PARKED, PARKED]
        order = []
        running = first
        for _ in range(3):
            await accept(broker, [running])
            await limiter.freed([_ONE])
            running = await only(broker, "q", "other")
            assert await seated(limiter, [running], _ONE) == [GO]
            order.append(running.message.id)
        assert [name for name in order if name != "other"] == [
            each.message.id for each in waiting if each.message.id != "other"
        ], "freed: in the order in which they were parked, within a queue"
        assert running.queue == ("other" if running.message.id == "other" else "q"), "freed: to their own queues"
        assert well_placed(running), "freed: with their priorities"

    @asynchronous
    async def test_a_queue_that_cannot_be_written_changes_nothing(self, harness: Harness) -> None:
        broker, limiter = await _parking(harness)
        await broker.publish(messages("a", "b", "c"))
        first, second, third = await take(broker)
        assert await seated(limiter, [first, second], _ONE) == [GO, PARKED]
        await accept(broker, [first])
        await harness.spoil("q")
        with pytest.raises(OperationalError):
            await limiter.freed([_ONE])
        with pytest.raises(OperationalError):
            await seated(limiter, [third], _ONE)
        await harness.heal("q")
        assert list(await broker.extend([third])) == [], "permit: one atomic step"
        assert await seated(limiter, [third], _ONE) == [PARKED], "permit: behind those that wait"
        assert ids(await take(broker)) == ["b"], "freed: one atomic step"

    @asynchronous
    async def test_an_answer_that_was_lost_is_asked_for_again(self, harness: Harness) -> None:
        broker, limiter = await _parking(harness)
        await broker.publish(messages("a", "b"))
        held = await take(broker)
        assert await seated(limiter, held, _ONE) == [GO, PARKED]
        again = await seated(limiter, held, _ONE)
        assert again == [GO, LOST], "permit: LOST where the token is no longer held"
        await accept(broker, held[:1])
        await limiter.freed([_ONE])
        assert ids(await take(broker)) == ["b"], "permit: a second ask parks nobody twice"

    # -- both --------------------------------------------------------------------------------------------------------

    @asynchronous
    async def test_seat_and_rate(self, harness: Harness) -> None:
        broker, limiter = await _parking(harness)
        await broker.publish(messages("a", "b", "c"))
        held, rate = await take(broker), Rate("r", 100.0)
        permits = await limiter.permit([Ask(each, rate, _SEATS) for each in held])
        assert [each.permission for each in permits] == [Permission.GO, Permission.LATER, Permission.LATER], (
            "permit: LATER takes no seat"
        )
        assert await seated(limiter, held[1:]) == [GO, PARKED], "permit: LATER takes no seat"
        fresh = await only_of(broker, "d")
        (parked,) = await limiter.permit([Ask(fresh, Rate("other", 100.0), _SEATS)])
        again = await only_of(broker, "e")
        (start,) = await limiter.permit([Ask(again, Rate("other", 100.0))])
        assert (parked, start) == (PARKED, GO), "permit: what is parked takes no start"

    # -- many at once ------------------------------------------------------------------------------------------------

    @asynchronous
    async def test_many_workers_at_once(self, harness: Harness) -> None:
        brokers = [(await _parking(harness))[0] for _ in range(4)]
        names = [f"id-{number}" for number in range(60)]
        for each in brokers:
            await each.declare(["q"])
        await brokers[0].publish(messages(*names))
        running: set[str] = set()
        done: list[str] = []

        async def work(broker: Broker) -> None:
            assert isinstance(broker, Limiter)
            for _ in range(400):
                if len(done) == len(names):
                    return
                held = await broker.claim(["q"], limit=5, wait=0.0)
                permits = await seated(broker, held) if held else []
                mine = [d for d, p in zip(held, permits, strict=True) if p == GO]
                running.update(each.token for each in mine)
                assert len(running) <= _SEATS.most, "permit: never more than there are seats"
                await harness.elapse(0.002)
                running.difference_update(each.token for each in mine)
                if mine:
                    done.extend(ids(mine))
                    await broker.settle([Accept(each) for each in mine])
                    await broker.freed([_SEATS])
            raise AssertionError(f"freed: nobody is forgotten, {len(done)} of {len(names)} ran")

        if harness.leaps:
            await work(brokers[0])
        else:
            await gathered(*(work(each) for each in brokers))
        assert sorted(done) == sorted(names), "permit: each runs once"
        depth = (await brokers[0].depth(["q"]))["q"]
        assert (depth.ready, depth.scheduled, depth.leased) == (0, 0, 0), "freed: nothing is left"

    @pytest.mark.parametrize("seed", range(4))
    @asynchronous
    async def test_any_history_keeps_seats_and_forgets_nobody(self, harness: Harness, seed: int) -> None:
        rand = random.Random(seed)
        workers = [(await _parking(harness))[1] for _ in range(2)]
        brokers: list[Any] = workers
        seats = [Seats("one", 1), Seats("three", 3)]
        sent, done = itertools.count(), list[str]()
        running: list[tuple[Seats, Delivery]] = []
        published = 0

        async def ask(broker: Any) -> None:
            held = await broker.claim(["q"], limit=rand.randint(1, 6), wait=0.0)
            asks = [Ask(each, None, seats[int(each.message.id[-1])]) for each in held]
            for each, permit in zip(asks, await broker.permit(asks), strict=True):
                assert permit in (GO, PARKED), "permit: a held delivery is no lost one"
                if permit == GO:
                    assert each.seats is not None
                    running.append((each.seats, each.delivery))
            for key in seats:
                taken = sum(of == key for of, _ in running)
                assert taken <= key.most, f"permit: {taken} run where there are {key.most} seats"

        async def end(broker: Any, *, back: float) -> None:
            if running:
                key, delivery = running.pop(rand.randrange(len(running)))
                again = rand.random() < back
                await broker.settle([Release(delivery) if again else Accept(delivery)])
                if not again:
                    done.append(delivery.message.id)
                if rand.random() < 0.8:
                    await broker.freed([key])

        for _ in range(120):
            broker = rand.choice(brokers)
            step = rand.random()
            if step < 0.3:
                batch = [message(f"{next(sent)}-{rand.randrange(2)}") for _ in range(rand.randint(1, 4))]
                published += len(batch)
                await broker.publish(batch)
            elif step < 0.7:
                await ask(broker)
            elif step < 0.95:
                await end(broker, back=0.2)
            else:
                await broker.maintain()
        for _ in range(20 * published):
            if len(done) == published:
                break
            await ask(rand.choice(brokers))
            await end(rand.choice(brokers), back=0.0)
            if not running:
                await rand.choice(brokers).maintain()
        assert len(done) == len(set(done)) == published, "freed, maintain: nobody is forgotten, and nobody runs twice"
        depth = (await brokers[0].depth(["q"]))["q"]
        assert (depth.ready, depth.scheduled, depth.leased) == (0, 0, 0), "freed: nothing is left"


async def _limiter(harness: Harness, **options: Any) -> tuple[Broker, Limiter]:
    broker = await harness.open_broker(**options)
    if not isinstance(broker, Limiter):
        harness.cannot("limit across workers")
    return broker, broker


async def _parking(harness: Harness, **options: Any) -> tuple[Broker, Limiter]:
    if not harness.parks:
        harness.cannot("let what gets no seat wait in the server: it comes again later (PuttingOff)")
    return await _limiter(harness, **options)


async def seated(limiter: Limiter, held: Sequence[Delivery], seats: Seats = _SEATS) -> list[Permit]:
    """Asks for seats alone."""
    return list(await limiter.permit([Ask(each, None, seats) for each in held]))


async def only_of(broker: Broker, task_id: str) -> Delivery:
    """A message that is published and claimed at once."""
    await broker.publish([message(task_id)])
    return await only(broker)


def reserved(delivery: Delivery, permit: Permit) -> Release:
    """As a worker puts aside what may run later."""
    marks = type(delivery.marks)(reserved=True)
    return Release(delivery, due=permit.due, marks=marks)


def well_placed(delivery: Delivery) -> bool:
    """Whether the priority of ``low`` is still its own."""
    message = delivery.message
    return getattr(message, "priority", 0) == (9 if message.id == "low" else 0)
