"""Simulations as users write them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from celeriac import Celery, chord
from celeriac.exceptions import OperationalError, SoftTimeLimitExceeded, TimeoutError  # noqa: A004
from celeriac.testing import Simulation
from celeriac.testing.simulation.simulation import seconds

#: What the bodies have done, in order.
ran: list[Any] = []


def make_app() -> Celery:
    # Nobody is there: a simulation goes nowhere else.
    app = Celery("sim", broker="redis://nobody.invalid", backend="redis://nobody.invalid", set_as_current=False)

    @app.task(name="add", shared=False)
    def add(x: int, y: int) -> int:
        ran.append((x, y))
        return x + y

    @app.task(name="slow", shared=False, soft_time_limit=10)
    def slow(span: float) -> float:
        began = time.time()
        try:
            time.sleep(span)
        except SoftTimeLimitExceeded:
            return -1.0
        return time.time() - began

    @app.task(name="remind", bind=True, max_retries=2, shared=False)
    def remind(self: Any) -> int:
        ran.append(self.request.retries)
        if self.request.retries < 2:
            raise self.retry(countdown=86400)
        return int(self.request.retries)

    @app.task(name="co", shared=False)
    async def co(span: float) -> str:
        import asyncio

        await asyncio.sleep(span)
        return "slept"

    @app.task(name="hang", time_limit=5, shared=False)
    def hang() -> None:
        time.sleep(3600)

    @app.task(name="total", shared=False)
    def total(values: list[int]) -> int:
        return sum(values)

    return app


@pytest.fixture
def sim() -> Iterator[Simulation]:
    ran.clear()
    with make_app() as app, Simulation(app) as simulation:
        yield simulation


def task(sim: Simulation, name: str) -> Any:
    return sim.app.tasks[name]


def test_a_result_makes_time_pass(sim: Simulation) -> None:
    sim.worker()
    real = time.perf_counter()
    assert task(sim, "slow").delay(9.5).get(timeout=60) == pytest.approx(9.5)
    assert task(sim, "co").delay(3600).get() == "slept"
    assert sim.send(chord([task(sim, "add").s(n, n) for n in range(5)], task(sim, "total").s())).get() == 20
    assert time.perf_counter() - real < 30


def test_days(sim: Simulation) -> None:
    sim.worker()
    before, result = sim.clock, task(sim, "remind").delay()
    sim.advance("1d12h")
    assert ran == [0, 1]
    sim.advance(timedelta(days=1))
    assert (ran, result.get()) == ([0, 1, 2], 2)
    assert sim.clock - before == timedelta(days=2, hours=12)


def test_a_worker_crashes_after_the_body_and_before_its_outcome_is_written(sim: Simulation) -> None:
    sim.worker()
    sim.crash_worker(after=2)
    results = [task(sim, "add").delay(n, 0) for n in range(3)]
    sim.advance(1)
    assert ran == [(0, 0), (1, 0)]
    assert sim.nodes == []
    sim.worker()
    assert [result.get() for result in results] == [0, 1, 2]
    assert ran.count((1, 0)) == 2


def test_a_dead_childs_task_runs_again_at_once(sim: Simulation) -> None:
    sim.worker()
    result = task(sim, "slow").delay(5)
    sim.advance(4)
    sim.crash_child()
    sim.advance(5.2)
    assert result.state == "SUCCESS"


def test_limits(sim: Simulation) -> None:
    sim.worker()
    assert task(sim, "slow").delay(60).get() == -1.0
    result = task(sim, "hang").delay()
    sim.advance(5.1)
    assert result.state == "FAILURE"


def test_an_outage(sim: Simulation) -> None:
    sim.worker()
    sim.cut_broker("30s")
    with pytest.raises(OperationalError, match="broken"):
        task(sim, "add").delay(1, 1)
    sim.advance("31s")
    assert task(sim, "add").delay(1, 1).get() == 2


def test_a_worker_stops(sim: Simulation) -> None:
    node = sim.worker(concurrency=2)
    result = task(sim, "slow").delay(5)
    sim.advance(1)
    sim.stop_worker(node)
    sim.advance(10)
    assert (result.state, sim.nodes) == ("SUCCESS", [])


def test_a_revoked_task_does_not_run(sim: Simulation) -> None:
    sim.worker()
    result = task(sim, "add").apply_async((1, 1), countdown=60)
    result.revoke()
    sim.run_until_idle()
    assert (result.state, ran) == ("REVOKED", [])


def test_who_waits_for_what_never_comes_is_told(sim: Simulation) -> None:
    with pytest.raises(TimeoutError, match=r"nothing is left to do .*sim\.worker\(\)"):
        task(sim, "add").delay(1, 1).get()
    with pytest.raises(TimeoutError):
        task(sim, "add").delay(1, 1).get(timeout=5)
    with pytest.raises(RuntimeError, match="no worker in this simulation"):
        sim.crash_worker()


def test_the_same_seed_takes_the_same_course() -> None:
    def course(seed: int) -> tuple[int, list[str]]:
        with make_app() as app, Simulation(app, seed) as sim:
            sim.worker(concurrency=3)
            results = [sim.app.tasks["slow"].delay(number) for number in range(6)]
            sim.run_until_idle()
            return sim.timeline.steps, [result.id for result in results]

    assert course(1) == course(1)
    assert course(1)[1] != course(2)[1]


def test_afterwards_all_is_as_before(sim: Simulation) -> None:
    from celeriac.codec import envelope

    sim.__exit__(None, None, None)
    assert (time.time.__name__, time.sleep.__name__) == ("time", "sleep")
    assert envelope.random_bytes is envelope._random


def test_countdowns_count_from_its_clock_and_afterwards_from_the_machines() -> None:
    """An app has often been used before; what it sends from is made at its first use."""
    with make_app() as used, make_app() as fresh:
        assert used.sender.now is time.time
        for app in (used, fresh):
            with Simulation(app) as sim:
                sim.worker()
                due = sim.clock.timestamp() + 3 * 86400
                assert app.sender.message("add", (1, 2), {}, {"countdown": 3 * 86400}).due == pytest.approx(due)
                result = app.tasks["add"].apply_async((1, 2), countdown=3 * 86400)
                sim.advance("2d23h")
                assert result.state == "PENDING"
                assert result.get() == 3
            assert app.sender.now is time.time


@pytest.mark.parametrize(
    ("span", "expected"), [(90, 90.0), ("90s", 90.0), ("1h30m", 5400.0), ("3d", 259200.0), ("1.5h", 5400.0)]
)
def test_spans(span: float | str, expected: float) -> None:
    assert seconds(span) == expected


@pytest.mark.parametrize("span", ["", "3", "3 weeks", "d3"])
def test_no_spans(span: str) -> None:
    with pytest.raises(ValueError, match="no span of time"):
        seconds(span)
