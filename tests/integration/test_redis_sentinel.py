"""Redis behind sentinels, or under several URLs: every side of the adapter finds the server, and finds it again."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from celeriac.brokers import redis
from celeriac.codec import envelope
from celeriac.exceptions import OperationalError
from celeriac.model.message import Message
from celeriac.model.settle import Accept, StoredResult
from celeriac.ports import AdapterOptions
from tests.servers import HOST, RedisSentinels, RedisServer, eventually, free_port, tls_files, wait_until

MakeRedis = Callable[..., RedisServer]
MakeSentinels = Callable[..., RedisSentinels]
SUCCESS = b'{"status": "SUCCESS", "result": 1}'


def message(queue: str = "q") -> Message:
    task_id = envelope.new_id()
    return Message(id=task_id, task="t", headers={"task": "t", "id": task_id}, body=b"[]", queue=queue)


def publish(publisher: Any, timeout: float = 5.0) -> bool:
    try:
        publisher.publish([message()], timeout=timeout)
    except OperationalError:
        return False
    return True


@pytest.fixture
def pair(make_redis: MakeRedis) -> Iterator[tuple[RedisServer, RedisServer]]:
    """A master and its replica."""
    with make_redis(config={"repl-diskless-sync-delay": "0"}) as master, make_redis() as replica:
        replica.command("REPLICAOF", HOST, master.port)
        wait_until(lambda: replica.info("replication")["master_link_status"] == "up", 60)
        yield master, replica


def test_all_sides_follow_the_master(make_sentinels: MakeSentinels) -> None:
    sentinels = make_sentinels(password="s3cret", sentinel_password="0ther")
    url = sentinels.url(db=2)
    options = AdapterOptions(transport={"sentinel_kwargs": {"password": "0ther"}}, owner="me")
    publisher, reader, caller = (make(url, options) for make in (redis.publisher, redis.reader, redis.caller))  # type: Any, Any, Any

    async def main() -> None:
        broker, store = redis.broker(url, options), redis.store(url, options)
        assert broker.traits.server == store.traits.server
        await broker.open(), await store.open()
        heard: asyncio.Queue[Any] = asyncio.Queue()

        async def listen() -> None:
            async for payload, _ in broker.listen("celery.pidbox"):
                await heard.put(payload)

        listening = asyncio.create_task(listen())
        waiting = asyncio.create_task(asyncio.to_thread(reader.wait, ["a"], timeout=60))
        old = sentinels.master
        await asyncio.to_thread(old.kill)
        with pytest.raises(OperationalError):
            await broker.claim(["q"], limit=1, wait=1.0)
        new = await asyncio.to_thread(sentinels.failed_over, old)
        began = time.monotonic()
        assert publish(publisher)
        (delivery,) = await broker.claim(["q"], limit=1, wait=5.0)
        assert await broker.settle([Accept(delivery)]) == []
        await store.put([StoredResult("a", SUCCESS, True, 60.0)])
        assert time.monotonic() - began < 3.0
        assert await waiting == "a"
        assert reader.get(["a"], timeout=30.0) == [SUCCESS]

        async def called() -> None:
            await asyncio.to_thread(caller.call, {"method": "ping"}, timeout=0.1, reply=False)

        while heard.empty():
            await called()
            await asyncio.sleep(0.05)
        assert new.command("EXISTS", "celery-task-meta-a", db=2)
        listening.cancel()
        await broker.close(), await store.close()

    try:
        asyncio.run(asyncio.wait_for(main(), 60))
    finally:
        publisher.close(), reader.close(), caller.close()


@pytest.mark.extended
def test_an_ordered_failover_loses_nothing_that_replicas_confirmed(make_sentinels: MakeSentinels) -> None:
    """``SENTINEL FAILOVER``: the old master takes writes for a while after the new one was made, and loses them."""
    sentinels = make_sentinels()
    publisher = redis.publisher(sentinels.url(), AdapterOptions(transport={"wait_replicas": (1, 1000)}))
    old = sentinels.master
    sent = sum(publish(publisher) for _ in range(10))
    sentinels.order_failover()
    while sentinels.master is old:
        sent += publish(publisher)
    new = sentinels.failed_over(old)
    wait_until(lambda: publish(publisher), 60, "the old master has become a replica")
    publisher.close()
    assert sent >= 10
    assert new.command("LLEN", "q") > sent


def test_what_is_wrong_is_named(make_sentinels: MakeSentinels) -> None:
    sentinels = make_sentinels(down_after=30_000)
    url = sentinels.url().replace("master_name=tests", "master_name=test")
    publisher = redis.publisher(url, AdapterOptions())
    with pytest.raises(OperationalError, match="knows no master 'test'"):
        publisher.publish([message()], timeout=5.0)
    nobody = redis.publisher(f"sentinel://{HOST}:{free_port()}?master_name=tests", AdapterOptions())
    with pytest.raises(OperationalError, match=r"sentinel .*refused"):
        nobody.publish([message()], timeout=5.0)


def test_tls_to_the_server_and_to_the_sentinels(make_sentinels: MakeSentinels) -> None:
    sentinels, authority = make_sentinels(tls=True, down_after=30_000), str(tls_files()[0])
    wanted = {"ssl_ca_certs": authority}
    kwargs = {"ssl": True, "ssl_ca_certs": authority}
    publisher = redis.publisher(sentinels.url(), AdapterOptions(transport={"sentinel_kwargs": kwargs}, ssl=wanted))
    publisher.publish([message()], timeout=30.0)
    publisher.close()
    assert sentinels.master.command("LLEN", "q") == 1
    doubtful = redis.publisher(sentinels.url(), AdapterOptions(transport={"sentinel_kwargs": {"ssl": True}}, ssl=True))
    with pytest.raises(OperationalError, match=r"(?i)certificate"):
        doubtful.publish([message()], timeout=5.0)


def test_a_sentinel_that_is_frozen_costs_a_second(make_sentinels: MakeSentinels) -> None:
    sentinels = make_sentinels(down_after=30_000)
    sentinels.sentinels[0].pause()
    publisher = redis.publisher(sentinels.url(), AdapterOptions())
    began = time.monotonic()
    publisher.publish([message()], timeout=30.0)
    assert time.monotonic() - began < 3.0
    sentinels.sentinels[0].resume()


def test_all_connections_of_a_process_have_the_sentinels_asked_once_a_second(make_sentinels: MakeSentinels) -> None:
    sentinels = make_sentinels(down_after=30_000)

    def asked(what: str) -> int:
        return sum(int(each.info("stats")[what]) for each in sentinels.sentinels)

    async def main() -> None:
        brokers = [redis.broker(sentinels.url(), AdapterOptions(owner=f"me{number}")) for number in range(5)]
        for broker in brokers:
            await broker.open()
        began, before = time.monotonic(), asked("total_connections_received")
        await asyncio.sleep(3.0)
        looks = 2 * len(sentinels.sentinels)  # this test's own
        assert asked("total_connections_received") - before <= looks + (time.monotonic() - began)
        for broker in brokers:
            await broker.close()
        await asyncio.sleep(0)
        assert len(asyncio.all_tasks()) == 1, "nobody is left who asks"

    asyncio.run(main())


# -- several URLs


@pytest.mark.parametrize("first", [0, 1])
def test_the_one_that_takes_writes_is_found(pair: tuple[RedisServer, RedisServer], first: int) -> None:
    master, _ = pair
    url = ";".join(each.url() for each in (pair[first], pair[1 - first]))
    publisher = redis.publisher(url, AdapterOptions())
    publisher.publish([message()], timeout=30.0)

    async def main() -> None:
        broker = redis.broker(url, AdapterOptions(owner="me"))
        await broker.open()
        assert len(await broker.claim(["q"], limit=2, wait=5.0)) == 1
        await broker.close()

    asyncio.run(main())
    publisher.close()
    assert master.command("HLEN", "unacked") == 1


def test_a_promoted_replica_takes_over(pair: tuple[RedisServer, RedisServer]) -> None:
    master, replica = pair
    url, options = f"{master.url()};{replica.url()}", AdapterOptions(owner="me")
    publisher = redis.publisher(url, options)
    threads = [threading.Thread(target=publish, args=(publisher,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    async def main() -> None:
        broker = redis.broker(url, options)
        await broker.open()
        assert len(await broker.claim(["q"], limit=9, wait=0)) == 4
        waiting = asyncio.create_task(broker.claim(["q"], limit=9, wait=60.0))
        wait_until(lambda: replica.command("HLEN", "unacked") == 4, 60)
        replica.command("REPLICAOF", "NO", "ONE")
        master.command("REPLICAOF", HOST, replica.port)
        # What is written to the new master comes to the old one, which refuses the claim that this wakes.
        await eventually(lambda: publish(publisher), 60)
        with pytest.raises(OperationalError, match="replica"):
            await waiting
        assert len(await broker.claim(["q"], limit=9, wait=5.0)) == 1
        await broker.close()

    asyncio.run(main())
    publisher.close()


# -- replicas that are waited for


def test_what_replicas_do_not_have_is_told(pair: tuple[RedisServer, RedisServer]) -> None:
    master, replica = pair
    patient = redis.publisher(master.url(), AdapterOptions(transport={"wait_replicas": (1, 4900)}))
    for count in (1, 3, 700):
        patient.publish([message() for _ in range(count)], timeout=60)
        assert replica.command("LLEN", "q") == master.command("LLEN", "q")
    patient.close()
    options = AdapterOptions(transport={"wait_replicas": (1, 200)}, owner="me")
    publisher = redis.publisher(master.url(), options)
    replica.pause()
    try:
        with pytest.raises(OperationalError, match="0 of 1 replicas had it within 200 ms") as caught:
            publisher.publish([message()], timeout=5.0)
        assert caught.value.uncertain
        assert master.command("LLEN", "q") == 705

        async def main() -> None:
            broker = redis.broker(master.url(), options)
            await broker.open()
            with pytest.raises(OperationalError, match="0 of 1 replicas"):
                await broker.publish([message()])
            await broker.close()

        asyncio.run(main())
    finally:
        replica.resume()
        publisher.close()
