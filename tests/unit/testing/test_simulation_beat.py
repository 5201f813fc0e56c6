"""Periodic tasks in a simulation: years in moments, schedulers that die."""

from __future__ import annotations

from collections import Counter
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest

from celeriac import Celery
from celeriac.schedules import crontab
from celeriac.testing import Simulation


@pytest.fixture
def ran() -> list[tuple[str, datetime, datetime]]:
    return []


@pytest.fixture
def app(ran: list[tuple[str, datetime, datetime]]) -> Celery:
    app = Celery("periodic", broker="memory://", backend="memory://", set_as_current=False)

    @app.task(bind=True, name="note")
    def note(self: Any) -> None:
        request, sim = self.request, app.simulation  # type: ignore[attr-defined]
        ran.append((request.periodic_task_name, datetime.fromisoformat(request.periodic_slot), sim.clock))

    return app


def test_days_of_periodic_tasks(app: Celery, ran: list[Any]) -> None:
    app.conf.beat_schedule = {
        "hourly": {"task": "note", "schedule": crontab(minute=0)},
        "often": {"task": "note", "schedule": 900.0},
    }
    with Simulation(app) as sim:
        app.simulation = sim  # type: ignore[attr-defined]
        sim.worker()
        sim.beat()
        sim.advance("3d")
    assert Counter(name for name, _, _ in ran) == {"hourly": 72, "often": 288}
    assert all(timedelta(0) <= at - slot < timedelta(seconds=1) for _, slot, at in ran)


@pytest.mark.parametrize("seed", range(5))
def test_schedulers_that_die_and_freeze(app: Celery, ran: list[Any], seed: int) -> None:
    app.conf.beat_schedule = {"x": {"task": "note", "schedule": 5.0, "catch_up": "all"}}
    with Simulation(app, seed=seed) as sim:
        app.simulation = sim  # type: ignore[attr-defined]
        sim.worker(concurrency=2)
        beats = [sim.beat(), sim.beat()]
        for number in range(20):
            sim.advance(7)
            beats[number % 2].pause()
            sim.advance(13)
            beats[number % 2].kill()
            beats[number % 2] = sim.beat()
            if number % 5 == 4:
                sim.cut_broker("8s")
        sim.advance(30)
    slots = Counter(slot for _, slot, _ in ran)
    assert set(slots.values()) == {1}
    first, last = min(slots), max(slots)
    assert len(slots) == (last - first).total_seconds() / 5 + 1
    assert len(slots) >= 80


def test_a_hundred_nights(app: Celery, ran: list[Any]) -> None:
    app.conf.beat_schedule = {"nightly": {"task": "note", "schedule": crontab(hour=2, minute=30, tz="Europe/Oslo")}}
    with Simulation(app) as sim:
        app.simulation = sim  # type: ignore[attr-defined]
        sim.worker()
        sim.beat()
        sim.advance("100d")  # over the night in which that time does not exist
    assert len({slot.date() for _, slot, _ in ran}) == len(ran) == 100


def test_skip_and_queue(app: Celery, ran: list[Any]) -> None:
    import time

    spans: dict[str, list[tuple[float, float]]] = {"skip": [], "queue": []}

    @app.task(bind=True, name="slow")
    def slow(self: Any) -> None:
        began = time.time()
        time.sleep(12)
        spans[self.request.periodic_task_name].append((began, time.time()))

    app.conf.beat_schedule = {
        name: {"task": "slow", "schedule": 5.0, "overlap": name, "expires": 0} for name in ("skip", "queue")
    }
    with Simulation(app) as sim:
        sim.worker(concurrency=8)
        sim.beat()
        sim.advance(121)
    for name, found in spans.items():
        found.sort()
        assert all(ended <= began + 0.001 for (_, ended), (began, _) in pairwise(found)), name
    assert 7 <= len(spans["skip"]) <= 9
    assert 8 <= len(spans["queue"]) <= 10


def test_idle_is_without_schedulers(app: Celery, ran: list[Any]) -> None:
    app.conf.beat_schedule = {"x": {"task": "note", "schedule": 3600.0}}
    with Simulation(app) as sim:
        app.simulation = sim  # type: ignore[attr-defined]
        sim.worker()
        sim.beat()
        before = sim.clock
        sim.run_until_idle()
        assert sim.clock - before < timedelta(hours=1)
