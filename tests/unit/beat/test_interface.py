"""Celery's `Scheduler`: what it does beyond Celery's (test_beat_interface.py compares the rest, tick by tick)."""

from __future__ import annotations

import copy
import logging
import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from celeriac import Celery
from celeriac.beat import BeatLazyFunc, ScheduleEntry, Scheduler, SchedulingError
from celeriac.beat.loop import Service
from celeriac.exceptions import OperationalError
from celeriac.schedules import schedule
from celeriac.signals import beat_init
from tests.servers import wait_until

NOW = datetime(2026, 5, 17, 12, 0, tzinfo=UTC)


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now


class Noting(Scheduler):
    """Notes what it would send; `away` attempts fail first."""

    away = 0

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.attempts: list[tuple[Any, ...]] = []
        self.options: list[dict[str, Any]] = []
        super().__init__(*args, **kwargs)

    def send_task(self, name: str, args: Any = None, kwargs: Any = None, **options: Any) -> Any:
        self.attempts.append((name, args, kwargs))
        self.options.append(options)
        if len(self.attempts) <= self.away:
            raise OperationalError("redis://localhost: refused")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def app(clock: Clock) -> Celery:
    app = Celery("beats", broker="memory://", set_as_current=False)
    app.conf.beat_schedule = {"each": {"task": "t", "schedule": schedule(10, nowfun=clock), "args": (1,)}}
    return app


def entry(app: Celery, **fields: Any) -> ScheduleEntry:
    return ScheduleEntry(**{"name": "n", "task": "t", "schedule": 10, "app": app, **fields})


def test_while_the_broker_is_away_it_tries_again_under_the_same_id(
    app: Celery, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pauses: list[float] = []
    scheduler = Noting(app, lazy=True)
    scheduler.away = 6
    monkeypatch.setattr(scheduler._interrupted, "wait", pauses.append)
    with caplog.at_level(logging.INFO, "celery.beat"):
        scheduler.apply_entry(entry(app))
    assert pauses == [1, 2, 4, 8, 16, 30]
    assert len({options["task_id"] for options in scheduler.options}) == 1
    assert [record.levelname for record in caplog.records] == ["INFO", "ERROR", "INFO"]
    assert "the broker is back" in caplog.text


def test_what_was_due_while_the_broker_was_away_is_still_due_after_an_interrupt(app: Celery, clock: Clock) -> None:
    scheduler = Noting(app)
    scheduler.away = 1
    scheduler.interrupt()
    before = scheduler.schedule["each"]
    clock.now += timedelta(seconds=10)
    assert scheduler.tick() == scheduler.max_interval
    assert scheduler.schedule["each"] is before
    assert before.total_run_count == 0
    assert scheduler.tick() == 0  # it is due, as it was, and now the broker is there
    assert scheduler.schedule["each"].total_run_count == 1


def test_an_interrupt_ends_a_wait_of_another_thread(app: Celery) -> None:
    scheduler = Noting(app, lazy=True)
    scheduler.away = 1
    raised: list[Exception] = []

    def send() -> None:
        try:
            scheduler.apply_async(entry(app), advance=False)
        except SchedulingError as error:
            raised.append(error)

    thread = threading.Thread(target=send)
    thread.start()
    wait_until(lambda: scheduler.attempts)
    scheduler.interrupt()
    thread.join(30)
    assert "still away" in str(raised[0])


def test_options_of_an_entry_are_not_changed_by_sending_it(app: Celery) -> None:
    scheduler = Noting(app, lazy=True)
    made = entry(app, options={"headers": {"mine": 1}, "queue": "q"})
    scheduler.apply_async(made, advance=False)
    assert made.options == {"headers": {"mine": 1}, "queue": "q"}
    assert scheduler.options[0]["headers"] == {"mine": 1, "celery_beat_task": True}


def test_lazy_arguments_are_computed_at_each_sending(app: Celery) -> None:
    numbers = iter(range(10))
    scheduler = Noting(app, lazy=True)
    made = entry(app, args=(BeatLazyFunc(next, numbers), "x"), kwargs={"n": BeatLazyFunc(next, numbers)})
    for _ in range(2):
        scheduler.apply_async(made, advance=False)
    assert scheduler.attempts == [("t", [0, "x"], {"n": 1}), ("t", [2, "x"], {"n": 3})]


def test_a_task_that_is_known_here_is_sent_by_its_own_apply_async(app: Celery) -> None:
    calls: list[Any] = []

    class Mine(app.Task):  # type: ignore[name-defined,misc]
        def apply_async(self, *args: Any, **options: Any) -> str:
            calls.append((*args, options["queue"]))
            return "sent"

    @app.task(name="mine", base=Mine)
    def mine(n: int) -> None: ...

    scheduler = Scheduler(app, lazy=True)
    assert scheduler.apply_async(entry(app, task="mine", args=(3,), options={"queue": "q"}), advance=False) == "sent"
    assert calls == [([3], {}, "q")]


def test_a_failure_is_a_scheduling_error_and_counts_as_a_run(app: Celery, clock: Clock) -> None:
    class Failing(Scheduler):
        def send_task(self, *args: Any, **kwargs: Any) -> Any:
            raise ValueError("no such queue")

    scheduler = Failing(app)
    with pytest.raises(SchedulingError, match="Couldn't apply scheduled task each: no such queue"):
        scheduler.apply_async(scheduler.schedule["each"])
    assert scheduler.schedule["each"].total_run_count == 1
    clock.now += timedelta(seconds=20)
    assert scheduler.tick() == 0
    assert scheduler.schedule["each"].total_run_count == 2


def test_it_syncs_after_so_many_tasks(app: Celery) -> None:
    class Syncing(Noting):
        synced = 0

        def sync(self) -> None:
            self.synced += 1

    app.conf.beat_sync_every = 2
    scheduler = Syncing(app)
    for _ in range(5):
        scheduler.apply_async(scheduler.schedule["each"])
    assert scheduler.synced == 3  # at the first, for it never has, then after each second one
    scheduler.close()
    assert scheduler.synced == 4


def test_entries_compare_by_what_can_be_edited(app: Celery) -> None:
    one = entry(app)
    assert one == entry(app, name="other", total_run_count=7)
    for field in ({"task": "u"}, {"args": (1,)}, {"kwargs": {"a": 1}}, {"options": {"queue": "q"}}, {"schedule": 11}):
        assert one != entry(app, **field)
    assert one != "n"
    changed = entry(app, last_run_at=NOW, total_run_count=3)
    changed.update(entry(app, args=(2,)))
    assert (changed.args, changed.last_run_at, changed.total_run_count) == ((2,), NOW, 3)
    again = copy.copy(changed)
    assert again == changed
    assert again.last_run_at == NOW


def test_schedules_equal_takes_none_for_none_alone(app: Celery) -> None:
    scheduler = Noting(app, lazy=True)
    one = {"a": entry(app)}
    assert scheduler.schedules_equal(None, None)
    assert not scheduler.schedules_equal(None, {})
    assert not scheduler.schedules_equal({}, None)
    assert scheduler.schedules_equal(one, {"a": entry(app)})
    assert not scheduler.schedules_equal(one, {"b": entry(app)})
    assert not scheduler.schedules_equal(one, {"a": entry(app, args=(5,))})


def test_a_schedule_that_cannot_tell_holds_up_no_other(
    app: Celery, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(schedule):
        def is_due(self, last_run_at: datetime) -> Any:
            raise RuntimeError("broken")

    broken = {"task": "b", "schedule": Broken(1, nowfun=clock)}
    app.conf.beat_schedule = {"broken": broken, **app.conf.beat_schedule}
    scheduler = Noting(app)
    clock.now += timedelta(seconds=400)
    for _ in range(5):
        scheduler.tick()
    assert [name for name, *_ in scheduler.attempts] == ["t"]
    assert "cannot tell when 'broken' is next" in caplog.text


def test_the_service_drives_a_scheduler_until_it_is_stopped(app: Celery) -> None:
    app.conf.beat_schedule = {"often": {"task": "often", "schedule": 0.05}}
    service = Service(app, scheduler_cls=Noting, max_interval=60)
    senders: list[Any] = []

    def hear(sender: Any, **_: Any) -> None:
        senders.append(sender)

    beat_init.connect(hear)
    thread = threading.Thread(target=service.start)
    thread.start()
    try:
        wait_until(lambda: len(service.scheduler.attempts) >= 3)
    finally:
        service.stop(wait=True)
        thread.join(30)
        beat_init.disconnect(hear)
    assert senders == [service]
    assert not thread.is_alive()
