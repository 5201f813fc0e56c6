"""Conformance: ``Rules.withdraw``: messages out of the midst of their queues."""

from __future__ import annotations

from celeriac.model.limits import GO, Ask, Seats
from celeriac.ports import Broker, Limiter, Rules
from celeriac.testing.conformance.harness import Harness
from celeriac.testing.conformance.rules import rules_of
from celeriac.testing.conformance.tools import accept, asynchronous, ids, message, messages, take

__all__ = ["Withdrawing"]


def _finder(harness: Harness, broker: Broker) -> Rules:
    if not harness.withdraws:
        harness.cannot("look into its queues for single messages: what is revoked is refused when it is claimed")
    return rules_of(harness, broker)


class Withdrawing:
    """``withdraw``."""

    @asynchronous
    async def test_ready_and_scheduled_ones_are_taken(self, harness: Harness) -> None:
        broker = await harness.open_broker()
        rules = _finder(harness, broker)
        far = harness.now() + 30 * 86400
        await broker.publish(messages("a", "b", "c"))
        await broker.publish([message("d", due=far), message("e", due=far + 1), message("low", priority=9)])
        taken = await rules.withdraw({"b", "d", "low", "nowhere"}, ["q"])
        assert sorted(ids(taken)) == ["b", "d", "low"], "withdraw: those that wait or are scheduled"
        assert {each.queue for each in taken} == {"q"}
        assert (await broker.depth(["q"]))["q"].leased == 3, "withdraw: under leases"
        await accept(broker, taken)
        assert ids(await take(broker)) == ["a", "c"], "withdraw: leaves all others where they are"
        depth = (await broker.depth(["q"]))["q"]
        assert depth.scheduled == 1, "withdraw: scheduled ones, too"

    @asynchronous
    async def test_parked_ones_are_taken(self, harness: Harness) -> None:
        broker = await harness.open_broker()
        rules = _finder(harness, broker)
        if not isinstance(broker, Limiter) or not harness.parks:
            harness.cannot("let what gets no seat wait in the server")
        await broker.publish([*messages("a", "b", "c"), *messages("x", "y", queue="other")])
        held, seats = await take(broker, "q", "other"), Seats("task", 1)
        permits = await broker.permit([Ask(each, None, seats) for each in held])
        running = [each for each, permit in zip(held, permits, strict=True) if permit == GO]
        waiting = {d.message.id: d for d in held if d.queue == "q" and d.token != running[0].token}
        wanted = min(waiting)
        taken = await rules.withdraw({wanted, "x", "y"}, ["q"])
        assert ids(taken) == [wanted], "withdraw: those that wait for a seat, in these queues"
        assert taken[0].raw == waiting[wanted].raw, "withdraw: unchanged"
        await accept(broker, [*taken, *running])
        came = []
        for _ in range(3):
            await broker.freed([seats])
            each = (await take(broker, "q", "other"))[0]
            came.append(each.message.id)
            assert await broker.permit([Ask(each, None, seats)]) == [GO]
            await accept(broker, [each])
        gone = {wanted, *ids(running)}
        assert sorted(came) == sorted({"a", "b", "c", "x", "y"} - gone), "withdraw: leaves the others where they are"
        depth = (await broker.depth(["q"]))["q"]
        assert (depth.ready, depth.scheduled, depth.leased) == (0, 0, 0), "withdraw: nothing is left"

    @asynchronous
    async def test_only_in_these_queues(self, harness: Harness) -> None:
        broker = await harness.open_broker()
        rules = _finder(harness, broker)
        await broker.publish([message("a", "q1"), message("b", "q2"), message("c", "q3")])
        taken = await rules.withdraw({"a", "b", "c"}, ["q1", "q3", "q1", "none"])
        assert sorted(ids(taken)) == ["a", "c"], "withdraw: in these queues"
        assert sorted(each.queue for each in taken) == ["q1", "q3"]
        assert ids(await take(broker, "q2")) == ["b"]

    @asynchronous
    async def test_what_is_leased_stays(self, harness: Harness) -> None:
        broker, other = await harness.open_broker(owner="one"), await harness.open_broker(owner="two")
        rules = _finder(harness, other)
        await broker.publish(messages("a", "b"))
        held = await take(broker, limit=1)
        assert ids(await rules.withdraw({"a", "b"}, ["q"])) == ["b"], "withdraw: what waits"
        assert not await broker.extend(held), "withdraw: leaves leases alone"
        await accept(broker, held)

    @asynchronous
    async def test_the_lease_is_one_like_any_other(self, harness: Harness) -> None:
        broker = await harness.open_broker(owner="finder")
        rules = _finder(harness, broker)
        await broker.publish(messages("a"))
        (taken,) = await rules.withdraw({"a"}, ["q"])
        assert await take(broker) == [], "withdraw: nobody else has it"
        assert [each.token for each in await broker.orphans("finder")] == [taken.token], "withdraw: of this owner"
        await harness.lapse(harness.lease / 3)
        assert not await broker.extend([taken]), "withdraw: renewed like any other"
        await accept(broker, [taken])

    @asynchronous
    async def test_what_its_finder_leaves_comes_back(self, harness: Harness) -> None:
        broker, other = await harness.open_broker(lease=harness.lease), await harness.open_broker()
        rules = _finder(harness, broker)
        await other.publish([message("a", due=harness.now() + 86400)])
        assert ids(await rules.withdraw({"a"}, ["q"])) == ["a"]
        await harness.lapse(harness.lease * 2)
        await other.maintain()
        assert ids(await take(other)) == ["a"], "withdraw: when the lease runs out it is ready"

    @asynchronous
    async def test_only_one_finds_it(self, harness: Harness) -> None:
        one, two = await harness.open_broker(), await harness.open_broker()
        first, second = _finder(harness, one), _finder(harness, two)
        wanted = [f"id-{number}" for number in range(50)]
        await one.publish(messages(*wanted))
        found = [*await first.withdraw(wanted, ["q"]), *await second.withdraw(wanted, ["q"])]
        assert sorted(ids(found)) == sorted(wanted), "withdraw: each is found once"
        assert len({each.token for each in found}) == len(wanted)

    @asynchronous
    async def test_odd_ids_and_lookalikes(self, harness: Harness) -> None:
        broker = await harness.open_broker()
        rules = _finder(harness, broker)
        odd = ["ü-id", "a b", "x/y", "tab\tid"]
        # Others that only mention a wanted id.
        lookalike = message("other", headers={"parent_id": "a b", "root_id": "a b", "nested": {"id": "a b"}})
        await broker.publish([lookalike, *(message(each) for each in odd)])
        assert sorted(ids(await rules.withdraw(odd, ["q"]))) == sorted(odd), "withdraw: by the id of the task"
        assert ids(await take(broker)) == ["other"], "withdraw: others wait on"

    @asynchronous
    async def test_malformed_ones_are_left_alone(self, harness: Harness) -> None:
        broker = await harness.open_broker()
        rules = _finder(harness, broker)
        await harness.inject("q", b'{"headers": {"id": "a"')
        await broker.publish(messages("a"))
        assert len(await rules.withdraw({"a"}, ["q"])) == 1, "withdraw: messages of these tasks"
        assert len(await take(broker)) == 1, "withdraw: what is malformed waits for whoever claims it"

    @asynchronous
    async def test_in_the_midst_of_many(self, harness: Harness) -> None:
        broker = await harness.open_broker()
        rules = _finder(harness, broker)
        names = [f"id-{number:04}" for number in range(3000)]
        later = [message(f"later-{number:04}", due=harness.now() + 86400 + number) for number in range(1500)]
        await broker.publish(messages(*names))
        await broker.publish(later)
        wanted = {*names[::7], *(each.id for each in later[::5])}
        taken = await rules.withdraw(wanted, ["q"])
        assert set(ids(taken)) == wanted, "withdraw: looks at every message"
        assert len(taken) == len(wanted)
        await accept(broker, taken)
        assert ids(await take(broker, limit=5000)) == [each for each in names if each not in wanted], (
            "withdraw: order stays"
        )
