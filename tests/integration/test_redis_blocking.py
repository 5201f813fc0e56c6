"""The blocking side of Redis: pool, deadlines, what is repeated and what never is; results."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import hiredis
import pytest

from celeriac.brokers import redis
from celeriac.brokers.redis.publishing import RedisPublisher
from celeriac.brokers.redis.reading import RedisReader
from celeriac.codec import envelope
from celeriac.exceptions import OperationalError
from celeriac.model.dead import Replay, Stayed
from celeriac.model.message import Message
from celeriac.model.settle import StoredResult
from celeriac.ports import AdapterOptions
from tests.proxy import Proxy
from tests.servers import RedisServer, free_port, wait_until, within
from tests.servers.lame import lame_host, reaches

MakeRedis = Callable[..., RedisServer]
SUCCESS = b'{"status": "SUCCESS", "result": 1}'
STARTED = b'{"status": "STARTED", "result": null}'


def message(task_id: str = "", queue: str = "q", **fields: Any) -> Message:
    task_id = task_id or envelope.new_id()
    return Message(id=task_id, task="t", headers={"task": "t", "id": task_id}, body=b"[]", queue=queue, **fields)


def stored(task_id: str, body: bytes = SUCCESS) -> StoredResult:
    return StoredResult(task_id, body, body is SUCCESS, 60.0)


@pytest.fixture
def publisher(redis_server: RedisServer, redis_url: str, redis_proxy: Proxy) -> Iterator[RedisPublisher]:
    """Through the proxy."""
    made = redis.publisher(redis_server.url(port=redis_proxy.port), AdapterOptions(pool_limit=2))
    yield made
    made.close()


@pytest.fixture
def reader(redis_server: RedisServer, redis_url: str, redis_proxy: Proxy) -> Iterator[RedisReader]:
    """Through the proxy."""
    made = redis.reader(redis_server.url(port=redis_proxy.port), AdapterOptions(pool_limit=2))
    yield made
    made.close()


def test_a_stale_connection_is_replaced_unseen(
    publisher: RedisPublisher, redis_server: RedisServer, redis_proxy: Proxy
) -> None:
    for _ in range(5):
        publisher.publish([message()], timeout=30.0)
        redis_proxy.cut()
    publisher.publish([message()], timeout=30.0)
    assert redis_server.command("LLEN", "q") == 6


def test_what_may_have_been_executed_is_not_repeated(
    publisher: RedisPublisher, reader: RedisReader, redis_server: RedisServer, redis_proxy: Proxy
) -> None:
    publisher.publish([message()], timeout=30.0)
    redis_proxy.cut_reply()
    with pytest.raises(OperationalError):
        publisher.publish([message()], timeout=5)
    assert redis_server.command("LLEN", "q") == 2  # once, though it raised
    reader.put([stored("a")], timeout=30.0)
    redis_proxy.cut_reply()
    assert reader.get(["a"], timeout=30.0) == [SUCCESS]  # reading may be repeated


def test_a_replay_whose_answer_was_lost_is_told_as_sent(
    redis_server: RedisServer, redis_url: str, redis_proxy: Proxy
) -> None:
    for number in range(2):
        member = f"{number:036}:q"
        redis_server.command("ZADD", "celeriac:dead", str(number), member)
        redis_server.command("HSET", "celeriac:dead:records", member, "{}")
    letters = redis.dead_letters(redis_server.url(port=redis_proxy.port), AdapterOptions(pool_limit=2))
    first, second = (Replay(key=f"{number:036}:q", message=message()) for number in range(2))
    assert letters.replay([first], timeout=30.0) == []
    redis_proxy.cut_reply()
    assert letters.replay([second], timeout=30.0) == [], "it was sent, for all that we know"
    assert redis_server.command("LLEN", "q") == 2
    assert letters.replay([second], timeout=30.0) == [Stayed(second.key)]
    letters.close()


def test_one_deadline_for_everything(publisher: RedisPublisher, redis_proxy: Proxy) -> None:
    publisher.publish([message()], timeout=30.0)
    redis_proxy.blackhole()

    def publish() -> None:
        with pytest.raises(OperationalError, match=r"no answer within 0\.3 s"):
            publisher.publish([message()], timeout=0.3)

    within(0.6, publish)  # on the pooled connection
    within(0.6, publish)  # and with a new one


def test_nobody_there() -> None:
    publisher = redis.publisher(f"redis://u:s3cret@127.0.0.1:{free_port()}/0", AdapterOptions())

    def publish() -> str:
        with pytest.raises(OperationalError, match=r"cannot reach Redis at redis://u:\*{8}@127.0.0.1") as caught:
            publisher.publish([message()], timeout=4)
        return str(caught.value)

    assert "s3cret" not in within(1.0, publish)


def test_all_or_none(publisher: RedisPublisher, redis_server: RedisServer) -> None:
    redis_server.command("SET", "wrong", "x")
    for batch in (
        [message(), message(queue="wrong"), message()],
        [message(queue="wrong") for _ in range(1000)],
        [message(), message(priority=9), message(queue="wrong", priority=0)],
    ):
        with pytest.raises(OperationalError, match="WRONGTYPE"):
            publisher.publish(batch, timeout=5)
    assert redis_server.command("DBSIZE") == 1
    publisher.publish([message(str(n)) for n in range(1000)], timeout=30.0)
    texts = redis_server.command("LRANGE", "q", 0, -1)
    ids = [envelope.decode(text, queue="q").id for text in reversed(texts)]
    assert ids == [str(n) for n in range(1000)]
    assert publisher.purge("q", timeout=30.0) == 1000


def test_a_producer_puts_everything_on_the_ready_list(publisher: RedisPublisher, redis_server: RedisServer) -> None:
    publisher.publish([message(due=time.time() + 100)], timeout=30.0)
    publisher.publish([message(due=time.time() + 100), message(priority=5, due=time.time() + 100)], timeout=30.0)
    depth = publisher.depth(["q"], timeout=30.0)["q"]
    assert (depth.ready, depth.scheduled) == (3, 0)


def test_no_more_connections_than_the_pool_may_have(
    publisher: RedisPublisher, redis_server: RedisServer, redis_proxy: Proxy
) -> None:
    threads = [
        threading.Thread(target=lambda: [publisher.publish([message()], timeout=60) for _ in range(50)])
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert redis_proxy.accepted <= 2
    assert redis_server.command("LLEN", "q") == 400


def test_a_pool_that_is_used_up_says_so(redis_server: RedisServer, redis_url: str) -> None:
    publisher = redis.publisher(redis_url, AdapterOptions(pool_limit=1))
    taken = object()
    assert publisher._pool._turns.take(taken, time.monotonic() + 5)
    with pytest.raises(OperationalError, match="broker_pool_limit"):
        publisher.publish([message()], timeout=0.1)
    threading.Timer(0.1, publisher._pool._turns.end, [taken]).start()
    publisher.publish([message()], timeout=30.0)
    publisher.close()


def test_no_pool_at_all(redis_server: RedisServer, redis_url: str) -> None:
    publisher = redis.publisher(redis_url, AdapterOptions(pool_limit=0))
    before = int(redis_server.info("clients")["connected_clients"])
    for _ in range(3):
        publisher.publish([message()], timeout=30.0)
    wait_until(lambda: int(redis_server.info("clients")["connected_clients"]) <= before)


def test_a_failed_connection_leaves_its_place(redis_server: RedisServer, redis_url: str) -> None:
    port = free_port()
    publisher = redis.publisher(f"redis://127.0.0.1:{port}/0", AdapterOptions(pool_limit=1))
    for _ in range(3):
        with pytest.raises(OperationalError, match="cannot reach"):
            publisher.publish([message()], timeout=1)


def test_scripts_survive_a_restarted_server(make_redis: MakeRedis) -> None:
    server = make_redis()
    publisher = redis.publisher(server.url(), AdapterOptions())
    assert publisher.depth(["q"], timeout=30.0)["q"].ready == 0
    server.restart()
    assert publisher.depth(["q"], timeout=30.0)["q"].ready == 0
    publisher.publish([message(), message(queue="r")], timeout=30.0)
    publisher.close()
    server.close()


def test_a_busy_server_is_told(make_redis: MakeRedis) -> None:
    server = make_redis()
    publisher = redis.publisher(server.url(), AdapterOptions())
    server.command("CONFIG", "SET", "busy-reply-threshold", "1")

    def block() -> None:
        with pytest.raises(hiredis.ReplyError, match="killed"):
            server.command("EVAL", "while true do end", 0)

    blocker = threading.Thread(target=block)
    blocker.start()
    try:
        wait_until(lambda: _refusal(publisher).startswith("Redis at"))
        assert "a script of somebody else blocks it" in _refusal(publisher)
    finally:
        server.command("SCRIPT", "KILL")
        blocker.join()
    publisher.publish([message()], timeout=30.0)
    publisher.close()
    server.close()


def _refusal(publisher: RedisPublisher) -> str:
    try:
        publisher.publish([message()], timeout=2)
    except OperationalError as error:
        return str(error)
    return ""


# -- results


def test_no_subscription_is_left(reader: RedisReader, redis_server: RedisServer) -> None:
    ids = [f"id-{number}" for number in range(50)]
    for task_id in ids:
        threading.Timer(0.02, reader.put, [[stored(task_id)]], {"timeout": 5}).start()
        assert reader.wait([task_id], timeout=30.0) == task_id
    assert reader.wait(["never"], timeout=0.05) is None
    # UNSUBSCRIBE is sent, not waited for: the server may read our question first.
    wait_until(lambda: redis_server.command("PUBSUB", "CHANNELS") == [], 60, "all subscriptions to be gone")
    # A few in the pools, not one for each of fifty.
    assert int(redis_server.info("clients")["connected_clients"]) < 25


def test_a_started_task_does_not_wake_for_ever(reader: RedisReader) -> None:
    reader.put([stored("a", STARTED)], timeout=30.0)
    started = time.monotonic()
    assert reader.wait(["a"], timeout=0.2) is None
    assert time.monotonic() - started >= 0.2
    threading.Timer(0.1, reader.put, [[stored("a")]], {"timeout": 5}).start()
    assert reader.wait(["b", "a"], timeout=30.0) == "a"
    assert reader.wait(["a"], timeout=30.0) == "a"


@pytest.mark.parametrize("body", [b"\x82\xa6status\xa7SUCCESS", b"\x80\x04}(\x8c\x06status\x8c\x07FAILURE"])
def test_records_of_other_serializers_are_noticed(reader: RedisReader, body: bytes) -> None:
    reader.put([StoredResult("a", body, True, 60.0)], timeout=30.0)
    assert reader.wait(["a"], timeout=30.0) == "a"


def test_a_waiter_survives_a_restart(make_redis: MakeRedis) -> None:
    server = make_redis(appendonly=True)
    reader = redis.reader(server.url(), AdapterOptions())
    found: list[str | None] = []
    waiter = threading.Thread(target=lambda: found.append(reader.wait(["a"], timeout=60)))
    waiter.start()
    wait_until(lambda: server.command("PUBSUB", "CHANNELS"))
    server.kill()
    server.start()
    server.command("SET", "celery-task-meta-a", SUCCESS)  # written while nobody listened
    waiter.join(60)
    assert found == ["a"]
    reader.close()
    server.close()


def test_a_waiter_without_a_server_gives_up_in_time() -> None:
    reader = redis.reader(f"redis://127.0.0.1:{free_port()}/0", AdapterOptions())

    def wait() -> None:
        with pytest.raises(OperationalError, match="cannot reach Redis"):
            reader.wait(["a"], timeout=0.5)

    within(2.0, wait)


def test_many_ids_and_large_records(reader: RedisReader) -> None:
    ids = [f"id-{number}" for number in range(1500)]
    reader.put([stored(task_id) for task_id in ids[:-1]], timeout=30.0)
    assert reader.get(ids, timeout=30.0) == [SUCCESS] * 1499 + [None]
    large = b'{"status": "SUCCESS", "result": "' + b"x" * 20_000_000 + b'"}'
    reader.put([StoredResult("large", large, True, 60.0)], timeout=60)
    assert reader.get(["large"], timeout=60) == [large]
    assert reader.wait([*ids[-1:], "large"], timeout=30.0) == "large"
    reader.forget(["large", *ids], timeout=30.0)
    assert set(reader.get(ids, timeout=30.0)) == {None}


def test_a_forked_child_leaves_its_parents_waiters_alone(reader: RedisReader) -> None:
    reader.put([stored("a")], timeout=30.0)
    assert reader.wait(["a"], timeout=30.0) == "a"
    pid = os.fork()
    if pid == 0:
        try:
            assert reader.wait(["a"], timeout=30.0) == "a"
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert reader.wait(["a"], timeout=30.0) == "a"


class _Elderly:
    """Answers like a server before RESP3, or a proxy: HELLO is unknown."""

    def __init__(self, port: int) -> None:
        self.port = port

    def __enter__(self) -> str:
        self._listener = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self._accept, daemon=True).start()
        return f"redis://127.0.0.1:{self._listener.getsockname()[1]}/0"

    def __exit__(self, *exc: object) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self.port))
            threading.Thread(target=self._pump, args=(client, server, True), daemon=True).start()
            threading.Thread(target=self._pump, args=(server, client, False), daemon=True).start()

    @staticmethod
    def _pump(source: socket.socket, target: socket.socket, refuse: bool) -> None:
        with source, target, suppress(OSError):  # either may be gone
            while data := source.recv(65536):
                target.sendall(data.replace(b"HELLO", b"HELLX") if refuse else data)
            target.shutdown(socket.SHUT_RDWR)


def test_servers_without_resp3(redis_server: RedisServer, redis_url: str) -> None:
    with _Elderly(redis_server.port) as url:
        reader, publisher = redis.reader(url, AdapterOptions()), redis.publisher(url, AdapterOptions())
        publisher.publish([message("a")], timeout=30.0)
        threading.Timer(0.2, reader.put, [[stored("a")]], {"timeout": 5}).start()
        assert reader.wait(["a"], timeout=30.0) == "a"
        assert reader.wait(["b"], timeout=0.1) is None

        async def run() -> None:
            broker = redis.broker(url, AdapterOptions(owner="w"))
            await broker.open()
            heard: list[Any] = []

            async def listen() -> None:
                async for payload, _ in broker.listen("celeryev"):
                    heard.append(payload)

            listening = asyncio.create_task(listen())
            waiting = asyncio.create_task(broker.claim(["q"], limit=2, wait=60))
            assert [each.message.id for each in await waiting] == ["a"]
            while not heard:  # what is sent before it listens is lost
                await broker.emit("celeryev", "task.sent", [1], {})
                await asyncio.sleep(0.05)
            assert heard[0] == [1]
            listening.cancel()
            await broker.close()

        asyncio.run(run())
        reader.close()
        publisher.close()


def test_blocking_adapters_load_no_asyncio(redis_url: str) -> None:
    program = f"""
import sys
from celeriac.brokers import redis
from celeriac.ports import AdapterOptions
for make in (redis.publisher, redis.reader, redis.caller):
    made = make({redis_url!r}, AdapterOptions())
made.call({{"method": "ping"}}, timeout=0.01)
print([name for name in ("asyncio", "ssl", "redis") if name in sys.modules])
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.strip() == "[]"


def test_a_host_whose_first_address_is_silent(
    redis_server: RedisServer, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with lame_host(redis_server.port, monkeypatch) as host:
        reaches(redis, f"redis://{host}:{redis_server.port}/0")
