"""Celery on the other side of the same Redis: its producer, worker, remote control and restore against ours."""

from __future__ import annotations

import asyncio
import json
import subprocess
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from celeriac.brokers import redis
from celeriac.codec import envelope
from celeriac.model.message import Message
from celeriac.model.settle import Accept, StoredResult
from celeriac.ports import AdapterOptions
from tests.servers import RedisServer, wait_until

APP = """
import os, sys, time
from celery import Celery
app = Celery("peer", broker=os.environ["URL"], backend=os.environ["URL"])
app.conf.update(task_default_queue="peer", broker_transport_options={"global_keyprefix": os.environ["PREFIX"]},
                result_backend_transport_options={"global_keyprefix": os.environ["PREFIX"]},
                broker_connection_retry_on_startup=True, worker_hijack_root_logger=False)
@app.task(name="peer.add")
def add(x, y):
    return x + y
"""


@pytest.fixture(params=[pytest.param("", marks=pytest.mark.extended), "pre:"], ids=["plain", "prefixed"])
def prefix(request: pytest.FixtureRequest) -> str:
    text: str = request.param
    return text


class Peer:
    """Runs Python with real Celery in it."""

    def __init__(self, python: Path, directory: Path, url: str, prefix: str) -> None:
        self._python, self._directory = python, directory
        self._environment = {"URL": url, "PREFIX": prefix, "PATH": "/usr/bin:/bin", "PYTHONPATH": str(directory)}
        (directory / "peer_app.py").write_text(textwrap.dedent(APP))

    def run(self, code: str, timeout: float = 60.0) -> str:
        """Output of a program that may use ``app`` and ``add``."""
        program = "from peer_app import *\n" + textwrap.dedent(code)
        done = subprocess.run(
            [self._python, "-c", program],
            env=self._environment,
            cwd=self._directory,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    @contextmanager
    def start(self, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
        """A program that runs meanwhile."""
        with (self._directory / "peer.log").open("ab") as log:
            process = subprocess.Popen(
                [self._python, *arguments], env=self._environment, cwd=self._directory, stdout=log, stderr=log
            )
            try:
                yield process
            finally:
                process.terminate()
                process.wait(60)

    @contextmanager
    def worker(self) -> Iterator[None]:
        """A Celery worker that is ready."""
        with self.start("-m", "celery", "-A", "peer_app", "worker", "-P", "solo", "-n", "w1@host", "-l", "info"):
            log = self._directory / "peer.log"
            wait_until(lambda: b"ready." in log.read_bytes(), 60, lambda: log.read_text())
            yield


@pytest.fixture
def peer(celery_python: Path, tmp_path: Path, redis_url: str, prefix: str) -> Peer:
    return Peer(celery_python, tmp_path, redis_url, prefix)


def message(task_id: str = "", **fields: Any) -> Message:
    task_id = task_id or envelope.new_id()
    headers = {"lang": "py", "task": "peer.add", "id": task_id, "retries": 0, "timelimit": [None, None]}
    body = b'[[2, 3], {}, {"callbacks": null, "errbacks": null, "chain": null, "chord": null}]'
    return Message(id=task_id, task="peer.add", headers=headers, body=body, queue="peer", **fields)


def test_celerys_messages_are_claimed(peer: Peer, redis_url: str, prefix: str) -> None:
    sent = peer.run(
        """
        print(add.delay(1, 2).id, add.apply_async((3, 4), priority=6).id, add.apply_async((5, 6), countdown=60).id)
        """
    ).split()

    async def run() -> None:
        broker = redis.broker(redis_url, AdapterOptions(owner="w1", key_prefix=prefix))
        await broker.open()
        taken = await broker.claim(["peer"], limit=10, wait=1)
        assert [each.message.id for each in taken] == [sent[0], sent[2], sent[1]]
        assert await broker.settle([Accept(each) for each in taken]) == []
        await broker.close()

    asyncio.run(run())


def test_a_celery_worker_runs_ours_and_we_read_its_results(peer: Peer, redis_url: str, prefix: str) -> None:
    options = AdapterOptions(key_prefix=prefix)
    publisher, reader = redis.publisher(redis_url, options), redis.reader(redis_url, options)
    with peer.worker():
        for priority in (0, 3, 9):
            sent = message(priority=priority)
            publisher.publish([sent], timeout=30.0)
            assert reader.wait([sent.id], timeout=60) == sent.id
            (record,) = reader.get([sent.id], timeout=30.0)
            assert record is not None
            assert json.loads(record)["result"] == 5
    publisher.close()
    reader.close()


def test_celery_waits_for_our_results(peer: Peer, redis_url: str, prefix: str, tmp_path: Path) -> None:
    waiting = "import peer_app, sys; print(peer_app.app.AsyncResult('known').get(timeout=60))"
    reader = redis.reader(redis_url, AdapterOptions(key_prefix=prefix))
    with peer.start("-c", waiting) as process:
        time.sleep(1.5)
        body = b'{"status": "SUCCESS", "result": 42, "traceback": null, "children": [], "task_id": "known"}'
        reader.put([StoredResult("known", body, True, 60.0)], timeout=30.0)
        assert process.wait(60) == 0
    assert (tmp_path / "peer.log").read_text().split() == ["42"]
    reader.close()


def test_our_caller_reaches_a_celery_worker(peer: Peer, redis_server: RedisServer, redis_url: str, prefix: str) -> None:
    caller = redis.caller(redis_url, AdapterOptions(key_prefix=prefix))
    with peer.worker():
        request = {"method": "ping", "arguments": {}, "destination": None, "pattern": None, "matcher": None}
        # The worker says that it is ready a moment before it listens.
        wait_until(lambda: caller.call(request, timeout=1, limit=1) == [{"w1@host": {"ok": "pong"}}], 60)
        assert caller.call({**request, "destination": ["other@host"]}, timeout=0.5) == []
        answers = caller.call({**request, "method": "registered"}, timeout=2)
        assert "peer.add" in answers[0]["w1@host"]
    caller.close()
    left = redis_server.command("SMEMBERS", f"{prefix}_kombu.binding.reply.celery.pidbox")
    assert left == []
    assert not redis_server.command("KEYS", "*.reply.celery.pidbox")


def test_celery_inspect_reaches_us(peer: Peer, redis_server: RedisServer, redis_url: str, prefix: str) -> None:
    async def answer() -> None:
        broker = redis.broker(redis_url, AdapterOptions(owner="agent", key_prefix=prefix))
        await broker.open()
        asking = asyncio.to_thread(peer.run, "print(app.control.inspect(timeout=3).ping())")
        listener = broker.listen("celery.pidbox")
        call = asyncio.create_task(asking)
        async for payload, headers in listener:
            assert payload["method"] == "ping"
            assert headers["expires"] > time.time()
            reply_to = payload["reply_to"]
            await broker.reply(
                reply_to["exchange"],
                reply_to["routing_key"],
                {"ours@host": {"ok": "pong"}},
                {"ticket": payload["ticket"], "clock": 1},
            )
            break
        assert "{'ours@host': {'ok': 'pong'}}" in await call
        await broker.reply("reply.celery.pidbox", "nobody", {}, {})
        await broker.close()

    asyncio.run(answer())
    for key in redis_server.command("KEYS", "*.reply.celery.pidbox"):
        assert redis_server.command("PTTL", key) > 0


def test_celery_hears_our_events(peer: Peer, redis_url: str, prefix: str, tmp_path: Path) -> None:
    program = """
import peer_app
def on_event(event):
    print(event["type"], event["hostname"], flush=True)
    raise SystemExit
with peer_app.app.connection() as connection:
    receiver = peer_app.app.events.Receiver(connection, handlers={"worker-heartbeat": on_event})
    receiver.capture(limit=None, timeout=60, wakeup=False)
"""

    async def run() -> None:
        broker = redis.broker(redis_url, AdapterOptions(owner="agent", key_prefix=prefix))
        await broker.open()
        with peer.start("-c", program) as process:
            while process.poll() is None:
                event = {"type": "worker-heartbeat", "hostname": "ours@host", "timestamp": time.time(), "clock": 1}
                event |= {"utcoffset": 0, "pid": 1, "freq": 2.0}
                await broker.emit("celeryev", "worker.heartbeat", event, {"hostname": "ours@host"})
                await asyncio.sleep(0.2)
        await broker.close()

    asyncio.run(asyncio.wait_for(run(), 40))
    assert (tmp_path / "peer.log").read_text().split()[:2] == ["worker-heartbeat", "ours@host"]


RESTORER = """
import os, time
from kombu import Connection
options = {"visibility_timeout": 0.05, "global_keyprefix": os.environ["PREFIX"]}
with Connection(os.environ["URL"], transport_options=options) as connection:
    qos = connection.default_channel.qos
    print("restoring", flush=True)
    while True:
        qos.restore_visible(num=50, interval=1)
"""


def test_kombus_restore_races_with_ours(
    peer: Peer, redis_server: RedisServer, redis_url: str, prefix: str, tmp_path: Path
) -> None:
    """Both take away what is held, all the time: each message is accepted once, none is lost or doubled."""
    sent = {f"id-{number}" for number in range(400)}
    accepted: list[str] = []

    async def work(number: int) -> None:
        options = AdapterOptions(owner=f"w{number}", key_prefix=prefix, lease=0.05)
        broker = redis.broker(redis_url, options)
        await broker.open()
        while len(accepted) < len(sent):
            taken = list(await broker.claim(["peer"], limit=7, wait=0.05))
            await asyncio.sleep(0.01 * (number % 3))
            refused = {each.delivery.token for each in await broker.settle([Accept(each) for each in taken])}
            accepted.extend(each.message.id for each in taken if each.token not in refused)
            await broker.maintain()
        await broker.close()

    async def run() -> None:
        broker = redis.broker(redis_url, AdapterOptions(key_prefix=prefix))
        await broker.publish([message(task_id) for task_id in sorted(sent)])
        await asyncio.wait_for(asyncio.gather(*(work(number) for number in range(4))), 60)
        await broker.close()

    with peer.start("-c", RESTORER):
        wait_until(lambda: b"restoring" in (tmp_path / "peer.log").read_bytes(), 60)
        asyncio.run(run())
    assert sorted(accepted) == sorted(sent)
    assert redis_server.command("EXISTS", f"{prefix}unacked", f"{prefix}unacked_index", f"{prefix}peer") == 0
