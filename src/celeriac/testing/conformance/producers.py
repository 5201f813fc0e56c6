"""Conformance: the blocking publisher: threads, forks, whole batches."""

from __future__ import annotations

import asyncio

from celeriac.exceptions import OperationalError
from celeriac.model.message import Message
from celeriac.model.settle import Release
from celeriac.testing.conformance.harness import Harness
from celeriac.testing.conformance.tools import Background, asynchronous, child, ended, ids, message, messages, take

__all__ = ["Producers"]


class Producers:
    """``Publisher``."""

    @asynchronous
    async def test_a_publisher_feeds_a_broker(self, harness: Harness) -> None:
        broker, publisher = await harness.open_broker(), harness.publisher()
        publisher.publish([], timeout=5.0)
        publisher.publish([message("low", priority=9), message("a"), message("b", "other")], timeout=5.0)
        publisher.publish([message("c")], timeout=5.0)
        taken = ids(await take(broker, "q", "other"))
        expected = ["a", "c", "b", "low"] if harness.one_server else ["a", "c", "low", "b"]
        assert taken == expected, "publish: as Broker.publish"
        publisher.close()

    @asynchronous
    async def test_large_batches(self, harness: Harness) -> None:
        broker, publisher = await harness.open_broker(), harness.publisher()
        names = [f"id-{number}" for number in range(3000)]
        publisher.publish(messages(*names), timeout=10.0)
        publisher.close()
        assert ids(await take(broker, limit=5000)) == names, "publish: any number in one call, in order"

    @asynchronous
    async def test_a_stage_is_published_in_one_step(self, harness: Harness) -> None:
        broker, publisher = await harness.open_broker(), harness.publisher()
        publisher.publish(messages("before", "next"), timeout=5.0)
        publisher.stage([message("a"), message("low", priority=9), message("x", "other")], stage="s", timeout=5.0)
        publisher.stage(messages("b", "c"), stage="s", timeout=5.0)
        publisher.stage(messages("never"), stage="t", timeout=5.0)
        assert ids(await take(broker, limit=1)) == ["before"], "stage: nobody can claim them"
        depth = publisher.depth(["q", "other"], timeout=5.0)
        assert [depth[name].ready for name in ("q", "other")] == [1, 0], "stage: nobody can claim them"
        assert publisher.purge("other", timeout=5.0) == 0, "stage: nobody can purge them"
        publisher.publish(messages("between"), timeout=5.0)
        publisher.launch("s", count=5, timeout=5.0)
        got = ids(await take(broker, "q", limit=10))
        assert got[0] == "next", "launch: behind what was ready before the stage"
        assert [name for name in got if name in {"a", "b", "c"}] == ["a", "b", "c"], "launch: in order"
        assert got[-1] == "low", "launch: priorities as in publish"
        assert sorted(got) == ["a", "b", "between", "c", "low", "next"], "launch: all of it, and no other stage"
        assert ids(await take(broker, "other")) == ["x"], "launch: into the queues of the messages"
        publisher.close()

    @asynchronous
    async def test_a_launch_wakes_who_waits(self, harness: Harness) -> None:
        broker, publisher = await harness.open_broker(), harness.publisher()
        waiting = asyncio.ensure_future(broker.claim(["q"], limit=5, wait=20.0))
        publisher.stage(messages("a", "b"), stage="s", timeout=5.0)
        await asyncio.sleep(0.05)
        assert not waiting.done(), "stage: nobody can claim them"
        await asyncio.to_thread(publisher.launch, "s", count=2, timeout=5.0)
        assert ids(await waiting) == ["a", "b"], "launch: publishes"
        publisher.close()

    @asynchronous
    async def test_a_stage_that_is_not_whole_is_not_launched(self, harness: Harness) -> None:
        broker, publisher = await harness.open_broker(), harness.publisher()
        publisher.stage(messages("a", "b"), stage="s", timeout=5.0)
        for name, count in (("s", 3), ("s", 1), ("unknown", 2)):
            try:
                publisher.launch(name, count=count, timeout=5.0)
            except OperationalError:
                continue
            raise AssertionError("launch: OperationalError when there are not so many")
        assert ids(await take(broker)) == [], "launch: nothing is published then"
        publisher.launch("s", count=2, timeout=5.0)
        try:
            publisher.launch("s", count=2, timeout=5.0)
        except OperationalError:
            pass
        else:
            raise AssertionError("launch: a stage is launched once")
        assert ids(await take(broker)) == ["a", "b"], "launch: once"
        publisher.close()

    @asynchronous
    async def test_a_staged_message_is_not_early(self, harness: Harness) -> None:
        broker, publisher = await harness.open_broker(), harness.publisher()
        due = harness.now() + 2 * harness.soon
        publisher.stage([message("later", due=due), message("now")], stage="s", timeout=5.0)
        publisher.launch("s", count=2, timeout=5.0)
        first = await take(broker)
        early = [each for each in first if isinstance(each.message, Message) and each.message.due is not None]
        assert ids([each for each in first if each not in early]) == ["now"], "launch: as publish"
        await broker.settle([Release(each, due=due) for each in early])
        assert ids(await take(broker)) == [], "launch: never early"
        await harness.lapse(2 * harness.soon + 0.05)
        assert ids(await take(broker)) == ["later"], "launch: schedules what is to come"
        publisher.close()

    def test_depth_and_purge(self, harness: Harness) -> None:
        publisher = harness.publisher()
        publisher.publish([message("a"), message("b", priority=9), message("c", "other")], timeout=5.0)
        depth = publisher.depth(["q", "other", "none"], timeout=5.0)
        assert [depth[name].ready for name in ("q", "other", "none")] == [2, 1, 0], "depth: as Broker.depth"
        assert publisher.purge("q", timeout=5.0) == 2, "purge: as Broker.purge"
        assert publisher.depth(["q"], timeout=5.0)["q"].ready == 0, "purge: as Broker.purge"
        publisher.close()

    @asynchronous
    async def test_a_publisher_serves_many_threads(self, harness: Harness) -> None:
        broker, publisher = await harness.open_broker(), harness.publisher(pool_limit=3)

        def produce(thread: int) -> None:
            for number in range(40):
                publisher.publish([message(f"{thread}-{number}"), message(f"{thread}-{number}b")], timeout=10.0)

        threads = [Background(lambda thread=thread: produce(thread)) for thread in range(8)]  # type: ignore[misc]
        for thread in threads:
            await asyncio.to_thread(thread.join)
        publisher.close()
        got = ids(await take(broker, limit=2000))
        assert len(got) == len(set(got)) == 640, "publish: safe in threads, each message once"
        for thread_number in range(8):
            own = [name for name in got if name.startswith(f"{thread_number}-")]
            expected = [f"{thread_number}-{number}{part}" for number in range(40) for part in ("", "b")]
            assert own == expected, "publish: in order for each thread"

    @asynchronous
    async def test_a_publisher_survives_forks(self, harness: Harness) -> None:
        broker, publisher = await harness.open_broker(), harness.publisher()
        publisher.publish([message("before")], timeout=5.0)

        def produce(name: str) -> None:
            for number in range(20):
                publisher.publish([message(f"{name}-{number}")], timeout=5.0)

        pids = [child(lambda name=name: produce(name)) for name in ("one", "two")]  # type: ignore[misc]
        produce("parent")
        codes = [await asyncio.to_thread(ended, pid) for pid in pids]
        publisher.publish([message("after")], timeout=5.0)
        publisher.close()
        assert codes == [0, 0], "publish: survives a fork"
        names = ["parent", *(["one", "two"] if harness.between_processes else [])]
        expected = sorted(["before", "after", *(f"{name}-{number}" for name in names for number in range(20))])
        assert sorted(ids(await take(broker))) == expected, "publish: after a fork, in parent and children, each once"

    @asynchronous
    async def test_a_fork_beside_a_publishing_thread(self, harness: Harness) -> None:
        broker, publisher = await harness.open_broker(), harness.publisher()
        publisher.publish([message()], timeout=5.0)

        def produce() -> None:
            for _ in range(150):
                publisher.publish([message()], timeout=5.0)

        publishing = Background(produce)
        pids = [child(lambda: publisher.publish([message(task="from.child")], timeout=5.0)) for _ in range(8)]
        codes = [await asyncio.to_thread(ended, pid) for pid in pids]
        await asyncio.to_thread(publishing.join)
        publisher.close()
        assert codes == [0] * 8, "publish: survives a fork while another thread publishes"
        taken = await take(broker)
        mine = [each for each in taken if each.message.task == "conformance.task"]
        assert len(mine) == 151, "publish: a fork disturbs no thread of the parent"
        assert len(taken) - len(mine) == (8 if harness.between_processes else 0), "publish: from children, each once"
