"""The Redis broker on a real server: what only Redis can do wrong. The port itself is tested by tests/conformance."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from celeriac.brokers import redis
from celeriac.brokers.redis.queues import RedisBroker
from celeriac.codec import envelope
from celeriac.exceptions import OperationalError
from celeriac.model.ledger import Change, Lock
from celeriac.model.limits import Ask, Seats
from celeriac.model.message import Message
from celeriac.model.settle import Accept, Completion, DeadLetter, DeadReason, Release, StoredResult, Verdict
from celeriac.ports import AdapterOptions
from tests.proxy import Proxy
from tests.servers import RedisServer, eventually

MakeRedis = Callable[..., RedisServer]
SUCCESS = b'{"status": "SUCCESS", "result": 1}'


def message(task_id: str = "", queue: str = "q", **fields: Any) -> Message:
    task_id = task_id or envelope.new_id()
    headers = {"task": "t", "id": task_id, **fields.pop("headers", {})}
    return Message(id=task_id, task="t", headers=headers, body=b"[]", queue=queue, **fields)


@asynccontextmanager
async def opened(url: str, owner: str = "w1", **options: Any) -> AsyncIterator[RedisBroker]:
    broker = redis.broker(url, AdapterOptions(owner=owner, **options))
    await broker.open()
    try:
        yield broker
    finally:
        await broker.close()


def test_what_is_parked_in_the_midst_of_a_purge_leaves_no_lock(redis_server: RedisServer, redis_url: str) -> None:
    async def run() -> None:
        locks = [Lock(f"lock-{number}", f"id-{number}") for number in range(4)]
        async with opened(redis_url) as broker:
            await broker.publish([message(), *(message(lock.holder, headers=_locked(lock)) for lock in locks)])
            await broker.change_ledger([Change(lock.key, lock.waiting) for lock in locks])
            waiting = list(await broker.claim(["q"], limit=10, wait=0))
            asks = [Ask(each, None, Seats("t", 1)) for each in waiting]
            await broker.permit(asks[:2])
            late, call = iter(asks[2:4]), broker._link.call

            async def slow(*words: Any) -> Any:
                answer = await call(*words)
                await broker.permit([each for each in (next(late, None),) if each])
                return answer

            broker._link.call = slow  # type: ignore[method-assign]
            dropped = await broker.purge("q")
            broker._link.call = call  # type: ignore[method-assign]
            assert dropped > 1, "what was parked while it looked, too"
            kept = await broker.read_ledger([lock.key for lock in locks])
            assert list(kept) == [None] * dropped + [lock.waiting for lock in locks[dropped:]]
            assert {b"unacked", b"unacked_index"} < set(redis_server.command("KEYS", "*"))
            assert not [key for key in redis_server.command("KEYS", "*") if b"purged" in key or b"park" in key]

    asyncio.run(run())


def _locked(lock: Lock) -> dict[str, Any]:
    return {"celeriac_lock": lock.header()}


def test_a_life_leaves_kombus_keys(redis_server: RedisServer, redis_url: str) -> None:
    async def run() -> None:
        command = redis_server.command
        async with opened(redis_url) as broker:
            await broker.publish([message("a"), message("b", priority=4), message("c", due=time.time() + 100)])
            assert set(command("KEYS", "*")) == {
                b"q", b"q\x06\x163", b"celeriac:schedule:q", b"celeriac:schedules"
            }  # fmt: skip
            first, second = await broker.claim(["q"], limit=5, wait=0)
            entry = command("HGET", "unacked", first.token)
            assert json.loads(entry)[0]["headers"]["id"] == "a"
            assert json.loads(entry)[1:] == ["", "q"]
            assert first.token.startswith("celeriac:w1:")
            score = float(command("ZSCORE", "unacked_index", first.token))
            assert score == pytest.approx(time.time(), abs=2)
            done = Completion(settlement=Accept(first), result=StoredResult("a", SUCCESS, True, 60.0))
            assert await broker.finish([done]) == [Verdict.DONE]
            assert command("GET", "celery-task-meta-a") == SUCCESS
            assert 50 <= command("TTL", "celery-task-meta-a") <= 60
            await broker.settle([DeadLetter(delivery=second, reason=DeadReason.FAILED, at=time.time())])
            assert command("EXISTS", "unacked", "unacked_index") == 0
            counts = command("HGETALL", "celeriac:dead:counts")
            assert dict(zip(counts[::2], map(int, counts[1::2]), strict=True)).keys() == {b"q", b""}
            assert command("HGET", "celeriac:dead:counts", "q") == b"1"

    asyncio.run(run())


def test_a_prefix_is_in_front_of_everything(redis_server: RedisServer, redis_url: str) -> None:
    async def run() -> None:
        async with opened(redis_url, key_prefix="p:") as broker:
            await broker.publish([message(), message(), message(), message(due=time.time() + 100)])
            one, two, _ = await broker.claim(["q"], limit=3, wait=0)
            result = StoredResult("a", SUCCESS, True, None)
            await broker.finish([Completion(settlement=Accept(one), result=result)])
            await broker.settle([DeadLetter(delivery=two, reason=DeadReason.FAILED)])
            await broker.maintain()
        keys = redis_server.command("KEYS", "*")
        assert keys
        assert all(key.startswith(b"p:") for key in keys)

    asyncio.run(run())


def test_scripts_survive_a_restarted_server(make_redis: MakeRedis) -> None:
    async def run() -> None:
        server = make_redis(appendonly=True)
        async with opened(server.url()) as broker:
            await broker.publish([message("a"), message("b")])
            (held,) = await broker.claim(["q"], limit=1, wait=0)
            server.kill()
            with pytest.raises(OperationalError, match="cannot reach Redis at redis://"):
                await broker.maintain()
            await asyncio.to_thread(server.start)
            assert await broker.settle([Accept(held)]) == []
            assert [each.message.id for each in await broker.claim(["q"], limit=5, wait=1)] == ["b"]
        server.close()

    asyncio.run(run())


def test_a_claim_whose_answer_was_lost_is_found_again(
    redis_server: RedisServer, redis_url: str, redis_proxy: Proxy
) -> None:
    async def run() -> None:
        async with opened(redis_server.url(port=redis_proxy.port)) as broker:
            await broker.publish([message("a"), message("b", priority=9)])
            assert await broker.claim(["none"], limit=1, wait=0) == []
            redis_proxy.cut_reply()
            with pytest.raises(OperationalError):
                await broker.claim(["q"], limit=5, wait=0)
            assert redis_server.command("HLEN", "unacked") == 2
            taken = await broker.claim(["q"], limit=5, wait=0)
            assert sorted(each.message.id for each in taken) == ["a", "b"]
            assert await broker.settle([Accept(each) for each in taken]) == []

    asyncio.run(run())


@pytest.mark.parametrize("key", ["q", "q\x06\x166", "unacked", "unacked_index", "celeriac:schedule:q"])
def test_a_wrong_type_stops_a_claim_as_a_whole(redis_server: RedisServer, redis_url: str, key: str) -> None:
    async def run() -> None:
        command = redis_server.command
        async with opened(redis_url) as broker:
            for priority in (3, 3, 0, 0):
                if key != "q" or priority:
                    await broker.publish([message(priority=priority)])
            command("SET", key, "x")
            before = {name: command("DUMP", name) for name in command("KEYS", "*")}
            with pytest.raises(OperationalError, match="WRONGTYPE the key"):
                await broker.claim(["q"], limit=10, wait=0)
            assert {name: command("DUMP", name) for name in command("KEYS", "*")} == before
            command("DEL", key)
            assert len(await broker.claim(["q"], limit=10, wait=0)) == (2 if key == "q" else 4)

    asyncio.run(run())


@pytest.mark.parametrize("key", ["unacked", "celeriac:dead", "celeriac:dead:records", "celeriac:dead:counts", "q"])
def test_a_wrong_type_stops_a_settlement_as_a_whole(redis_server: RedisServer, redis_url: str, key: str) -> None:
    async def run() -> None:
        command = redis_server.command
        async with opened(redis_url) as broker:
            await broker.publish([message(), message()])
            one, two = await broker.claim(["q"], limit=2, wait=0)
            saved = command("DUMP", key)
            command("DEL", key)
            command("SET", key, "x")
            with pytest.raises(OperationalError, match="WRONGTYPE the key"):
                await broker.settle([DeadLetter(delivery=one, reason=DeadReason.FAILED), Release(two)])
            command("DEL", key)
            if saved:
                command("RESTORE", key, 0, saved)
            assert command("ZCARD", "unacked_index") == command("HLEN", "unacked") == 2
            assert await broker.settle([DeadLetter(delivery=one, reason=DeadReason.FAILED), Release(two)]) == []

    asyncio.run(run())


def test_a_full_server_refuses_messages_but_lets_workers_drain(make_redis: MakeRedis) -> None:
    async def run() -> None:
        server = make_redis(maxmemory="6mb")
        publisher = redis.publisher(server.url(), AdapterOptions())

        def fill() -> None:
            for _ in range(2000):
                publisher.publish([message() for _ in range(50)], timeout=30.0)

        with pytest.raises(OperationalError, match="memory is full"):
            fill()
        publisher.close()
        async with opened(server.url()) as broker:
            with pytest.raises(OperationalError, match="OOM"):
                await broker.publish([message()])
            taken = await broker.claim(["q"], limit=500, wait=0)
            assert len(taken) == 500
            done = [
                Completion(
                    settlement=Accept(each),
                    publish=[message(queue="next")],
                    result=StoredResult(each.message.id, SUCCESS, True, 60.0),
                )
                for each in taken
            ]
            assert set(await broker.finish(done)) == {Verdict.DONE}
        server.close()

    asyncio.run(run())


def test_a_replica_is_left(make_redis: MakeRedis) -> None:
    async def run() -> None:
        server = make_redis()
        async with opened(server.url()) as broker:
            await broker.publish([message("a")])
            server.command("REPLICAOF", "127.0.0.1", "1")
            with pytest.raises(OperationalError, match=r"READONLY.*replica"):
                await broker.publish([message("b")])
            server.command("REPLICAOF", "NO", "ONE")
            assert [each.message.id for each in await broker.claim(["q"], limit=5, wait=0)] == ["a"]
        server.close()

    asyncio.run(run())


def test_waiting_sends_next_to_nothing(redis_server: RedisServer, redis_url: str) -> None:
    async def run() -> None:
        async with opened(redis_url) as broker:
            await broker.claim(["q", "r"], limit=1, wait=0.01)
            before = int(redis_server.info("stats")["total_commands_processed"])
            for _ in range(20):
                assert await broker.claim(["r", "q"], limit=1, wait=0.05) == ()
            sent = int(redis_server.info("stats")["total_commands_processed"]) - before
            assert sent <= 5

    asyncio.run(run())


def test_without_tracking_it_polls_and_says_so_once(make_redis: MakeRedis, caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> None:
        server = make_redis()
        server.command("ACL", "SETUSER", "small", "on", ">s3cret", "~*", "&*", "+@all", "-client")
        url = server.url().replace("redis://", "redis://small:s3cret@")
        async with opened(url) as broker:
            waiting = asyncio.create_task(broker.claim(["q"], limit=1, wait=10))
            await asyncio.sleep(0.3)
            await broker.publish([message("a")])
            assert [each.message.id for each in await waiting] == ["a"]
            before = int(server.info("stats")["total_commands_processed"])
            await broker.claim(["q"], limit=1, wait=1.0)
            looks = int(server.info("commandstats")["cmdstat_evalsha"].partition("calls=")[2].partition(",")[0])
            assert looks < 60
            assert int(server.info("stats")["total_commands_processed"]) - before < 200
        server.close()

    with caplog.at_level(logging.WARNING):
        asyncio.run(run())
    assert [record.getMessage() for record in caplog.records if "polling" in record.getMessage()] == [
        caplog.records[0].getMessage()
    ]
    assert "s3cret" not in caplog.text


def test_old_foreign_tokens_do_not_hide_lost_ones(redis_server: RedisServer, redis_url: str) -> None:
    async def run() -> None:
        command, now = redis_server.command, time.time()
        for at in range(0, 5000, 500):
            scores = [word for n in range(at, at + 500) for word in (now - 100, f"foreign-{n}")]
            command("ZADD", "unacked_index", *scores)
        async with opened(redis_url, lease=0.05) as broker:
            await broker.publish([message("a")])
            await broker.claim(["q"], limit=1, wait=0)
            await asyncio.sleep(0.1)
            await broker.maintain()
            (again,) = await broker.claim(["q"], limit=1, wait=0)
            assert again.message.id == "a"
        assert command("ZCARD", "unacked_index") == 5001

    asyncio.run(run())


def _foreign(
    command: Callable[..., Any], tag: str, age: float, exchange: str = "", key: str = "q", **props: Any
) -> None:
    """What a Celery worker leaves behind that was killed."""
    text = json.loads(envelope.encode(message(tag)))
    text["properties"].update(props)
    command("HSET", "unacked", tag, json.dumps([text, exchange, key]))
    command("ZADD", "unacked_index", time.time() - age, tag)


def test_foreign_deliveries_only_past_their_visibility_timeout(redis_server: RedisServer, redis_url: str) -> None:
    async def run() -> None:
        command = redis_server.command
        _foreign(command, "young", 3000)
        _foreign(command, "old", 3700)
        _foreign(command, "urgent", 3800, priority=7)
        _foreign(command, "bound", 3900, "tasks", "some.key")
        command("SADD", "_kombu.binding.tasks", "some.key\x06\x16\x06\x16there")
        command("HSET", "unacked", "broken", "[")
        command("ZADD", "unacked_index", 5, "broken")
        async with opened(redis_url) as broker:
            command("SET", "unacked_mutex", "a Celery worker's", "EX", 100)
            await broker.maintain()
            assert command("LLEN", "q") == 0
            command("DEL", "unacked_mutex")
            await broker.maintain()
            taken = await broker.claim(["q", "there"], limit=9, wait=0)
            assert [(each.message.id, each.queue) for each in taken] == [
                ("old", "q"), ("bound", "there"), ("urgent", "q")
            ]  # fmt: skip
            assert all(each.redelivered for each in taken)
            assert set(command("ZRANGE", "unacked_index", 0, 1)) == {b"broken", b"young"}
            assert command("EXISTS", "unacked_mutex") == 0

    asyncio.run(run())


def test_a_loop_of_its_own_kind(redis_server: RedisServer, redis_url: str) -> None:
    uvloop = pytest.importorskip("uvloop")

    async def run() -> None:
        async with opened(redis_url) as broker:
            waiting = asyncio.create_task(broker.claim(["q"], limit=1, wait=5))
            await asyncio.sleep(0.05)
            async with opened(redis_url, "other") as other:
                await other.publish([message("a")])
            (taken,) = await waiting
            assert await broker.settle([Accept(taken)]) == []

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())


@pytest.mark.parametrize("kind", ["tls", "unix", "password", "user", "database"])
def test_ways_in(make_redis: MakeRedis, kind: str) -> None:
    options: dict[str, dict[str, Any]] = {
        "tls": {"tls": True},
        "unix": {"unixsocket": True},
        "password": {"password": "p@ss/word"},
        "user": {"user": "somebody", "password": "p@ss"},
        "database": {},
    }
    server = make_redis(**options[kind])
    url = server.url(5)

    async def run() -> None:
        publisher, reader = redis.publisher(url, AdapterOptions()), redis.reader(url, AdapterOptions())
        async with opened(url) as broker:
            publisher.publish([message("a")], timeout=30.0)
            (taken,) = await broker.claim(["q"], limit=1, wait=0)
            result = StoredResult("a", SUCCESS, True, 60.0)
            await broker.finish([Completion(settlement=Accept(taken), result=result)])
            assert reader.wait(["a"], timeout=30.0) == "a"
        publisher.close()
        reader.close()
        assert server.command("DBSIZE", db=5) == 1

    asyncio.run(run())
    server.close()


def test_a_wrong_password_is_told_and_not_shown(make_redis: MakeRedis) -> None:
    server = make_redis(password="right")
    url = server.url().replace("right", "wr0ng")

    async def run() -> None:
        with pytest.raises(OperationalError, match="WRONGPASS") as caught:
            async with opened(url):
                pass
        assert "wr0ng" not in str(caught.value)

    asyncio.run(run())
    publisher = redis.publisher(url, AdapterOptions())
    with pytest.raises(OperationalError, match="check user and password") as caught:
        publisher.publish([message()], timeout=5)
    assert "wr0ng" not in str(caught.value)
    server.close()


def test_a_half_open_connection_is_found(redis_server: RedisServer, redis_url: str, redis_proxy: Proxy) -> None:
    async def run() -> None:
        url = redis_server.url(port=redis_proxy.port) + "?socket_timeout=1"
        async with opened(url) as broker:
            waiting = asyncio.create_task(broker.claim(["q"], limit=1, wait=60))
            await asyncio.sleep(0.1)
            redis_proxy.half_open()
            async with opened(redis_url, "other") as other:
                await other.publish([message("a")])
            started = time.monotonic()
            assert [each.message.id for each in await waiting] == ["a"]
            assert time.monotonic() - started < 10

    asyncio.run(run())


def test_events_go_on_after_a_lost_connection(redis_server: RedisServer, redis_url: str, redis_proxy: Proxy) -> None:
    async def run() -> None:
        async with opened(redis_server.url(port=redis_proxy.port)) as broker:
            heard: list[Any] = []

            async def listen() -> None:
                async for payload, _ in broker.listen("celeryev"):
                    heard.append(payload)

            task = asyncio.create_task(listen())
            await eventually(lambda: redis_server.command("PUBSUB", "NUMPAT") == 1)
            redis_proxy.cut()
            async with opened(redis_url, "other") as other:
                while not heard:  # what is sent before it listens again is lost
                    await other.emit("celeryev", "worker.online", {"type": "worker-online"}, {})
                    await asyncio.sleep(0.05)
            assert heard[0] == {"type": "worker-online"}
            task.cancel()

    asyncio.run(run())
