"""Conformance: leases, fencing, what a lost delivery looks like, and taking over from the dead."""

from __future__ import annotations

import asyncio
import time

import pytest

from celeriac.model.message import Delivery, Marks
from celeriac.model.settle import Accept, DeadLetter, DeadReason, Release, Settlement
from celeriac.ports import Broker
from celeriac.testing.conformance.harness import Harness
from celeriac.testing.conformance.tools import (
    accept,
    ample,
    asynchronous,
    ids,
    message,
    messages,
    only,
    take,
    well_formed,
)

__all__ = ["Leases"]


class Leases:
    """``extend``, ``maintain``, ``orphans``, tokens."""

    @asynchronous
    async def test_a_leased_message_is_nobody_elses(self, harness: Harness) -> None:
        first, second = await harness.open_broker(), await harness.open_broker()
        await first.publish(messages("a", "b"))
        await take(first)
        await second.maintain()
        assert await take(second) == [], "claim: what is leased is nobody else's"
        assert await take(first) == [], "claim: not even its own holder's again"

    @asynchronous
    async def test_extend_renews_from_now(self, harness: Harness) -> None:
        lease = ample(harness)
        holder, other = await harness.open_broker(lease=lease), await harness.open_broker()
        await holder.publish([message("kept"), message("let go", "other")])
        kept, let_go = await only(holder, "q"), await only(holder, "other")
        await harness.lapse(lease * 0.6)
        assert list(await holder.extend([kept])) == [], "extend: returns the lost ones only"
        await harness.lapse(lease * 0.6)
        await other.maintain()
        assert ids(await take(other, "q", "other")) == ["let go"], "extend: renews the lease from now"
        assert list(await holder.extend([kept, let_go])) == [let_go], "extend: returns the lost ones"
        await accept(holder, [kept])

    @asynchronous
    async def test_extend_returns_what_is_not_held(self, harness: Harness) -> None:
        broker = await harness.open_broker()
        await broker.publish(messages("a", "b", "c", "d"))
        taken = await take(broker)
        await broker.settle([Accept(taken[0]), Release(taken[2])])
        assert list(await broker.extend(taken)) == [taken[0], taken[2]], "extend: settled ones are lost"
        assert ids(await take(broker)) == ["c"], "extend: of a lost one changes nothing"

    @asynchronous
    async def test_maintain_is_useful_again_when_a_lease_ends(self, harness: Harness) -> None:
        lease = ample(harness)
        holder, other = await harness.open_broker(lease=lease), await harness.open_broker(lease=lease)
        await holder.publish([message("a")])
        await take(holder)
        await harness.lapse(lease * 0.6)
        pause = await other.maintain()
        assert pause <= lease * 0.5, "maintain: useful again when a lease that nobody renews has ended"
        await harness.lapse(lease * 0.5)
        await other.maintain()
        assert (await other.depth(["q"]))["q"].ready == 1, "maintain: expired leases → ready"

    @asynchronous
    async def test_until_restored_an_expired_lease_is_held(self, harness: Harness) -> None:
        broker = await harness.open_broker(lease=harness.lease)
        await broker.publish(messages("a", "b"))
        taken = await take(broker)
        await harness.lapse(harness.lease * 1.2)
        assert list(await broker.extend(taken[:1])) == [], "extend: held until a maintainer has restored it"
        await accept(broker, taken)

    @asynchronous
    async def test_an_expired_lease_is_restored_with_marks(self, harness: Harness) -> None:
        holder, other = await harness.open_broker(lease=harness.lease), await harness.open_broker()
        sent = message("a", priority=3, headers={"x-own": {"deep": ["ü", 1]}}, body=b"[[7], {}, {}]")
        await holder.publish([sent, message("b", priority=3), message("c", priority=3)])
        lost = (await holder.claim(["q"], limit=1, wait=0.0))[0]
        await other.maintain()
        assert (await other.depth(["q"]))["q"].leased == 1, "maintain: leaves leases that have not expired"
        await harness.lapse(harness.lease * 1.2)
        await other.maintain()
        taken = await take(other)
        assert ids(taken) == ["a", "b", "c"], "maintain: an expired one goes to the front"
        again = taken[0]
        assert again.redelivered, "maintain: an expired one is redelivered"
        assert again.marks == Marks(suspect=True, expired_leases=1), (
            "maintain: suspect without a crash, one expired lease"
        )
        assert again.token != lost.token, "claim: a new lease has a new token"
        got = well_formed(again)
        assert (got.task, got.body, got.priority, got.queue) == (sent.task, sent.body, 3, "q"), "maintain: same message"
        assert got.headers["x-own"] == {"deep": ["ü", 1]}, "maintain: same headers"
        assert not taken[1].redelivered, "maintain: touches expired ones only"
        assert taken[1].marks == Marks(), "maintain: touches expired ones only"

    @asynchronous
    async def test_several_expired_leases_come_in_order(self, harness: Harness) -> None:
        holder, other = await harness.open_broker(lease=harness.lease), await harness.open_broker()
        await holder.publish(messages("a", "b", "c", "d", "e"))
        await holder.claim(["q"], limit=3, wait=0.0)
        await harness.lapse(harness.lease * 1.2)
        await other.maintain()
        taken = await take(other)
        assert sorted(ids(taken)[:3]) == ["a", "b", "c"], "maintain: expired ones go to the front"
        assert ids(taken)[3:] == ["d", "e"], "maintain: expired ones go to the front"
        marks = [each.marks for each in taken[:3]]
        assert marks == [Marks(suspect=True, expired_leases=1)] * 3, (
            "maintain: each of several is suspect, without a crash"
        )

    @asynchronous
    async def test_a_lone_suspect_is_the_culprit(self, harness: Harness) -> None:
        broker = await harness.open_broker()
        holder = await harness.open_broker(lease=harness.lease)
        suspect = Marks(suspect=True, expired_leases=4, crashes=1, parked_until=4e9)
        await _marked(broker, "a", suspect)
        await only(holder)
        await harness.lapse(harness.lease * 1.2)
        await broker.maintain()
        marks = (await only(broker)).marks
        assert marks == Marks(suspect=True, expired_leases=5, crashes=2, parked_until=4e9), (
            "maintain: a suspect that its owner held alone gets a crash; its other marks stay"
        )

    @asynchronous
    async def test_a_suspect_among_others_is_no_culprit(self, harness: Harness) -> None:
        broker = await harness.open_broker()
        holder = await harness.open_broker(lease=harness.lease)
        await _marked(broker, "a", Marks(suspect=True, expired_leases=1))
        await _marked(broker, "b", Marks(suspect=True, expired_leases=1), queue="other")
        assert len(await take(holder, "q", "other")) == 2
        await harness.lapse(harness.lease * 1.2)
        await broker.maintain()
        taken = await take(broker, "q", "other")
        assert [each.marks for each in taken] == [Marks(suspect=True, expired_leases=2)] * 2, (
            "maintain: a suspect that was not its owner's only delivery gets no crash"
        )

    @asynchronous
    async def test_a_late_settle_is_refused_and_changes_nothing(self, harness: Harness) -> None:
        late, rightful = await harness.open_broker(lease=harness.lease), await harness.open_broker()
        await late.publish(messages("a", "b", "c", "d"))
        old = await take(late)
        await harness.lapse(harness.lease * 1.2)
        await rightful.maintain()
        new = {each.message.id: each for each in await take(rightful)}
        attempts: list[Settlement] = [
            Accept(old[0]),
            Release(old[1]),
            Release(old[1], due=harness.now() + 1, marks=Marks(crashes=9), back=True),
            DeadLetter(delivery=old[2], reason=DeadReason.FAILED),
        ]
        assert list(await late.settle(attempts)) == attempts, "settle: refused when the token is no longer held"
        assert len(await late.extend(old)) == 4, "extend: returns the lost ones"
        depth = (await rightful.depth(["q"]))["q"]
        counts = (depth.ready, depth.scheduled, depth.leased, depth.dead)
        assert counts == (0, 0, 4, 0), "settle: a refused one changes nothing"
        await accept(rightful, list(new.values()))

    @asynchronous
    async def test_a_settled_message_is_not_restored(self, harness: Harness) -> None:
        broker = await harness.open_broker(lease=harness.lease)
        await broker.publish(messages("a", "b", "c"))
        taken = await take(broker)
        later = Release(taken[1], due=harness.now() + 1000)
        await broker.settle([Accept(taken[0]), later, DeadLetter(delivery=taken[2], reason=DeadReason.FAILED)])
        await harness.lapse(harness.lease * 1.2)
        await broker.maintain()
        assert await take(broker) == [], "maintain: restores what is leased only"

    @asynchronous
    async def test_two_maintainers_do_no_harm(self, harness: Harness) -> None:
        holder = await harness.open_broker(lease=harness.lease)
        brokers = [await harness.open_broker() for _ in range(4)]
        names = [f"id-{number}" for number in range(60)]
        await holder.publish(messages(*names))
        await take(holder)
        await holder.publish([message(f"due-{number}", due=harness.now() + 0.1) for number in range(60)])
        await harness.lapse(harness.lease * 1.2)
        await asyncio.gather(*(each.maintain() for each in brokers), *(each.maintain() for each in brokers))
        taken = await take(brokers[0])
        expected = sorted([*names, *(f"due-{number}" for number in range(60))])
        assert sorted(ids(taken)) == expected, "maintain: any number at once restore and move each message once"
        marks = {each.marks for each in taken if each.redelivered}
        assert marks == {Marks(suspect=True, expired_leases=1)}, "maintain: marks advance once, however many maintain"

    @asynchronous
    async def test_another_takes_over_from_one_that_vanished(self, harness: Harness) -> None:
        gone = await harness.open_broker(lease=harness.lease)
        await gone.publish(messages("a", "b", "c"))
        await gone.settle([Accept(each) for each in await gone.claim(["q"], limit=1, wait=0.0)])
        await gone.claim(["q"], limit=1, wait=0.0)
        heir = await harness.open_broker(lease=harness.lease)
        assert ids(await take(heir)) == ["c"], "claim: only what is not leased"
        await harness.lapse(harness.lease * 1.2)
        await heir.maintain()
        restored = await take(heir)
        assert "b" in ids(restored), "maintain: what a dead one held is ready after its lease"
        assert "a" not in ids(restored), "settle: accepted means forgotten"

    @pytest.mark.parametrize("owner", ["w1", "w*", "a:b:c", "w1@host.local/é", "o" * 200])
    @asynchronous
    async def test_orphans_are_exactly_the_dead_owners(self, harness: Harness, owner: str) -> None:
        dead = await harness.open_broker(owner=owner)
        living = await harness.open_broker(owner=f"{owner}0")
        agent = await harness.open_broker()
        await agent.publish(messages("a", "b", "c", "d", "e"))
        held = [*await dead.claim(["q"], limit=2, wait=0.0), *await dead.claim(["q"], limit=1, wait=0.0)]
        others = await living.claim(["q"], limit=2, wait=0.0)
        await accept(dead, held[1:2])
        await dead.close()
        orphans = list(await agent.orphans(owner))
        assert sorted(ids(orphans)) == ["a", "c"], "orphans: all that the dead owner still holds, and no others"
        assert {each.token for each in orphans} == {held[0].token, held[2].token}, "orphans: under its tokens"
        assert {each.queue for each in orphans} == {"q"}, "orphans: with their queue"
        found = {each.message.id: each for each in orphans}
        assert found["a"].raw == held[0].raw, "orphans: with their bytes"
        refused = await agent.settle([Release(found["a"], marks=Marks(crashes=1)), Release(found["c"])])
        assert list(refused) == [], "settle: any child may settle a held token"
        assert list(await agent.orphans(owner)) == [], "orphans: none after they were settled"
        taken = await take(agent)
        assert [(each.message.id, each.marks.crashes) for each in taken] == [("a", 1), ("c", 0)], "release: by an agent"
        await accept(living, others)

    @asynchronous
    async def test_tokens_are_never_used_again(self, harness: Harness) -> None:
        first = await harness.open_broker(owner="same")
        await first.publish([message("a")])
        tokens = []
        for _ in range(3):
            delivery = await only(first)
            tokens.append(delivery.token)
            await first.settle([Release(delivery)])
        await first.close()
        await first.open()
        tokens.append((await only(first)).token)
        assert len(set(tokens)) == 4, "claim: a token is never used again, not even after a reopen"

    @asynchronous
    async def test_two_hundred_claimers_without_a_double_lease(self, harness: Harness) -> None:
        brokers = [await harness.open_broker() for _ in range(8)]
        names = [f"id-{number}" for number in range(500)]
        claims = [broker.claim(["other", "q"], limit=3, wait=0.3) for _ in range(25) for broker in brokers]
        waiting = [asyncio.ensure_future(claim) for claim in claims]
        await harness.elapse(0.02)
        await brokers[0].publish(messages(*names))
        await harness.elapse(0.35)
        taken = [each for batch in await asyncio.gather(*waiting) for each in batch]
        taken += await take(brokers[0])
        assert sorted(ids(taken)) == sorted(names), "claim: 200 claimers at once get each message once"
        assert len({each.token for each in taken}) == 500, "claim: tokens are unique"

    def test_claimers_in_threads_without_a_double_lease(self, harness: Harness) -> None:
        async def fill() -> None:
            broker = await harness.open_broker()
            await broker.publish(messages(*(f"id-{number}" for number in range(400))))
            await harness.close_all()

        async def drain() -> list[Delivery]:
            broker = harness.adapter.broker(harness.url, harness.adapter_options())
            await broker.open()
            taken: list[Delivery] = []
            while more := await broker.claim(["q"], limit=7, wait=0.0):
                taken += more
            await accept(broker, taken)
            await broker.close()
            return taken

        async def race() -> list[Delivery]:
            threads = [asyncio.to_thread(asyncio.run, drain()) for _ in range(6)]
            return [each for batch in await asyncio.gather(*threads) for each in batch]

        asyncio.run(fill())
        begin = time.monotonic()
        taken = asyncio.run(race())
        assert time.monotonic() - begin < 20
        expected = sorted(f"id-{number}" for number in range(400))
        assert sorted(ids(taken)) == expected, "claim: loops in other threads get each message once"


async def _marked(broker: Broker, task_id: str, marks: Marks, queue: str = "q") -> None:
    """A ready message with these marks."""
    await broker.publish([message(task_id, queue)])
    await broker.settle([Release(await only(broker, queue), marks=marks)])
