"""The Redis users of docs/reference/security.md: each can do its work, and nothing else."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator
from copy import copy
from pathlib import Path
from typing import Any

import hiredis
import pytest

from celeriac import Celery, chord, group
from celeriac.beat import SharedScheduler
from celeriac.beat.answering import Answering
from celeriac.contrib.testing.worker import start_worker
from celeriac.exceptions import OperationalError, TaskRevokedError
from celeriac.result import GroupResult
from celeriac.worker.adapters import broker_of
from tests.servers import HOST, RedisServer, wait_until

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "security.md"
LINES = [line.split()[2:] for line in PAGE.read_text("utf-8").splitlines() if line.startswith("ACL SETUSER ")]
PREFIX = {"global_keyprefix": "proj:"}


@pytest.fixture(scope="module")
def server(make_redis: Callable[..., RedisServer]) -> Iterator[RedisServer]:
    server = make_redis()
    yield server
    server.close()


def allow(server: RedisServer, user: str, lines: int) -> None:
    """The first ``lines`` of the user's on the page."""
    server.command("ACL", "DELUSER", user)
    for words in [words for words in LINES if words[0] == user][:lines]:
        server.command("ACL", "SETUSER", *(word.replace(">PASSWORD", f">{user}-password") for word in words))
    server.command("ACL", "LOG", "RESET")


def app_of(server: RedisServer, user: str) -> Celery:
    url = f"redis://{user}:{user}-password@{HOST}:{server.port}/0"
    app = Celery(
        "proj",
        broker=url,
        backend=url,
        broker_transport_options=PREFIX,
        result_backend_transport_options=PREFIX,
        set_as_current=False,
    )
    app.task(name="proj.add")(_add)
    app.task(name="proj.total")(sum)
    return app


def _add(x: int, y: int) -> int:
    return x + y


def denied(server: RedisServer) -> list[tuple[str, str]]:
    """User and object of what was refused since the last look."""
    log = [dict(zip(entry[::2], entry[1::2], strict=True)) for entry in server.command("ACL", "LOG")]
    server.command("ACL", "LOG", "RESET")
    return [(entry[b"username"].decode(), entry[b"object"].decode()) for entry in log]


def test_the_page_names_all_roles() -> None:
    assert [words[0] for words in LINES] == [
        "worker",
        "producer",
        "producer",
        "producer",
        "beat",
        "beat",
        *3 * ["operator"],
    ]


def test_a_beat_does_its_work(server: RedisServer) -> None:
    allow(server, "operator", 1), allow(server, "beat", 1)
    app = app_of(server, "beat")
    app.conf.result_backend = None
    entry = {"task": "proj.add", "schedule": 0.1, "args": [1, 2]}
    app.conf.beat_schedule = {how: {**entry, "overlap": how} for how in ("allow", "skip", "queue")}
    app.periodic.add("stored", **entry, options={"countdown": 60, "priority": 6})
    app.periodic.pause("stored")
    app.periodic.resume("stored")
    scheduler = SharedScheduler(app)
    wait_until(lambda: scheduler.tick() >= 0 and scheduler.sent >= 10, 60, "tasks are sent")
    assert len(app.periodic.schedulers()) == 1
    app.periodic.run("stored")
    app.periodic.delete("stored")
    scheduler.close()
    assert denied(server) == []
    allow(server, "beat", 2)

    async def answer() -> list[Any]:
        running = asyncio.create_task(Answering(app, "b@h", lambda: "").run())
        while not (pong := await asyncio.to_thread(app_of(server, "operator").control.ping, timeout=0.2)):
            pass
        await asyncio.to_thread(app.control.inspect(timeout=0.1).registered)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        return list(pong)

    assert asyncio.run(answer()) == [{"b@h": {"ok": "pong"}}]
    assert denied(server) == []
    app.periodic.close()
    server.command("FLUSHALL")


def test_everybody_does_their_work(server: RedisServer) -> None:
    allow(server, "worker", 1), allow(server, "producer", 1), allow(server, "operator", 1)
    node, sender, operator = app_of(server, "worker"), app_of(server, "producer"), app_of(server, "operator")
    add: Any = sender.tasks["proj.add"]
    with start_worker(node, perform_ping_check=False, task_events=True, without_heartbeat=False):
        assert add.delay(2, 3).get(timeout=60) == 5
        assert add.apply_async((2, 3), countdown=0.2, priority=6).get(timeout=60) == 5
        many = sender.send_many([add.s(n, n).set(priority=priority) for n, priority in enumerate((0, 3, 6, 9))])
        assert [each.get(timeout=60) for each in many] == [0, 2, 4, 6]
        assert group(add.s(n, n) for n in range(5))().get(timeout=60) == [0, 2, 4, 6, 8]
        assert operator.control.ping(timeout=60.0, limit=1)
        assert operator.control.inspect(timeout=60.0, limit=1).stats()
        own: Any = node.tasks
        assert chord([own["proj.add"].s(n, n) for n in range(5)], own["proj.total"].s())().get(timeout=60) == 20
        assert node.control.purge() == 0
    assert denied(server) == []
    assert not [key for key in server.command("KEYS", "*") if not key.startswith(b"proj:")], "a key without prefix"


def test_a_producer_of_chords(server: RedisServer) -> None:
    allow(server, "worker", 1), allow(server, "producer", 2)
    node, sender = app_of(server, "worker"), app_of(server, "producer")
    task: Any = sender.tasks
    with start_worker(node, perform_ping_check=False):
        assert chord([task["proj.add"].s(n, n) for n in range(5)], task["proj.total"].s())().get(timeout=60) == 20
        nested = chord([group(task["proj.add"].s(n, n) for n in range(2))], task["proj.total"].s())
        assert nested.tasks
        saved = group(task["proj.add"].s(n, n) for n in range(2))()
        saved.save()
        restored = GroupResult.restore(saved.id, app=sender)
        assert restored is not None
        assert restored.get(timeout=60) == [0, 2]
    assert denied(server) == []


def test_a_producer_can_do_no_more(server: RedisServer) -> None:
    allow(server, "producer", 1)
    sender = app_of(server, "producer")
    sent = sender.tasks["proj.add"].delay(1, 1)
    attempts: list[Callable[[], Any]] = [
        lambda: sender.backend.store_result(sent.id, 666, "SUCCESS"),
        lambda: sender.backend.forget(sent.id),
        lambda: sender.control.shutdown(),
        lambda: sender.control.ping(timeout=0.2),
        lambda: sender.control.purge(),
    ]
    for attempt in attempts:
        with pytest.raises(OperationalError, match=re.escape("docs/reference/security.md")):
            attempt()
    alone = copy(server)
    alone.user, alone.password = "producer", "producer-password"
    forbidden: list[tuple[str, ...]] = [
        ("RPOP", "proj:celery"),
        ("LRANGE", "proj:celery", "0", "-1"),
        ("SET", f"proj:celery-task-meta-{sent.id}", "{}"),
        ("PUBLISH", "proj:/0.celery.pidbox", "{}"),
        ("KEYS", "*"),
        ("CONFIG", "GET", "*"),
        ("EVAL", "return redis.call('RPOP', KEYS[1])", "1", "proj:celery"),
    ]
    for words in forbidden:
        with pytest.raises(hiredis.ReplyError, match=r"NOPERM|can.t run this command"):
            alone.command(*words)
    assert server.command("LLEN", "proj:celery") == 1


def test_a_producer_of_keyed_tasks(server: RedisServer) -> None:
    allow(server, "producer", 1)
    sender = app_of(server, "producer")
    task: Any = sender.tasks
    first, again = (task["proj.add"].apply_async((1, 2), idempotency_key="once") for _ in range(2))
    assert again.id == first.id
    alone: Any = sender.task(name="proj.alone", unique=True)(_add)
    assert alone.delay(1, 2).id == alone.delay(1, 2).id
    assert denied(server) == []
    with pytest.raises(OperationalError, match="NOPERM"):
        group(task["proj.add"].s(n, n) for n in range(1_500))()
    with pytest.raises(OperationalError, match="NOPERM"):
        first.revoke()


def test_a_producer_of_large_groups(server: RedisServer) -> None:
    allow(server, "producer", 3)
    sender, before = app_of(server, "producer"), server.command("LLEN", "proj:celery")
    task: Any = sender.tasks
    group(task["proj.add"].s(n, n) for n in range(1_500))()
    group(task["proj.add"].s(n, n).set(priority=3) for n in range(1_500))()
    assert server.command("LLEN", "proj:celery") == before + 1_500
    assert denied(server) == []


def test_an_operator_keeps_order(make_redis: Callable[..., RedisServer]) -> None:
    """Revoked tasks, paused queues, dead letters."""
    server = make_redis()
    try:
        allow(server, "worker", 1), allow(server, "producer", 1), allow(server, "operator", 3)
        node, sender, operator = app_of(server, "worker"), app_of(server, "producer"), app_of(server, "operator")
        add: Any = sender.tasks["proj.add"]
        operator.control.pause_queue("celery", reason="why")
        assert [*operator.control.paused_queues()] == ["celery"]
        for app in (node, sender):
            app.task(name="proj.alone", unique=True)(_add)
        alone: Any = sender.tasks["proj.alone"]
        revoked, failed, dropped = add.delay(1, 1), alone.delay(1, None), add.delay(2, None)
        operator.control.revoke(revoked.id)
        with start_worker(node, perform_ping_check=False):
            assert isinstance(revoked.get(timeout=60, propagate=False), TaskRevokedError)
            operator.control.resume_queue("celery")
            for each in (failed, dropped):
                assert isinstance(each.get(timeout=60, propagate=False), TypeError)
            assert {each.id for each in operator.dead_letters.list()} == {failed.id, dropped.id}
            again = operator.dead_letters.retry(failed.id, args=(1, 2))
            operator.dead_letters.drop(dropped.id)
            assert again.get(timeout=60) == 3
        assert operator.dead_letters.count() == 0
        assert denied(server) == []
    finally:
        server.close()


def test_a_worker_that_may_not_ask_maintains(server: RedisServer) -> None:
    """INFO is for a warning only."""
    allow(server, "worker", 1)
    server.command("ACL", "SETUSER", "worker", "-info")
    node = app_of(server, "worker")

    async def main() -> float:
        broker = broker_of(node, "owner")
        await broker.open()
        try:
            return await broker.maintain()
        finally:
            await broker.close()

    assert asyncio.run(main()) > 0
    assert denied(server) == [("worker", "info")]


def test_a_user_without_a_password(server: RedisServer) -> None:
    server.command("ACL", "SETUSER", "open", "on", "nopass", "~*", "&*", "+@all")
    app = Celery("proj", broker=f"redis://open@{HOST}:{server.port}/0", set_as_current=False)
    app.send_task("proj.add", queue="by-name")
    app.sender.close()
    assert server.command("LLEN", "by-name") == 1

    async def main() -> None:
        broker = broker_of(app, "owner")
        await broker.open()
        assert len(await broker.claim(["by-name"], limit=1, wait=0)) == 1
        await broker.close()

    asyncio.run(main())
