"""Conformance: how deliveries end: accept, release, dead-letter; each once. Dead letters read back."""

from __future__ import annotations

from typing import Any

import pytest

from celeriac.model.message import Marks
from celeriac.model.settle import Accept, DeadLetter, DeadReason, Release, Settlement
from celeriac.ports import Depth
from celeriac.testing.conformance.harness import Harness
from celeriac.testing.conformance.tools import accept, asynchronous, ids, message, messages, only, take

__all__ = ["Settling"]


class Settling:
    """``settle`` and ``dead``."""

    @asynchronous
    async def test_accept_forgets(self, harness: Harness) -> None:
        broker = await harness.open_broker()
        await broker.publish(messages("a", "b"))
        await accept(broker, await take(broker))
        assert await take(broker) == [], "accept: the message is forgotten"
        assert (await broker.depth(["q"]))["q"] == Depth(), "accept: the message is forgotten"

    @pytest.mark.parametrize("second", ["accept", "release", "back", "due", "dead"])
    @pytest.mark.parametrize("first", ["accept", "release", "dead"])
    @asynchronous
    async def test_settling_twice_is_a_refusal(self, harness: Harness, first: str, second: str) -> None:
        broker = await harness.open_broker()
        await broker.publish([message("a")])
        delivery = await only(broker)

        def settlement(kind: str) -> Settlement:
            ways: dict[str, Settlement] = {
                "accept": Accept(delivery),
                "release": Release(delivery),
                "back": Release(delivery, back=True, marks=Marks(crashes=1)),
                "due": Release(delivery, due=harness.now() + 100),
                "dead": DeadLetter(delivery=delivery, reason=DeadReason.FAILED),
            }
            return ways[kind]

        assert list(await broker.settle([settlement(first)])) == [], "settle: a held token is not refused"
        before = (await broker.depth(["q"]))["q"]
        again = settlement(second)
        assert list(await broker.settle([again])) == [again], "settle: settling twice is a refusal"
        after = (await broker.depth(["q"]))["q"]
        kept = [(each.ready, each.scheduled, each.leased, each.dead) for each in (before, after)]
        assert kept[0] == kept[1], "settle: a refused one changes nothing"
        expected = {"accept": (0, 0, 0, 0), "release": (1, 0, 0, 0), "dead": (0, 0, 0, 1)}
        assert kept[0] == expected[first], "settle: accept | release | dead-letter"

    @asynchronous
    async def test_twice_in_one_call(self, harness: Harness) -> None:
        broker = await harness.open_broker()
        await broker.publish([message("a")])
        delivery = await only(broker)
        first, second = Accept(delivery), Release(delivery)
        assert list(await broker.settle([first, second])) == [second], "settle: the first of one call counts"
        assert await take(broker) == [], "settle: the first of one call counts"

    @asynchronous
    async def test_a_mixed_batch_refuses_exactly_what_is_not_held(self, harness: Harness) -> None:
        broker = await harness.open_broker()
        await broker.publish(messages("a", "b", "c", "d", "e", "f"))
        taken = await take(broker)
        await accept(broker, [taken[1], taken[4]])
        batch: list[Settlement] = [
            Accept(taken[0]),
            Accept(taken[1]),
            Release(taken[2]),
            DeadLetter(delivery=taken[3], reason=DeadReason.REFUSED),
            DeadLetter(delivery=taken[4], reason=DeadReason.REFUSED),
            Release(taken[5], due=harness.now() + 100),
        ]
        assert list(await broker.settle(batch)) == [batch[1], batch[4]], "settle: returns those that were refused"
        depth = (await broker.depth(["q"]))["q"]
        assert (depth.ready, depth.scheduled, depth.leased, depth.dead) == (1, 1, 0, 1), "settle: the others are done"

    @asynchronous
    async def test_release_goes_to_the_front_unchanged(self, harness: Harness) -> None:
        broker, other = await harness.open_broker(), await harness.open_broker()
        await broker.publish(messages("a", "b", "c"))
        delivery = (await broker.claim(["q"], limit=1, wait=0.0))[0]
        await broker.settle([Release(delivery)])
        taken = await take(other)
        assert ids(taken) == ["a", "b", "c"], "release: to the front, so that it is next"
        assert taken[0].raw == delivery.raw, "release: without marks the stored bytes go back unchanged"
        assert (taken[0].redelivered, taken[0].marks) == (False, Marks()), "release: nothing ran, nothing is marked"

    @asynchronous
    async def test_several_released_keep_their_order(self, harness: Harness) -> None:
        broker = await harness.open_broker()
        await broker.publish([*messages("a", "b", "c", "d"), *messages("x", "y", queue="other")])
        taken = await broker.claim(["q", "other"], limit=5, wait=0.0)
        await broker.settle([Release(each) for each in taken if each.message.id in {"b", "c", "a", "x"}])
        assert ids(await take(broker, "q", "other")) == ["a", "b", "c", "x", "y"], "release: in the order of the call"

    @asynchronous
    async def test_release_keeps_the_priority(self, harness: Harness) -> None:
        broker = await harness.open_broker()
        await broker.publish([message("high"), message("low", priority=6)])
        taken = await take(broker)
        await broker.settle([Release(taken[1])])
        await broker.publish([message("new", priority=3)])
        await broker.settle([Release(taken[0])])
        assert ids(await take(broker)) == ["high", "new", "low"], "release: to the front of its own priority step"

    @asynchronous
    async def test_release_back_goes_behind(self, harness: Harness) -> None:
        broker = await harness.open_broker()
        await broker.publish(messages("a", "b", "c"))
        taken = await broker.claim(["q"], limit=2, wait=0.0)
        await broker.settle([Release(taken[0], back=True), Release(taken[1])])
        assert ids(await take(broker)) == ["b", "c", "a"], "release: back puts it behind the waiting ones"

    @pytest.mark.parametrize("way", ["front", "back", "due"])
    @asynchronous
    async def test_release_with_marks_replaces_them(self, harness: Harness, way: str) -> None:
        broker = await harness.open_broker()
        await broker.publish([message("a", headers={"x-own": "kept"})])
        for marks in (Marks(crashes=2, suspect=True), Marks(parked_until=4e9, expired_leases=3), Marks()):
            due = harness.now() + 0.05 if way == "due" else None
            await broker.settle([Release(await only(broker), marks=marks, back=way == "back", due=due)])
            await harness.elapse(0.1 if way == "due" else 0.0)
            delivery = await only(broker)
            assert delivery.marks == marks, "release: marks replaces the message's marks"
            assert delivery.message.headers["x-own"] == "kept", "release: the rest stays"  # type: ignore[union-attr]
            await broker.settle([Release(delivery)])

    @asynchronous
    async def test_a_dead_letter_holds_everything(self, harness: Harness) -> None:
        broker, other = await harness.open_broker(), await harness.open_broker()
        await broker.publish([message("a", task="x.y", headers={"x-own": "ü"}, body=b"\0\xff not text")])
        await broker.settle([Release(await only(broker), marks=Marks(crashes=2))])
        delivery = await only(broker)
        facts: dict[str, Any] = {
            "reason": DeadReason.CRASHED,
            "detail": "signal 9 (SIGKILL) ü\n'\"",
            "exception": "WorkerLostError('ü')",
            "traceback": "Traceback …\n  line\n",
            "worker": "w1@host",
            "at": 1_800_000_000.25,
        }
        assert not await broker.settle([DeadLetter(delivery=delivery, **facts)]), "settle: a held token is not refused"
        assert await take(broker) == [], "dead-letter: it does not run again"
        assert (await other.depth(["q"]))["q"] == Depth(dead=1), "depth: counts dead letters"
        (record,) = await other.dead()
        got = {name: getattr(record, name) for name in facts}
        assert got == facts, "dead: all that the settlement says"
        assert (record.id, record.task, record.queue, record.crashes) == ("a", "x.y", "q", 2), "dead: who it was"
        assert record.raw == delivery.raw, "dead: the bytes as they were stored"
        assert record.key, "dead: each has a key"

    @asynchronous
    async def test_the_newest_dead_letters_first(self, harness: Harness) -> None:
        broker = await harness.open_broker()
        for name, queue in (("a", "q"), ("b", "other"), ("c", "q"), ("d", "other"), ("e", "q")):
            await broker.publish([message(name, queue)])
            delivery = await only(broker, queue)
            at = harness.now()
            await broker.settle([DeadLetter(delivery=delivery, reason=DeadReason.FAILED, at=at)])
            await harness.elapse(0.002)
        assert [each.id for each in await broker.dead()] == ["e", "d", "c", "b", "a"], "dead: the newest first"
        assert [each.id for each in await broker.dead(limit=2)] == ["e", "d"], "dead: up to limit"
        assert [each.id for each in await broker.dead(queue="q")] == ["e", "c", "a"], "dead: of one queue"
        assert [each.id for each in await broker.dead(queue="q", limit=1)] == ["e"], "dead: of one queue, up to limit"
        assert list(await broker.dead(queue="none")) == [], "dead: of one queue"
        keys = {each.key for each in await broker.dead()}
        assert len(keys) == 5, "dead: keys are unique"

    @asynchronous
    async def test_dead_letters_beyond_the_limit_are_dropped(self, harness: Harness) -> None:
        broker = await harness.open_broker(dead_letter_limit=5)
        await broker.publish([message(f"id-{number}") for number in range(8)])
        for delivery in await take(broker):
            await broker.settle([DeadLetter(delivery=delivery, reason=DeadReason.FAILED, at=harness.now())])
            await harness.elapse(0.002)
        await broker.maintain()
        kept = [each.id for each in await broker.dead()]
        assert kept == ["id-7", "id-6", "id-5", "id-4", "id-3"], "maintain: drops dead letters past their number"
        assert (await broker.depth(["q"]))["q"].dead == 5, "depth: after dead letters were dropped"

    @asynchronous
    async def test_dead_letters_past_their_time_are_dropped(self, harness: Harness) -> None:
        broker = await harness.open_broker(dead_letter_expires=2 * harness.soon)
        await broker.publish(messages("old", "new"))
        old, new = await take(broker)
        await broker.settle([DeadLetter(delivery=old, reason=DeadReason.FAILED, at=harness.now())])
        await harness.lapse(harness.soon)
        await broker.settle([DeadLetter(delivery=new, reason=DeadReason.FAILED, at=harness.now())])
        await broker.maintain()
        assert len(await broker.dead()) == 2, "maintain: keeps dead letters until their time is over"
        await harness.lapse(harness.soon + 0.05)
        await broker.maintain()
        assert [each.id for each in await broker.dead()] == ["new"], "maintain: drops dead letters past their time"
        assert (await broker.depth(["q"]))["q"].dead == 1, "depth: after dead letters were dropped"
