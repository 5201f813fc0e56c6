"""Conformance: what is published is claimed: whole, in order, in batches, by priority; depth and purge."""

from __future__ import annotations

import pytest

from celeriac.model.message import Marks
from celeriac.model.settle import DeadLetter, DeadReason
from celeriac.ports import Depth, Particular
from celeriac.testing.conformance.harness import Harness
from celeriac.testing.conformance.tools import asynchronous, ids, message, messages, only, take, well_formed

__all__ = ["Order"]


class Order:
    """``publish``, ``claim`` without waiting, ``depth``, ``purge``."""

    @asynchronous
    async def test_a_message_arrives_as_it_was_sent(self, harness: Harness) -> None:
        broker = await harness.open_broker()
        sent = message(
            "id-1",
            task="a.b.c",
            headers={
                "timelimit": [30, 20.5],
                "retries": 2,
                "expires": "2099-01-01T00:00:00+00:00",
                "x-own": {"deep": [1, None, "ü", True, 1.5]},
                "stamps": {},
            },
            body=b"[[1], {}, {}]",
            content_type="application/json",
            content_encoding="utf-8",
            exchange="",
            routing_key="q",
            priority=6,
            correlation_id="correlation",
            reply_to="reply",
            delivery_mode=1,
        )
        await broker.publish([sent])
        delivery = await only(broker)
        got = well_formed(delivery)
        fields = ("id", "task", "headers", "body", "queue", "content_type", "content_encoding", "routing_key")
        for name in (*fields, "priority", "correlation_id", "reply_to", "delivery_mode"):
            assert getattr(got, name) == getattr(sent, name), f"claim: the message's {name} as it was published"
        assert (got.time_limit, got.soft_time_limit, got.retries) == (30, 20.5, 2), "claim: headers are read"
        assert got.expires == 4070908800.0, "claim: headers are read"
        assert (delivery.queue, delivery.redelivered, delivery.marks) == ("q", False, Marks()), (
            "claim: a first delivery"
        )
        assert delivery.token, "claim: each delivery has a token"

    @asynchronous
    async def test_oldest_first(self, harness: Harness) -> None:
        broker, other = await harness.open_broker(), await harness.open_broker()
        names = [f"id-{number}" for number in range(30)]
        for few in (names[start : start + 7] for start in range(0, len(names), 7)):
            await broker.publish(messages(*few))
        assert ids(await broker.claim(["q"], limit=10, wait=0.0)) == names[:10], "claim: oldest first"
        assert ids(await other.claim(["q"], limit=10, wait=0.0)) == names[10:20], "claim: oldest first"
        assert ids(await broker.claim(["q"], limit=100, wait=0.0)) == names[20:], "claim: oldest first"
        assert list(await broker.claim(["q"], limit=100, wait=0.0)) == [], "claim: each message once"

    @pytest.mark.parametrize("limit", [1, 2, 99, 100])
    @asynchronous
    async def test_up_to_limit(self, harness: Harness, limit: int) -> None:
        broker = await harness.open_broker()
        await broker.publish([message() for _ in range(100)])
        assert len(await broker.claim(["q"], limit=limit, wait=0.0)) == limit, "claim: up to limit deliveries"
        assert (await broker.depth(["q"]))["q"].leased == limit, "claim: no more leases than deliveries"

    @asynchronous
    async def test_batches_beyond_a_thousand(self, harness: Harness) -> None:
        broker = await harness.open_broker()
        names = [f"id-{number}" for number in range(2500)]
        await broker.publish(messages(*names))
        taken = await take(broker, limit=5000)
        assert ids(taken) == names, "publish, claim: any number in one call, in order"
        assert len({each.token for each in taken}) == len(names), "claim: tokens are unique"
        assert list(await broker.extend(taken)) == [], "extend: any number in one call"
        refused = await broker.settle([DeadLetter(delivery=each, reason=DeadReason.FAILED) for each in taken])
        assert list(refused) == [], "settle: any number in one call"
        assert (await broker.depth(["q"]))["q"] == Depth(dead=2500), "depth: all dead letters"

    @asynchronous
    async def test_first_queue_first(self, harness: Harness) -> None:
        broker = await harness.open_broker()
        for queue in ("b", "c", "a", "hidden"):
            await broker.publish(messages(f"{queue}1", f"{queue}2", queue=queue))
        taken = await broker.claim(["c", "a", "b"], limit=5, wait=0.0)
        assert ids(taken) == ["c1", "c2", "a1", "a2", "b1"], "claim: first queue first within one priority step"
        assert [each.queue for each in taken] == ["c", "c", "a", "a", "b"], "claim: a delivery knows its queue"
        assert ids(await take(broker, "a", "b", "c")) == ["b2"], "claim: takes from the queues it names only"

    @asynchronous
    async def test_priorities_are_kombus_steps(self, harness: Harness) -> None:
        broker = await harness.open_broker()
        await broker.publish([message(f"p{priority}", priority=priority) for priority in range(9, -1, -1)])
        expected = ["p2", "p1", "p0", "p5", "p4", "p3", "p8", "p7", "p6", "p9"]
        taken = [each for _ in range(5) for each in await broker.claim(["q"], limit=2, wait=0.0)]
        assert ids(taken) == expected, "claim: steps 0, 3, 6, 9, rounded down, the lower first, oldest first within"
        assert [well_formed(each).priority for each in taken] == [2, 1, 0, 5, 4, 3, 8, 7, 6, 9], "claim: priority kept"

    @asynchronous
    async def test_a_priority_step_goes_across_queues(self, harness: Harness) -> None:
        harness.needs_one_server()
        broker = await harness.open_broker()
        for queue in ("a", "b"):
            await broker.publish([message(f"{queue}{priority}", queue, priority=priority) for priority in (9, 3, 0)])
        taken = await take(broker, "a", "b")
        assert ids(taken) == ["a0", "b0", "a3", "b3", "a9", "b9"], "claim: the lower step first, across all queues"

    @asynchronous
    async def test_depth_counts(self, harness: Harness) -> None:
        broker = await harness.open_broker()
        await broker.publish([message(priority=priority) for priority in (0, 3, 9, 9)])
        await broker.publish([message(due=harness.now() + 1000)])
        await broker.publish([message(queue="other")])
        taken = await broker.claim(["q"], limit=2, wait=0.0)
        await broker.settle([DeadLetter(delivery=taken[0], reason=DeadReason.REJECTED)])
        depth = await broker.depth(["q", "other", "none"])
        assert set(depth) == {"q", "other", "none"}, "depth: of each queue"
        counts = [(each.ready, each.scheduled, each.leased, each.dead) for each in depth.values()]
        assert counts == [(2, 1, 1, 1), (1, 0, 0, 0), (0, 0, 0, 0)], "depth: ready, scheduled, leased, dead"
        oldest = depth["q"].oldest
        assert oldest is None or 0 <= oldest < 60, "depth: age of the oldest ready message in seconds"
        assert depth["none"].oldest is None, "depth: no age where nothing is ready"

    @asynchronous
    async def test_purge_drops_ready_and_scheduled(self, harness: Harness) -> None:
        broker = await harness.open_broker()
        await broker.publish([message(priority=priority) for priority in (0, 0, 0, 3, 6, 9)])
        await broker.publish([message(due=harness.now() + 1000, priority=priority) for priority in (0, 9)])
        await broker.publish([message("kept", "other"), message("later", "other", due=harness.now() + 1000)])
        taken = await broker.claim(["q"], limit=2, wait=0.0)
        await broker.settle([DeadLetter(delivery=taken[0], reason=DeadReason.FAILED)])
        assert await broker.purge("q") == 6, "purge: returns how many were ready or scheduled"
        left = (await broker.depth(["q"]))["q"]
        assert left == Depth(leased=1, dead=1), "purge: leased and dead ones stay"
        assert await broker.purge("q") == 0, "purge: nothing is left"
        other = (await broker.depth(["other"]))["other"]
        assert (other.ready, other.scheduled) == (1, 1), "purge: of one queue"

    @asynchronous
    async def test_what_cannot_be_encoded_is_refused_whole(self, harness: Harness) -> None:
        broker, publisher = await harness.open_broker(), harness.publisher()
        bad = [message("good"), message("bad", headers={"x": object()})]
        with pytest.raises((TypeError, ValueError)):
            await broker.publish(bad)
        with pytest.raises((TypeError, ValueError)):
            publisher.publish(bad, timeout=5.0)
        publisher.close()
        assert await take(broker) == [], "publish: none of a call that raises for its messages"
        if isinstance(broker, Particular):
            with pytest.raises((TypeError, ValueError)):
                broker.check(bad[1])
            broker.check(bad[0])
