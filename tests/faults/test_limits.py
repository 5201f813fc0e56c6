"""Time limits, and limits of a child, in every pool: what ends, what is stored, and what happens to the others."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from typing import Any

import pytest

from tests.faults.fleet import send_signal
from tests.faults.journal import report
from tests.faults.place import Place
from tests.proxy import Proxy
from tests.servers import HOST, RedisServer, wait_until

SOFT, HARD = 0.3, 0.6
#: A task's soft limit is looked at every 50 ms, its hard limit five times a second; the rest is for a busy machine.
SLACK = 8.0
#: Where threads differ from processes in nothing that is asked.
EXTENDED_THREADS = pytest.param("threads", marks=pytest.mark.extended)


def send(place: Place, name: str, *args: Any, **options: Any) -> str:
    """``limited.<name>``; returns the id."""
    return str(place.app.tasks[f"limited.{name}"].apply_async(args, **options).id)


def fleet(place: Place) -> Any:
    return place.fleet(worker_lease=30)


@pytest.mark.parametrize(
    ("pool", "names"),
    [
        ("prefork", ("sleeping", "receiving", "waiting", "spinning", "asleeping")),
        ("solo", ("sleeping", "receiving", "asleeping")),
        ("threads", ("spinning", "asleeping")),
    ],
)
def test_a_soft_limit_raises_inside_the_task(redis_place: Place, pool: str, names: tuple[str, ...]) -> None:
    with fleet(redis_place) as workers:
        node = workers.start("-c", "1", "-P", pool)
        before = redis_place.wait_state(send(redis_place, "pid"), "SUCCESS")["result"]
        for name in names:
            began = time.monotonic()
            record = redis_place.wait_state(send(redis_place, name, soft_time_limit=SOFT), "SUCCESS")
            took = time.monotonic() - began
            assert record["result"].startswith("caught"), name
            assert SOFT <= took < SOFT + SLACK, name
            after = redis_place.wait_state(send(redis_place, "pid"), "SUCCESS")["result"]
            assert after == before, f"its process goes on after {name}"
        assert node.stop() == 0


def test_a_coroutine_ends_what_it_has_started(redis_place: Place) -> None:
    with fleet(redis_place) as workers:
        workers.start("-c", "1")
        record = redis_place.wait_state(send(redis_place, "agrouped", soft_time_limit=SOFT), "SUCCESS")
        assert record["result"] == "part+part"


@pytest.mark.parametrize("pool", ["prefork", "threads", "solo"])
@pytest.mark.parametrize("by", ["message", pytest.param("node", marks=pytest.mark.extended)])
def test_a_hard_limit_is_stored_and_dead_lettered(place: Place, pool: str, by: str) -> None:
    with fleet(place) as workers:
        given = ["--time-limit", str(HARD)] if by == "node" else []
        node = workers.start("-c", "1", "-P", pool, *given)
        before = place.wait_state(send(place, "pid"), "SUCCESS")["result"]
        options = {"time_limit": HARD} if by == "message" else {}
        began = time.monotonic()
        task = send(place, "deaf", soft_time_limit=SOFT, **options)
        record = place.wait_state(task, "FAILURE")
        took = time.monotonic() - began
        assert record["result"]["exc_type"] == "TimeLimitExceeded"
        assert [(letter.id, letter.reason) for letter in place.dead()] == [(task, "time limit")]
        assert HARD <= took < HARD + SLACK
        after = place.wait_state(send(place, "pid"), "SUCCESS")["result"]
        assert (after == before) == (pool == "solo"), "its process is replaced where there is another"
        place.wait_empty()
        assert node.stop() == 0


@pytest.mark.parametrize("pool", ["prefork", EXTENDED_THREADS, "solo"])
def test_a_coroutines_hard_limit_spares_its_process(redis_place: Place, pool: str) -> None:
    with fleet(redis_place) as workers:
        workers.start("-c", "1", "-P", pool)
        before = redis_place.wait_state(send(redis_place, "apid"), "SUCCESS")["result"]
        record = redis_place.wait_state(send(redis_place, "asleeping", time_limit=HARD), "FAILURE")
        assert record["result"]["exc_type"] == "TimeLimitExceeded"
        after = redis_place.wait_state(send(redis_place, "apid"), "SUCCESS")["result"]
        assert after == before


@pytest.mark.parametrize("pool", ["prefork", EXTENDED_THREADS])
@pytest.mark.parametrize("name", ["adeaf", "ablocking"])
def test_a_coroutine_that_does_not_end_costs_its_process(place: Place, pool: str, name: str) -> None:
    """It has failed in time; the others of the process run to their end, here or elsewhere, uncounted."""
    with fleet(place) as workers:
        node = workers.start("-c", "1", "-P", pool)
        before = place.wait_state(send(place, "apid"), "SUCCESS")["result"]
        others = [place.send("waits", number, 500) for number in range(5)]
        wait_until(lambda: workers.journal.read().starts.total() == 5, 15.0)
        began = time.monotonic()
        task = send(place, name, time_limit=HARD)
        record = place.wait_state(task, "FAILURE")
        took = time.monotonic() - began
        assert record["result"]["exc_type"] == "TimeLimitExceeded"
        assert took < HARD + 1.0 + SLACK
        for number, other in enumerate(others):
            assert place.wait_state(other, "SUCCESS")["result"] == number
        wait_until(lambda: node.has_logged("leaves to be replaced") or name == "ablocking", 10.0, node.log)
        place.wait_empty()
        after = place.wait_state(send(place, "apid"), "SUCCESS")["result"]
        assert after != before
        assert [letter.id for letter in place.dead()] == [task]
        report(place=place.kind, pool=pool, lost=0, doubled=workers.journal.again(others), took=took)
        if name == "adeaf":
            assert workers.journal.again(others) == 0
        assert node.stop() == 0


@pytest.mark.parametrize("name", ["adeaf", "ablocking"])
def test_a_coroutine_that_does_not_end_has_failed_all_the_same(redis_place: Place, name: str) -> None:
    """In solo nobody replaces the process: it goes on."""
    with fleet(redis_place) as workers:
        node = workers.start("-P", "solo")
        before = redis_place.wait_state(send(redis_place, "pid"), "SUCCESS")["result"]
        record = redis_place.wait_state(send(redis_place, name, time_limit=HARD), "FAILURE")
        assert record["result"]["exc_type"] == "TimeLimitExceeded"
        assert redis_place.wait_state(send(redis_place, "pid"), "SUCCESS")["result"] == before
        redis_place.wait_empty()
        assert node.running


def test_what_ran_beside_an_overdue_thread_goes_back_uncounted(place: Place) -> None:
    with fleet(place) as workers:
        node = workers.start("-c", "4", "-P", "threads")
        others = [place.send("work", number, 1500) for number in range(3)]
        wait_until(lambda: workers.journal.read().starts.total() == 3, 15.0)
        task = send(place, "deaf", time_limit=HARD)
        place.wait_state(task, "FAILURE")
        for number, other in enumerate(others):
            assert place.wait_state(other, "SUCCESS")["result"] == number
        assert [letter.id for letter in place.dead()] == [task]
        place.wait_empty()
        assert node.stop() == 0


def _linked(place: Place) -> list[int]:
    """The children that the agent has heard of."""
    stats = place.app.control.inspect(timeout=0.5, limit=1).stats() or {}
    return [pid for answer in stats.values() for pid in answer["pool"]["processes"]]


def test_limits_by_remote_control(redis_place: Place) -> None:
    """They hold for running children, and for those that come later."""
    control = redis_place.app.control
    with fleet(redis_place) as workers:
        workers.start("-c", "1", name="w1@faults")
        wait_until(lambda: control.ping(timeout=0.5, limit=1), 10.0)
        (answer,) = control.time_limit("limited.deaf", soft=60, hard=HARD, reply=True, timeout=15.0, limit=1)
        assert answer == {"w1@faults": {"ok": "time limits set successfully"}}
        for _ in range(2):  # the child is killed each time, and the next one has its orders before its first claim
            record = redis_place.wait_state(send(redis_place, "deaf"), "FAILURE")
            assert record["result"]["exc_type"] == "TimeLimitExceeded"
        (answer,) = control.time_limit("limited.none", hard=1, reply=True, timeout=15.0, limit=1)
        assert answer == {"w1@faults": {"error": "unknown task"}}


def test_remote_control_outlives_the_agent(redis_place: Place) -> None:
    control = redis_place.app.control
    with fleet(redis_place) as workers:
        node = workers.start("-c", "1", name="w1@faults")
        wait_until(lambda: control.ping(timeout=0.5, limit=1), 10.0)
        control.time_limit("limited.deaf", soft=60, hard=HARD, reply=True, timeout=15.0, limit=1)
        control.rate_limit("limited.deaf", "100/s", reply=True, timeout=15.0, limit=1)
        control.add_consumer("more", reply=True, timeout=15.0, limit=1)
        children = set(wait_until(lambda: _linked(redis_place), 10.0, node.log))
        (agent,) = set(node.below()) - children
        send_signal([agent], signal.SIGKILL)
        wait_until(lambda: set(_linked(redis_place)) == children and agent not in node.below(), 10.0, node.log)
        for queue in ("celery", "more"):
            record = redis_place.wait_state(send(redis_place, "deaf", queue=queue), "FAILURE")
            assert record["result"]["exc_type"] == "TimeLimitExceeded"
        (queues,) = control.inspect(timeout=15.0, limit=1).active_queues().values()
        assert [queue["name"] for queue in queues] == ["celery", "more"]
        assert node.stop() == 0


# -- children that leave -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pool", "task"),
    [
        ("prefork", "work"),
        ("threads", "waits"),
        pytest.param("threads", "work", marks=pytest.mark.extended),
        pytest.param("prefork", "waits", marks=pytest.mark.extended),
    ],
)
def test_children_are_replaced_after_so_many_tasks(place: Place, pool: str, task: str) -> None:
    with fleet(place) as workers:
        node = workers.start("-c", "2", "-P", pool, "--max-tasks-per-child", "10")
        ids = place.send_many(task, [(number, 5) for number in range(100)])
        place.wait_all(workers, ids, 40.0)
        place.judge(workers, {each: number for number, each in enumerate(ids)})
        assert workers.journal.again(ids) == 0
        per_child: dict[int, int] = {}
        for run in workers.journal.runs:
            if run.kind == "start":
                per_child[run.pid] = per_child.get(run.pid, 0) + 1
        assert max(per_child.values()) <= 10
        assert len(per_child) >= 10
        assert not node.lines("died by")
        assert node.stop() == 0


def test_no_more_run_at_once_than_there_are_children(redis_place: Place) -> None:
    """Not even while one child hands over to the next."""
    with fleet(redis_place) as workers:
        workers.start("-c", "1", "--max-tasks-per-child", "3")
        ids = redis_place.send_many("work", [(number, 20) for number in range(20)])
        redis_place.wait_all(workers, ids, 30.0)
        running = most = 0
        for run in sorted(workers.journal.read().runs, key=lambda run: (run.at, run.kind != "end")):
            running += 1 if run.kind == "start" else -1
            most = max(most, running)
        assert most == 1


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_a_child_that_has_grown_is_replaced(redis_place: Place, pool: str) -> None:
    with fleet(redis_place) as workers:
        node = workers.start("-c", "1", "-P", pool, "--max-memory-per-child", "150000")
        first = redis_place.wait_state(send(redis_place, "hungry", 200), "SUCCESS")["result"]
        node.logged("leaves to be replaced: it uses ")
        second = redis_place.wait_state(send(redis_place, "pid"), "SUCCESS")["result"]
        assert first != second
        assert node.stop() == 0


def test_what_is_long_is_finished_by_the_one_that_leaves(redis_place: Place) -> None:
    """Its successor works meanwhile; the grace is for shutdowns, not for this."""
    with redis_place.fleet(worker_lease=30, worker_grace=0.2) as workers:
        node = workers.start("-c", "1", "--max-tasks-per-child", "3")
        long = redis_place.send("waits", 7, 1500)
        wait_until(lambda: workers.journal.started(long), 15.0)
        for _ in range(6):
            redis_place.wait_state(send(redis_place, "pid"), "SUCCESS")
        redis_place.wait_state(long, "SUCCESS")
        assert workers.journal.again([long]) == 0
        assert node.stop() == 0


def test_who_leaves_waits_for_a_result_store_that_is_away(
    redis_server: RedisServer, redis_url: str, tmp_path: Path
) -> None:
    """Longer than a shutdown would: nothing runs again."""
    with Proxy(HOST, redis_server.port) as proxy:
        store = redis_server.url(port=proxy.port)
        place = Place(redis_url, tmp_path, redis_server, result_backend=store)
        with place.fleet(worker_lease=30) as workers:
            node = workers.start("-c", "1", "--max-tasks-per-child", "2")
            proxy.refuse()
            proxy.cut()
            ids = place.send_many("work", [(number, 5) for number in range(6)])
            wait_until(lambda: workers.journal.ended(ids) == 2, 15.0, workers.logs)
            began = time.monotonic()
            wait_until(lambda: time.monotonic() - began > 7.0, 10.0)
            proxy.refuse(on=False)
            for number, each in enumerate(ids):
                assert place.wait_state(each, "SUCCESS", 20.0)["result"] == number
            place.wait_empty()
            assert workers.journal.again(ids) == 0
            assert not node.lines("Cannot write the last outcomes")
