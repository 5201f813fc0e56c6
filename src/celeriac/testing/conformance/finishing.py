"""Conformance: ``Unified.finish``, where broker and result store are one server."""

from __future__ import annotations

import asyncio

import pytest

from celeriac.exceptions import OperationalError
from celeriac.model.message import Delivery, Marks
from celeriac.model.settle import Accept, Completion, DeadLetter, DeadReason, Release, Settlement, Verdict
from celeriac.testing.conformance.harness import Harness
from celeriac.testing.conformance.results import record
from celeriac.testing.conformance.tools import asynchronous, ids, message, messages, only, take, unified

__all__ = ["Finishing"]


def _completion(delivery: Delivery, *follow_ups: str) -> Completion:
    sent = [message(name, "next") for name in follow_ups]
    return Completion(settlement=Accept(delivery), publish=sent, result=record(delivery.message.id))


class Finishing:
    """``finish``: publish, store, settle; all or nothing, per completion."""

    @asynchronous
    async def test_done_means_all_of_it(self, harness: Harness) -> None:
        broker, store = await harness.open_broker(), await harness.open_store()
        await broker.publish([message("a")])
        done = await unified(harness, broker).finish([_completion(await only(broker), "b", "c")])
        assert list(done) == [Verdict.DONE], "finish: done"
        assert list(await store.get(["a"])) == [record("a").body], "finish: stores"
        assert (await broker.depth(["q"]))["q"].leased == 0, "finish: settles"
        assert ids(await take(broker, "q", "next")) == ["b", "c"], "finish: publishes in order"

    @asynchronous
    async def test_a_settlement_alone(self, harness: Harness) -> None:
        broker, store = await harness.open_broker(), await harness.open_store()
        await broker.publish([message("a")])
        done = await unified(harness, broker).finish([Completion(settlement=Accept(await only(broker)))])
        assert list(done) == [Verdict.DONE], "finish: nothing to publish or store"
        assert list(await store.get(["a"])) == [None], "finish: stores nothing without a result"

    @asynchronous
    async def test_a_fenced_one_writes_nothing(self, harness: Harness) -> None:
        late, rightful = await harness.open_broker(lease=harness.lease), await harness.open_broker()
        store = await harness.open_store()
        await late.publish([message("a")])
        old = await only(late)
        await harness.lapse(harness.lease * 1.2)
        await rightful.maintain()
        new = await only(rightful)
        verdicts = await unified(harness, late).finish([_completion(old, "wrong")])
        assert list(verdicts) == [Verdict.FENCED], "finish: fenced when the token is gone"
        assert list(await store.get(["a"])) == [None], "finish: a fenced one stores nothing"
        assert await take(rightful, "next") == [], "finish: a fenced one publishes nothing"
        assert list(await rightful.extend([new])) == [], "finish: a fenced one leaves the rightful holder alone"
        verdicts = await unified(harness, rightful).finish([_completion(new, "right")])
        assert list(verdicts) == [Verdict.DONE], "finish: the rightful holder's is done"
        assert ids(await take(rightful, "next")) == ["right"], "finish: the rightful holder's is done"

    @asynchronous
    async def test_finishing_twice_is_fenced(self, harness: Harness) -> None:
        broker, store = await harness.open_broker(), await harness.open_store()
        await broker.publish([message("a")])
        delivery = await only(broker)
        twice = [_completion(delivery, "b"), _completion(delivery, "c")]
        assert list(await unified(harness, broker).finish(twice)) == [Verdict.DONE, Verdict.FENCED], "finish: once"
        await store.forget(["a"])
        assert list(await unified(harness, broker).finish(twice)) == [Verdict.FENCED] * 2, "finish: once"
        assert list(await store.get(["a"])) == [None], "finish: a fenced one stores nothing"
        assert ids(await take(broker, "next")) == ["b"], "finish: a fenced one publishes nothing"

    @asynchronous
    async def test_verdicts_come_in_order(self, harness: Harness) -> None:
        broker, store = await harness.open_broker(), await harness.open_store()
        await broker.publish(messages("a", "b", "c", "d", "e"))
        taken = await take(broker)
        await broker.settle([Accept(taken[1]), Accept(taken[3])])
        verdicts = await unified(harness, broker).finish(
            [_completion(each, f"after {each.message.id}") for each in taken]
        )
        done, fenced = Verdict.DONE, Verdict.FENCED
        assert list(verdicts) == [done, fenced, done, fenced, done], "finish: verdicts in the order of the completions"
        assert ids(await take(broker, "next")) == ["after a", "after c", "after e"], "finish: each on its own"
        there = [body is not None for body in await store.get(["a", "b", "c", "d", "e"])]
        assert there == [True, False, True, False, True], "finish: each on its own"

    @asynchronous
    async def test_a_follow_up_may_be_due_later(self, harness: Harness) -> None:
        broker = await harness.open_broker()
        await broker.publish([message("a")])
        later = message("later", due=harness.now() + harness.soon)
        done = Completion(settlement=Accept(await only(broker)), publish=[later, message("now")])
        assert list(await unified(harness, broker).finish([done])) == [Verdict.DONE]
        assert ids(await take(broker)) == ["now"], "finish: a due follow-up goes to the schedule"
        await harness.lapse(harness.soon + 0.05)
        assert ids(await take(broker)) == ["later"], "finish: a due follow-up comes when its time has come"

    @asynchronous
    async def test_a_retry_is_released_with_its_state(self, harness: Harness) -> None:
        broker, store = await harness.open_broker(), await harness.open_store()
        await broker.publish([message("a")])
        delivery = await only(broker)
        back = Release(delivery, due=harness.now() + harness.soon, marks=Marks(crashes=1))
        done = Completion(settlement=back, result=record("a", "RETRY"))
        assert list(await unified(harness, broker).finish([done])) == [Verdict.DONE]
        assert list(await store.get(["a"])) == [record("a", "RETRY").body], "finish: stores with any settlement"
        assert await take(broker) == [], "finish: releases with a due time"
        await harness.lapse(harness.soon + 0.05)
        assert (await only(broker)).marks == Marks(crashes=1), "finish: releases with marks"

    @asynchronous
    async def test_every_settlement(self, harness: Harness) -> None:
        broker, store = await harness.open_broker(), await harness.open_store()
        await broker.publish(messages("a", "b", "c", "d"))
        taken = await broker.claim(["q"], limit=3, wait=0.0)
        dead = DeadLetter(delivery=taken[0], reason=DeadReason.FAILED, detail="why")
        settlements: list[Settlement] = [dead, Release(taken[1]), Release(taken[2], back=True)]
        done = [Completion(settlement=each, result=record(each.delivery.message.id, "FAILURE")) for each in settlements]
        assert list(await unified(harness, broker).finish(done)) == [Verdict.DONE] * 3
        (letter,) = await broker.dead()
        assert (letter.id, letter.reason, letter.detail) == ("a", "failed", "why"), "finish: dead-letters"
        assert ids(await take(broker)) == ["b", "d", "c"], "finish: releases to the front and to the back"
        assert None not in await store.get(["a", "b", "c"]), "finish: stores with any settlement"

    @asynchronous
    async def test_finish_keeps_a_success(self, harness: Harness) -> None:
        broker, store = await harness.open_broker(), await harness.open_store()
        await store.put([record("a", "SUCCESS", 1)])
        await broker.publish([message("a")])
        done = Completion(settlement=Accept(await only(broker)), result=record("a", "RETRY"))
        assert list(await unified(harness, broker).finish([done])) == [Verdict.DONE]
        assert list(await store.get(["a"])) == [record("a", "SUCCESS", 1).body], "finish: SUCCESS stays, as with put"

    @asynchronous
    async def test_it_wakes_claims_and_readers(self, harness: Harness) -> None:
        broker, other, reader = await harness.open_broker(), await harness.open_broker(), harness.reader()
        finishing = unified(harness, broker)
        await broker.publish([message("a")])
        delivery = await only(broker)
        claiming = asyncio.ensure_future(other.claim(["next"], limit=1, wait=20.0))
        waiting = asyncio.ensure_future(asyncio.to_thread(reader.wait, ["a"], timeout=10.0))
        await harness.elapse(0.1)
        await asyncio.sleep(0.05)
        await finishing.finish([_completion(delivery, "b")])
        async with asyncio.timeout(harness.late * 3):
            assert ids(await claiming) == ["b"], "finish: a follow-up wakes a waiting claim"
            assert await waiting == "a", "finish: a result wakes its reader"
        reader.close()

    @asynchronous
    async def test_many_completions_at_once(self, harness: Harness) -> None:
        broker, store = await harness.open_broker(), await harness.open_store()
        names = [f"id-{number}" for number in range(1200)]
        await broker.publish(messages(*names))
        taken = await take(broker, limit=2000)
        verdicts = await unified(harness, broker).finish(
            [_completion(each, f"after {each.message.id}") for each in taken]
        )
        assert list(verdicts) == [Verdict.DONE] * 1200, "finish: any number in one call"
        assert ids(await take(broker, "next", limit=2000)) == [f"after {name}" for name in names], "finish: in order"
        assert None not in await store.get(names), "finish: stores all"

    @asynchronous
    async def test_a_large_result_and_follow_up(self, harness: Harness) -> None:
        broker, store = await harness.open_broker(), await harness.open_store()
        await broker.publish([message("a")])
        body = bytes(range(256)) * 8000
        delivery = await only(broker)
        done = Completion(
            settlement=Accept(delivery), publish=[message("b", body=body)], result=record("a", result="x" * 2_000_000)
        )
        assert list(await unified(harness, broker).finish([done])) == [Verdict.DONE], "finish: 2 MB"
        assert (await only(broker)).message.body == body, "finish: 2 MB unchanged"  # type: ignore[union-attr]
        assert list(await store.get(["a"])) == [record("a", result="x" * 2_000_000).body], "finish: 2 MB unchanged"

    @asynchronous
    async def test_one_that_cannot_be_encoded_disturbs_no_other(self, harness: Harness) -> None:
        broker, store = await harness.open_broker(), await harness.open_store()
        await broker.publish(messages("a", "b", "c"))
        taken = await take(broker)
        bad = Completion(
            settlement=Accept(taken[1]), publish=[message("bad", headers={"x": object()})], result=record("b")
        )
        done = [_completion(taken[0]), bad, _completion(taken[2])]
        verdicts = list(await unified(harness, broker).finish(done))
        assert verdicts == [Verdict.DONE, Verdict.STEPWISE, Verdict.DONE], "finish: one does not disturb the others"
        assert list(await store.get(["b"])) == [None], "finish: stepwise means that nothing was written"
        assert list(await broker.extend([taken[1]])) == [], "finish: stepwise means that nothing was written"

    @asynchronous
    async def test_a_spoilt_queue_writes_nothing_half(self, harness: Harness) -> None:
        broker, store = await harness.open_broker(), await harness.open_store()
        await broker.publish([message("a")])
        delivery = await only(broker)
        done = Completion(settlement=Accept(delivery), publish=[message("b"), message("c", "bad")], result=record("a"))
        await harness.spoil("bad")
        try:
            verdicts = list(await unified(harness, broker).finish([done]))
        except OperationalError:
            verdicts = [Verdict.STEPWISE]
        assert verdicts == [Verdict.STEPWISE], "finish: done only when all of it was written"
        assert list(await store.get(["a"])) == [None], "finish: stepwise means that nothing was written"
        assert await take(broker, "q") == [], "finish: stepwise means that nothing was written"
        assert list(await broker.extend([delivery])) == [], "finish: stepwise means that nothing was written"
        await harness.heal("bad")
        assert list(await unified(harness, broker).finish([done])) == [Verdict.DONE], "finish: can be tried again"
        assert sorted(ids(await take(broker, "q", "bad"))) == ["b", "c"], "finish: each follow-up once"

    @pytest.mark.parametrize("way", ["accept", "release", "dead"])
    @asynchronous
    async def test_settle_and_finish_share_their_tokens(self, harness: Harness, way: str) -> None:
        broker, store = await harness.open_broker(), await harness.open_store()
        await broker.publish([message("a")])
        delivery = await only(broker)
        ways: dict[str, Settlement] = {
            "accept": Accept(delivery),
            "release": Release(delivery),
            "dead": DeadLetter(delivery=delivery, reason=DeadReason.FAILED),
        }
        await broker.settle([ways[way]])
        assert list(await unified(harness, broker).finish([_completion(delivery, "b")])) == [Verdict.FENCED]
        assert list(await store.get(["a"])) == [None], "finish: fenced after a settle"
        assert await take(broker, "next") == [], "finish: fenced after a settle"
