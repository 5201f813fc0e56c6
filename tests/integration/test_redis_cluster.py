"""Redis Cluster while it changes: slots move, nodes die, replicas take over."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from celeriac import Celery, chord, group
from celeriac.brokers.redis import cluster
from celeriac.brokers.redis.cluster.slots import HOME, bucket_of, bucket_tags, queue_tag, slot_of, tagged
from celeriac.codec import envelope
from celeriac.contrib.testing.worker import start_worker
from celeriac.exceptions import OperationalError
from celeriac.model.message import Message
from celeriac.model.settle import Accept, StoredResult
from celeriac.ports import AdapterOptions
from tests.servers import RedisCluster, RedisServer, eventually, promptly, wait_until

MakeCluster = Callable[..., RedisCluster]
SUCCESS = b'{"status": "SUCCESS", "result": 1}'


@pytest.fixture(scope="module")
def nodes(make_cluster: MakeCluster) -> Iterator[RedisCluster]:
    nodes = make_cluster()
    yield nodes
    nodes.close()


@pytest.fixture
def empty(nodes: RedisCluster) -> RedisCluster:
    nodes.flush()
    return nodes


def message(queue: str, task_id: str = "") -> Message:
    task_id = task_id or envelope.new_id()
    return Message(id=task_id, task="t", headers={"task": "t", "id": task_id}, body=b"[]", queue=queue)


def queue_slot(queue: str) -> int:
    return slot_of(tagged("", queue_tag(queue)))


async def taken(broker: Any, *queues: str, count: int) -> set[str]:
    """Ids of so many messages."""
    found: set[str] = set()
    while len(found) < count:
        found |= {each.message.id for each in await broker.claim(queues, limit=5, wait=60.0)}
    return found


def queue_on(nodes: RedisCluster, wanted: RedisServer, *, unlike: str = "") -> str:
    """A name of a queue that lies on that node."""
    names = (f"q{number}" for number in itertools.count())
    return next(name for name in names if name != unlike and nodes.node_of(name) is wanted)


def test_a_slot_moves_under_load(empty: RedisCluster) -> None:
    """Back and forth, while messages are sent and taken: none is lost, none comes twice."""
    nodes, options = empty, AdapterOptions(owner="me")
    publisher, over = cluster.publisher(nodes.url(), options), threading.Event()
    sent: list[str] = []

    def send() -> None:
        while not over.is_set():
            batch = [message("moving") for _ in range(3)]
            publisher.publish(batch[:1], timeout=60)
            publisher.publish(batch[1:], timeout=60)
            sent.extend(each.id for each in batch)

    async def take() -> list[str]:
        broker = cluster.broker(nodes.url(), options)
        await broker.open()
        taken: list[str] = []
        while not over.is_set() or len(taken) < len(sent):
            held = await broker.claim(["moving"], limit=10, wait=0.5)
            assert await broker.extend(held) == []
            assert await broker.settle([Accept(each) for each in held]) == []
            taken += (each.message.id for each in held)
        await broker.close()
        return taken

    async def main() -> list[str]:
        taking = asyncio.create_task(take())
        sending = asyncio.create_task(asyncio.to_thread(send))
        for turn in range(6):
            await eventually(lambda turn=turn: len(sent) > 60 * (turn + 1), 60)
            await asyncio.to_thread(nodes.move, queue_slot("moving"), nodes.nodes[turn % 3])
        over.set()
        await sending
        return await taking

    try:
        found = asyncio.run(asyncio.wait_for(main(), 300))
    finally:
        over.set()
        publisher.close()
    assert sorted(found) == sorted(sent)


def test_what_comes_while_a_slot_moves_waits_for_it(empty: RedisCluster) -> None:
    nodes, options = empty, AdapterOptions(owner="me")
    publisher = cluster.publisher(nodes.url(), options)
    publisher.publish([message("q", "a")], timeout=30.0)
    slot = queue_slot("q")
    target = next(node for node in nodes.nodes if node is not nodes.node_of("q"))

    async def main() -> None:
        broker = cluster.broker(nodes.url(), options)
        await broker.open()
        source = nodes.begin_move(slot, target)
        nodes.move_keys(slot, source, target)
        # Some keys are here, some there, most nowhere.
        source.command("CLUSTER", "COUNTKEYSINSLOT", slot)
        sending = asyncio.create_task(asyncio.to_thread(publisher.publish, [message("q", "b")], timeout=60))
        taking = asyncio.create_task(broker.claim(["q"], limit=1, wait=60.0))
        done, _ = await asyncio.wait([sending, taking], timeout=0.5)
        assert not done
        nodes.end_move(slot, source, target)
        await sending
        (held,) = await taking
        assert held.message.id == "a"
        (other,) = await broker.claim(["q"], limit=1, wait=60.0)
        assert other.message.id == "b"
        await broker.close()

    asyncio.run(asyncio.wait_for(main(), 120))
    publisher.close()


def test_an_idle_worker_hears_of_a_queue_that_has_moved(empty: RedisCluster) -> None:
    """An empty slot goes without a word: nothing there changes."""
    nodes, options = empty, AdapterOptions(owner="me")
    publisher = cluster.publisher(nodes.url(), options)

    async def main() -> None:
        broker = cluster.broker(nodes.url(), options)
        await broker.open()

        async def hears() -> None:
            waiting = asyncio.create_task(broker.claim(["idle"], limit=1, wait=60.0))
            await eventually(lambda: nodes.node_of("idle").info("stats")["tracking_total_keys"] != "0", 60)
            target = next(node for node in nodes.nodes if node is not nodes.node_of("idle"))
            nodes.move(queue_slot("idle"), target)
            await asyncio.to_thread(publisher.publish, [message("idle")], timeout=30.0)
            assert len(await waiting) == 1

        await promptly(3.0, hears)
        await broker.close()

    asyncio.run(asyncio.wait_for(main(), 300))
    publisher.close()


def test_a_node_that_is_away_stops_its_queues_alone(make_cluster: MakeCluster) -> None:
    with make_cluster(appendonly=True) as nodes:
        home = nodes.node_of_slot(slot_of(tagged("", HOME)))
        away = next(node for node in nodes.nodes if node is not home)
        lame, well = queue_on(nodes, away), queue_on(nodes, home)
        options = AdapterOptions(owner="me")
        publisher, reader = cluster.publisher(nodes.url(), options), cluster.reader(nodes.url(), options)
        publisher.publish([message(lame, "l"), message(well, "w1")], timeout=30.0)
        lost_id = next(
            f"id-{number}"
            for number in itertools.count()
            if nodes.node_of_slot(slot_of(tagged("", bucket_tags()[bucket_of(f"id-{number}")]))) is away
        )

        async def main() -> None:
            broker, store = cluster.broker(nodes.url(), options), cluster.store(nodes.url(), options)
            await broker.open(), await store.open()
            assert await taken(broker, lame, well, count=2) == {"l", "w1"}

            async def outage() -> float:
                """Seconds from the start of the node to the end of all that waits for it."""
                away.kill()
                publisher.publish([message(well, "w2")], timeout=30.0)
                with pytest.raises(OperationalError):
                    publisher.publish([message(lame)], timeout=1.0)
                (held,) = await broker.claim([lame, well], limit=5, wait=60.0)
                assert held.message.id == "w2"
                assert await broker.settle([Accept(held)]) == []
                waiting = asyncio.create_task(asyncio.to_thread(reader.wait, [lost_id], timeout=60))
                for _ in range(3):
                    with pytest.raises(OperationalError):
                        await store.put([StoredResult(lost_id, SUCCESS, True, 60.0)])
                await asyncio.to_thread(away.start)
                began = time.monotonic()
                while True:
                    try:
                        await store.put([StoredResult(lost_id, SUCCESS, True, 60.0)])
                        break
                    except OperationalError:
                        await asyncio.sleep(0.05)
                await asyncio.to_thread(publisher.publish, [message(lame, "again")], timeout=30.0)
                assert [each.message.id for each in await broker.claim([lame, well], limit=5, wait=60.0)] == ["again"]
                took = time.monotonic() - began
                assert await waiting == lost_id
                assert reader.get([lost_id], timeout=30.0) == [SUCCESS]
                await asyncio.to_thread(reader.forget, [lost_id], timeout=30.0)
                return took

            # A machine that stalls holds one of them up.
            assert await outage() < 3.0 or await outage() < 3.0 or await outage() < 3.0
            await broker.close(), await store.close()

        try:
            asyncio.run(asyncio.wait_for(main(), 300))
        finally:
            publisher.close(), reader.close()


def test_a_node_that_is_frozen_does_not_hold_other_queues_up(make_cluster: MakeCluster) -> None:
    with make_cluster() as nodes:
        home = nodes.node_of_slot(slot_of(tagged("", HOME)))
        frozen = next(node for node in nodes.nodes if node is not home)
        lame, well = queue_on(nodes, frozen), queue_on(nodes, home)
        publisher = cluster.publisher(nodes.url(), AdapterOptions())

        async def main() -> None:
            broker = cluster.broker(nodes.url(), AdapterOptions(owner="me"))
            await broker.open()
            publisher.publish([message(lame, "l1"), message(well, "w1")], timeout=30.0)
            assert await taken(broker, lame, well, count=2) == {"l1", "w1"}

            async def other(number: int) -> None:
                publisher.publish([message(well, f"w{number}")], timeout=30.0)
                (held,) = await broker.claim([lame, well], limit=5, wait=60.0)
                assert held.message.id == f"w{number}"

            async def freezes() -> None:
                publisher.publish([message(lame, "l2")], timeout=30.0)
                frozen.pause()
                began = time.monotonic()
                await other(0)
                took.append(time.monotonic() - began)
                for number in range(1, 5):
                    await promptly(0.5, lambda number=number: other(number))  # type: ignore[misc]
                frozen.resume()
                assert await taken(broker, lame, well, count=1) == {"l2"}

            took: list[float] = []
            while not took or (took[-1] >= 2.0 and len(took) < 3):  # a machine that stalls holds one of them up
                await freezes()
            assert took[-1] < 2.0
            await broker.close()

        try:
            asyncio.run(asyncio.wait_for(main(), 300))
        finally:
            frozen.resume()
            publisher.close()


@pytest.mark.extended
def test_a_replica_takes_over(make_cluster: MakeCluster) -> None:
    with make_cluster(replicas=True) as nodes:
        app = app_of(nodes)
        add: Any = app.tasks["cluster.add"]
        with start_worker(app, perform_ping_check=False):
            assert add.delay(1, 1).get(timeout=60) == 2
            old = nodes.node_of("celery")
            old.command("WAIT", 1, 1000)
            old.kill()
            # Whoever has most of its data takes over after a vote.
            wait_until(lambda: nodes.node_of("celery") is not old, 60, "a replica takes over")
            began = time.monotonic()
            wait_until(lambda: _sent(add), 60)
            assert time.monotonic() - began < 3.0
            assert [each.get(timeout=60) for each in (add.delay(n, n) for n in range(20))] == [2 * n for n in range(20)]
        app.sender.close()


def _sent(add: Any) -> bool:
    try:
        return bool(add.delay(2, 2).get(timeout=60) == 4)
    except OperationalError:
        return False


def app_of(nodes: RedisCluster, **conf: Any) -> Celery:
    app = Celery("cluster", broker=nodes.url(), backend=nodes.url(), set_as_current=False, **conf)
    app.task(name="cluster.add")(lambda x, y: x + y)
    app.task(name="cluster.total")(sum)
    app.task(name="cluster.alone", unique=True)(abs)
    app.task(name="cluster.seated", max_concurrency=1)(abs)
    app.task(name="cluster.paced", rate_limit="50/s")(abs)
    return app


@pytest.mark.parametrize("options", [{"password": "s3cret"}, {"user": "me", "password": "s3cret"}, {"tls": True}])
def test_accounts_and_tls(make_cluster: MakeCluster, options: dict[str, Any]) -> None:
    config: dict[str, str] = {}
    if "tls" in options:
        config = {"tls-cluster": "yes", "tls-replication": "yes"}
    with make_cluster(config=config, **options) as nodes:
        app = app_of(nodes)
        if "tls" in options:
            from tests.servers import tls_files

            url = nodes.url(ssl_ca_certs=str(tls_files()[0]))
            app.conf.update(broker_url=url, result_backend=url)
        add: Any = app.tasks["cluster.add"]
        with start_worker(app, perform_ping_check=False):
            assert [each.get(timeout=60) for each in [add.delay(n, n) for n in range(20)]] == [2 * n for n in range(20)]


def test_all_that_an_app_does(empty: RedisCluster) -> None:
    app = app_of(empty)
    task: Any = app.tasks
    add, total, alone = task["cluster.add"], task["cluster.total"], task["cluster.alone"]
    with start_worker(app, perform_ping_check=False, task_events=True, without_heartbeat=False):
        assert (add.s(1, 2) | add.s(3))().get(timeout=60) == 6
        assert chord([add.s(n, n) for n in range(10)], total.s())().get(timeout=60) == 90
        assert group(add.s(n, n) for n in range(1500))().get(timeout=60)[-1] == 2998
        assert add.apply_async((1, 1), countdown=0.3).get(timeout=60) == 2
        first, again = (add.apply_async((1, 2), idempotency_key="once") for _ in range(2))
        assert first.id == again.id
        assert alone.delay(-3).get(timeout=60) == 3
        assert alone.delay(-3).get(timeout=60) == 3
        assert sorted(each.get(timeout=60) for each in [task["cluster.seated"].delay(n) for n in range(3)]) == [0, 1, 2]
        assert [each.get(timeout=60) for each in [task["cluster.paced"].delay(n) for n in range(5)]] == [0, 1, 2, 3, 4]
        failed = add.delay(1, None)
        assert isinstance(failed.get(timeout=60, propagate=False), TypeError)
        # It lies on another node than the result, and is written behind it.
        wait_until(lambda: [each.id for each in app.dead_letters.list()] == [failed.id])
        assert app.dead_letters.retry(failed.id, args=(1, 2)).get(timeout=60) == 3
        assert app.dead_letters.count() == 0
        assert app.control.ping(timeout=60.0, limit=1)
        app.control.pause_queue("celery")
        waits = add.delay(4, 4)
        assert [*app.control.paused_queues()] == ["celery"]
        app.control.revoke(waits.id)
        app.control.resume_queue("celery")
        assert waits.get(timeout=60, propagate=False) is not None
        assert waits.state == "REVOKED"
    keys = [key for node in empty.nodes for key in node.command("KEYS", "*")]
    assert all(key.startswith(b"{") for key in keys), "a key without a tag"
