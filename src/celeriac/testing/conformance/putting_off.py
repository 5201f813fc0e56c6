"""Conformance: seats of a limiter that cannot park: what gets none asks again later, and nobody is forgotten."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence

import pytest

from celeriac.model.limits import GO, Ask, Permission, Permit, Rate, Seats
from celeriac.model.message import Delivery, Malformed
from celeriac.model.settle import Accept, Release, Settlement
from celeriac.ports import Broker, Limiter
from celeriac.testing.conformance.harness import Harness
from celeriac.testing.conformance.tools import accept, asynchronous, gathered, ids, message, messages, only, take

__all__ = ["PuttingOff"]

_SEATS = Seats("task", 2)
_ONE = Seats("task", 1)


class PuttingOff:
    """``permit`` without PARKED."""

    @asynchronous
    async def test_without_a_seat_later(self, harness: Harness) -> None:
        broker, limiter = await _limiter(harness)
        await broker.publish(messages("a", "b", "c"))
        held, start = await take(broker), harness.now()
        permits = await _seated(limiter, held)
        assert permits[:2] == [GO, GO], "permit: as many as there are seats"
        late = permits[2]
        assert (late.permission, late.reserved) == (Permission.LATER, False), "permit: LATER, with no time of its own"
        assert start + 0.5 <= late.due <= harness.now() + 2.0, "permit: in about a second"
        assert not await broker.extend(held), "permit: what gets no seat stays leased"
        assert (await _seated(limiter, held))[:2] == [GO, GO], "permit: a second ask takes no second seat"
        other = await _only_of(broker, "other")
        assert await _seated(limiter, [other], Seats("another", 1)) == [GO], "permit: each key has seats of its own"

    @pytest.mark.parametrize("way", ["accept", "release", "due"])
    @asynchronous
    async def test_a_seat_is_free_when_its_delivery_is_over(self, harness: Harness, way: str) -> None:
        broker, limiter = await _limiter(harness)
        await broker.publish(messages("a", "b"))
        first, second = await take(broker)
        assert [each.permission for each in await _seated(limiter, [first, second], _ONE)] == ["go", "later"]
        ends: dict[str, Settlement] = {
            "accept": Accept(first),
            "release": Release(first),
            "due": Release(first, due=harness.now() + 1000),
        }
        await broker.settle([ends[way]])
        assert await _seated(limiter, [second], _ONE) == [GO], "settle: gives up the seat"

    @asynchronous
    async def test_a_seat_ends_with_its_lease(self, harness: Harness) -> None:
        dead = await harness.open_broker(lease=harness.lease)
        broker, limiter = await _limiter(harness)
        await broker.publish([message("a"), message("b")])
        (held,) = await take(dead, limit=1)
        waiting = await only(broker)
        assert isinstance(dead, Limiter)
        assert await _seated(dead, [held], _ONE) == [GO]
        assert (await _seated(limiter, [waiting], _ONE))[0].permission is Permission.LATER, "permit: it is taken"
        await harness.lapse(harness.lease * 1.2)
        assert await _seated(limiter, [waiting], _ONE) == [GO], "permit: a dead worker's seat ends with its lease"

    @asynchronous
    async def test_a_renewed_lease_keeps_its_seat(self, harness: Harness) -> None:
        lease = max(harness.lease, harness.late)
        long, agent = await harness.open_broker(lease=lease), await harness.open_broker(lease=lease)
        broker, limiter = await _limiter(harness)
        await broker.publish([message("a"), message("b")])
        (held,) = await take(long, limit=1)
        waiting = await only(broker)
        assert isinstance(long, Limiter)
        assert await _seated(long, [held], _ONE) == [GO]
        # By whom it was claimed, then by somebody who knows nothing but its token.
        unknown = Delivery(message=Malformed(reason="", raw=b""), token=held.token, queue="")
        for number in range(8):
            await harness.lapse(lease * 0.35)
            lost = await (long.extend([held]) if number < 4 else agent.extend([unknown]))
            assert not lost or (number >= 4 and broker.traits.requeues), "extend: by anybody who knows the token"
            assert (await _seated(limiter, [waiting], _ONE))[0].permission is Permission.LATER, "extend: keeps the seat"
        await accept(long if broker.traits.requeues else agent, [held])
        await agent.freed([], [Ask(held, None, _ONE)])  # type: ignore[attr-defined]
        assert await _seated(limiter, [waiting], _ONE) == [GO], "freed: a seat that another process had taken"

    @asynchronous
    async def test_what_comes_back_takes_its_seat_over(self, harness: Harness) -> None:
        dead = await harness.open_broker(lease=harness.lease)
        broker, limiter = await _limiter(harness)
        await broker.publish([message("a")])
        old = await only(dead)
        assert isinstance(dead, Limiter)
        assert await _seated(dead, [old], Seats("task", 1)) == [GO]
        await harness.lapse(harness.lease / 2)
        await dead.settle([Release(old)])
        new = await only(broker)
        assert await _seated(limiter, [new], _ONE) == [GO], "permit: a task has one seat, whoever lends it"
        await dead.freed([], [Ask(old, None, _ONE)])
        other = await _only_of(broker, "other")
        assert (await _seated(limiter, [other], _ONE))[0].permission is Permission.LATER, "freed: by token"

    @asynchronous
    async def test_later_by_the_rate_takes_no_seat(self, harness: Harness) -> None:
        broker, limiter = await _limiter(harness)
        await broker.publish(messages("a", "b", "c"))
        held, rate = await take(broker), Rate("r", 100.0)
        permits = await limiter.permit([Ask(each, rate, _SEATS) for each in held])
        assert [(each.permission, each.reserved) for each in permits] == [
            (Permission.GO, True),
            (Permission.LATER, True),
            (Permission.LATER, True),
        ], "permit: the rate lets one start"
        again = await _seated(limiter, held[1:])
        assert [each.permission for each in again] == [Permission.GO, Permission.LATER], "permit: LATER takes no seat"
        fresh = await _only_of(broker, "d")
        (late,) = await limiter.permit([Ask(fresh, Rate("other", 100.0), _SEATS)])
        (start,) = await limiter.permit([Ask(await _only_of(broker, "e"), Rate("other", 100.0))])
        assert (late.reserved, start) == (False, GO), "permit: what gets no seat takes no start"

    @asynchronous
    async def test_many_workers_share_seats(self, harness: Harness) -> None:
        pairs = [await _limiter(harness) for _ in range(4)]
        names = [f"id-{number}" for number in range(40)]
        await pairs[0][0].publish(messages(*names))
        running: set[str] = set()
        done: list[str] = []

        async def work(broker: Broker, limiter: Limiter) -> None:
            for _ in range(2000):
                if len(done) == len(names):
                    return
                held = await broker.claim(["q"], limit=3, wait=0.0)
                permits = await _seated(limiter, held) if held else []
                mine = [each for each, permit in zip(held, permits, strict=True) if permit == GO]
                running.update(each.token for each in mine)
                assert len(running) <= _SEATS.most, "permit: never more than there are seats"
                await harness.elapse(0.002)
                running.difference_update(each.token for each in mine)
                done.extend(ids(mine))
                tokens = {each.token for each in mine}
                await broker.settle([Accept(each) if each.token in tokens else Release(each) for each in held])
            raise AssertionError(f"permit: somebody gets each seat, {len(done)} of {len(names)} ran")

        await gathered(*(work(*pair) for pair in pairs[: 1 if harness.leaps else 4]))
        assert sorted(done) == sorted(names), "permit: each runs once"

    @pytest.mark.parametrize("seed", range(4))
    @asynchronous
    async def test_any_history_keeps_the_seats(self, harness: Harness, seed: int) -> None:
        rand = random.Random(seed)
        pairs = [await _limiter(harness) for _ in range(2)]
        seats = [Seats("one", 1), Seats("three", 3)]
        sent, done, published = itertools.count(), list[str](), 0
        running: list[tuple[Broker, Seats, Delivery]] = []

        async def ask(broker: Broker, limiter: Limiter) -> None:
            held = await broker.claim(["q"], limit=rand.randint(1, 6), wait=0.0)
            asks = [Ask(each, None, seats[int(each.message.id[-1])]) for each in held]
            for each, permit in zip(asks, await limiter.permit(asks), strict=True):
                assert each.seats is not None
                if permit == GO:
                    running.append((broker, each.seats, each.delivery))
                else:
                    await broker.settle([Release(each.delivery, back=True)])
            for key in seats:
                taken = sum(of == key for _, of, _ in running)
                assert taken <= key.most, f"permit: {taken} run where there are {key.most} seats"

        async def end(*, back: float) -> None:
            if running:
                broker, _, delivery = running.pop(rand.randrange(len(running)))
                again = rand.random() < back
                await broker.settle([Release(delivery) if again else Accept(delivery)])
                done.extend([] if again else [delivery.message.id])

        for _ in range(120):
            step = rand.random()
            if step < 0.3:
                batch = [message(f"{next(sent)}-{rand.randrange(2)}") for _ in range(rand.randint(1, 4))]
                published += len(batch)
                await rand.choice(pairs)[0].publish(batch)
            elif step < 0.7:
                await ask(*rand.choice(pairs))
            else:
                await end(back=0.2)
        for _ in range(50 * published):
            if len(done) == published:
                break
            await ask(*rand.choice(pairs))
            await end(back=0.0)
        assert len(done) == len(set(done)) == published, "permit: nobody is forgotten, and nobody runs twice"


async def _limiter(harness: Harness) -> tuple[Broker, Limiter]:
    broker = await harness.open_broker()
    if not isinstance(broker, Limiter):
        harness.cannot("limit across workers")
    if harness.parks:
        harness.cannot("put off what gets no seat: it waits in the server")
    return broker, broker


async def _seated(limiter: Limiter, held: Sequence[Delivery], seats: Seats = _SEATS) -> list[Permit]:
    return list(await limiter.permit([Ask(each, None, seats) for each in held]))


async def _only_of(broker: Broker, task_id: str) -> Delivery:
    await broker.publish([message(task_id)])
    return await only(broker)
