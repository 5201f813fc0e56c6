"""What is limited, unique, revoked, paused or dead, in simulations as users write them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest

from celeriac import Celery
from celeriac.exceptions import TaskNotUnique, TaskRevokedError
from celeriac.testing import Simulation

#: When bodies began, and what steps have run.
ran: list[Any] = []


def make_app() -> Celery:
    app = Celery("sim", broker="redis://nobody.invalid", backend="redis://nobody.invalid", set_as_current=False)

    @app.task(name="paced", rate_limit="1/s", shared=False)
    def paced() -> None:
        ran.append(time.time())

    @app.task(name="seated", max_concurrency=2, shared=False)
    def seated() -> None:
        ran.append(time.time())
        time.sleep(10)

    @app.task(name="report", unique="args", on_conflict="raise", shared=False)
    def report(day: str) -> str:
        time.sleep(5)
        return day

    @app.task(name="charge", bind=True, max_retries=3, shared=False)
    def charge(self: Any, fails: int) -> str:
        charged: str = self.once("charge", lambda: ran.append("charged") or "receipt")
        if self.request.retries < fails:
            raise self.retry(countdown=60)
        return charged

    @app.task(name="slow", shared=False)
    def slow() -> None:
        time.sleep(3600)

    @app.task(name="fails", shared=False)
    def fails(number: int) -> float:
        return 1 / number

    return app


@pytest.fixture
def sim() -> Iterator[Simulation]:
    ran.clear()
    with make_app() as app, Simulation(app) as simulation:
        yield simulation


def task(sim: Simulation, name: str) -> Any:
    return sim.app.tasks[name]


def spans() -> list[float]:
    return [round(after - before, 1) for before, after in pairwise(ran)]


def test_a_rate_holds_across_workers(sim: Simulation) -> None:
    sim.worker(concurrency=2)
    sim.worker(concurrency=2)
    for _ in range(5):
        task(sim, "paced").delay()
    sim.run_until_idle()
    assert len(ran) == 5
    assert all(0.9 <= span <= 1.2 for span in spans())


def test_seats_are_shared_and_those_of_the_dead_are_free(sim: Simulation) -> None:
    first = sim.worker(concurrency=2)
    results = [task(sim, "seated").delay() for _ in range(4)]
    sim.advance(1)
    sim.worker(concurrency=4)
    sim.advance(1)
    assert len(ran) == 2
    sim.crash_worker(first)
    sim.advance("2m")
    assert [result.state for result in results] == ["SUCCESS"] * 4
    assert max(spans()) >= 10


def test_one_of_equal_tasks(sim: Simulation) -> None:
    sim.worker()
    result = task(sim, "report").delay("monday")
    with pytest.raises(TaskNotUnique):
        task(sim, "report").delay("monday")
    assert result.get() == "monday"
    assert task(sim, "report").delay("monday").get() == "monday"


def test_one_task_a_key(sim: Simulation) -> None:
    first, second = (task(sim, "report").apply_async((day,), idempotency_key="k") for day in ("monday", "tuesday"))
    assert first.id == second.id


def test_a_step_runs_once_however_often_the_task_does(sim: Simulation) -> None:
    sim.worker()
    assert task(sim, "charge").delay(2).get() == "receipt"
    sim.worker(name="other@simulation")
    sim.crash_worker(after=1)
    assert task(sim, "charge").delay(0).get() == "receipt"
    assert ran == ["charged", "charged"]


def test_revoked_while_it_waits_and_while_it_runs(sim: Simulation) -> None:
    later, running = task(sim, "paced").apply_async(countdown=86400), task(sim, "slow").delay()
    worker = sim.worker()
    later.revoke()
    sim.advance(10)
    assert (later.state, running.state) == ("REVOKED", "PENDING")
    running.revoke(terminate=True)
    with pytest.raises(TaskRevokedError):
        running.get(timeout=5)
    sim.advance(1)
    assert len(worker.children) == 1, "the child that ran it was replaced"
    assert ran == []


def test_a_paused_queue_waits(sim: Simulation) -> None:
    sim.worker()
    sim.app.control.pause_queue("celery")
    result = task(sim, "fails").delay(2)
    sim.advance("1h")
    assert result.state == "PENDING"
    sim.app.control.resume_queue("celery")
    assert result.get(timeout=2) == 0.5


def test_a_dead_letter_is_sent_again(sim: Simulation) -> None:
    sim.worker()
    result = task(sim, "fails").delay(0)
    sim.run_until_idle()
    assert result.state == "FAILURE"
    (letter,) = sim.app.dead_letters.list()
    assert sim.app.dead_letters.retry(letter, args=(4,)).get(timeout=5) == 0.25
    assert sim.app.dead_letters.count() == 0
