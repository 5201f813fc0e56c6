"""Real Celery and our own on one RabbitMQ, results in Redis: each side's producer with the other side's worker, both
workers on one queue, remote control and events across, and the declarations of both side by side."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.compat.project.fleet import Fleet
from tests.servers import RabbitServer, RedisServer, wait_until

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def vhost(rabbitmq_server: RabbitServer) -> str:
    return rabbitmq_server.new_vhost()


@pytest.fixture(scope="module")
def fleet(
    rabbitmq_server: RabbitServer,
    vhost: str,
    compat_redis: RedisServer,
    celery_python: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Fleet]:
    """``ours@host`` on the queue ``ours``, ``theirs@host`` on ``theirs``, both on ``both``."""
    folder = tmp_path_factory.mktemp("rabbit")
    with Fleet(compat_redis, folder, celery_python, db=9, broker_url=rabbitmq_server.url(vhost)) as fleet:
        workers = [
            fleet.theirs("theirs@host", "-c", "2", "-Q", "theirs,both", "-E"),
            fleet.ours("ours@host", "-c", "2", "-Q", "ours,both", "-E"),
        ]
        for worker in workers:
            worker.ready()
        fleet.wait_for_answer("theirs@host")
        yield fleet


@pytest.fixture(params=["ours", "theirs"])
def way(request: pytest.FixtureRequest) -> str:
    side: str = request.param
    return side


CASES: dict[str, tuple[str, tuple[Any, ...], dict[str, Any], Any]] = {
    "plain": ("add", (1, 2), {}, 3),
    "kwargs": ("add", (), {"kwargs": {"x": "a", "y": "ü"}}, "aü"),
    "priority": ("add", (1, 2), {"priority": 6}, 3),
    "gzip": ("add", (1, 2), {"compression": "gzip"}, 3),
    "headers": ("add", (1, 2), {"headers": {"x-own": "ü", "deep": {"a": [1, None, 1.5, True]}}}, 3),
    "expires later": ("add", (1, 2), {"expires": 60}, 3),
    "countdown": ("add", (1, 2), {"countdown": 1.5}, 3),
    "retries": ("retry", (2,), {}, 2),
}


@pytest.mark.parametrize("case", CASES)
def test_it_runs_on_the_other_side(fleet: Fleet, way: str, case: str) -> None:
    name, args, options, expected = CASES[case]
    begin = time.monotonic()
    found = fleet.call(way, name, args, **options)
    assert (found.get("value"), found["state"]) == (expected, "SUCCESS"), f"{found}\n{fleet.logs()}"
    assert time.monotonic() - begin >= options.get("countdown", 0.0)


def test_both_drain_one_queue(fleet: Fleet) -> None:
    sent = [fleet.send("add", (number, 1), queue="both") for number in range(200)]
    sent_by_celery = fleet.console.run(
        "[send('add', (number, 1), queue='both').id for number in range(200)]",
    )
    assert [result.get(timeout=60) for result in sent] == list(range(1, 201))
    for number, task_id in enumerate(sent_by_celery):
        assert fleet.wait_state(task_id, "SUCCESS", 30)["result"] == number + 1


def test_remote_control_goes_across(fleet: Fleet) -> None:
    answers = fleet.app.control.ping(timeout=60.0, limit=2)
    assert sorted(name for answer in answers for name in answer) == ["ours@host", "theirs@host"]
    names = fleet.console.run("sorted(name for answer in app.control.ping(timeout=60.0, limit=2) for name in answer)")
    assert names == ["ours@host", "theirs@host"]
    found = fleet.console.run("app.control.inspect(['ours@host'], timeout=60.0).stats()['ours@host']['pool']")
    assert found["max-concurrency"] == 2


def test_celery_hears_our_events(fleet: Fleet) -> None:
    kinds = fleet.console.run(
        """
        found = set()
        def note(event):
            if event["hostname"] == "ours@host":
                if not found:
                    send("add", (1, 2), queue="ours")  # now that it listens
                found.add(event["type"])
                receiver.should_stop = {"worker-heartbeat", "task-succeeded"} <= found
        with app.connection_for_read() as connection:
            receiver = app.events.Receiver(connection, handlers={"*": note})
            receiver.capture(limit=None, timeout=60.0, wakeup=True)
        sorted(found)
        """
    )
    assert {"worker-heartbeat", "task-received", "task-started", "task-succeeded"} <= set(kinds), kinds


def test_what_is_declared_is_the_same(fleet: Fleet, rabbitmq_server: RabbitServer, vhost: str) -> None:
    """Whoever declares first: nothing is declared otherwise by the other, and nobody complains."""

    def told(expression: str) -> str:
        return "".join(rabbitmq_server.erl(expression).split())

    def named(kind: str, name: str) -> str:
        return f'rabbit_misc:r(<<"{vhost}">>, {kind}, <<"{name}">>)'

    for name in ("ours", "theirs", "both"):
        queue, exchange = named("queue", name), named("exchange", name)
        facts = f"rabbit_amqqueue:info(element(2, rabbit_amqqueue:lookup({queue})), [durable, auto_delete, arguments])"
        assert told(facts) == "[{durable,true},{auto_delete,false},{arguments,[]}]"
        bindings = f"rabbit_binding:list_for_source_and_destination({exchange}, {queue})"
        assert told(f'[bound || Each <- {bindings}, element(3, Each) =:= <<"{name}">>]') == "[bound]"
    for name, kind, durable in (
        ("ours", "direct", "true"),
        ("theirs", "direct", "true"),
        ("both", "direct", "true"),
        ("celeryev", "topic", "true"),
        ("celery.pidbox", "fanout", "false"),
        ("reply.celery.pidbox", "direct", "false"),
    ):
        facts = f"rabbit_exchange:info(element(2, rabbit_exchange:lookup({named('exchange', name)})), [type, durable])"
        assert told(facts) == f"[{{type,{kind}}},{{durable,{durable}}}]"
    assert "with another" not in fleet.logs()


def test_a_dead_worker_of_ours_leaves_its_tasks_to_the_other(fleet: Fleet, tmp_path: Path) -> None:
    doomed = fleet.ours("doomed@host", "-c", "2", "-Q", "both").ready()
    sent = [fleet.send("add", (number, 1), queue="both") for number in range(300)]
    doomed.kill()
    assert [result.get(timeout=60) for result in sent] == list(range(1, 301))
    wait_until(lambda: not doomed.running, 60)
