"""What a scheduler does at which time, told as JSON: run by Celery 5.7 and by ours, under the same names.

A subclass of `Scheduler` with a clock of its own; sending is noted down instead. `beat_peer.py ours` takes our names.
"""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

if sys.argv[1:] == ["ours"]:
    import celeriac.contrib.celery_names  # noqa: F401 - before celery

from celery import Celery
from celery.beat import ScheduleEntry, Scheduler
from celery.schedules import crontab, schedule

START = datetime(2026, 3, 28, 22, 57, 30, tzinfo=UTC)
now = START


def clock() -> datetime:
    return now


class Noting(Scheduler):
    """Notes what it would send."""

    producer = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.sent: list[Any] = []
        super().__init__(*args, **kwargs)

    def send_task(self, name: str, args: Any = None, kwargs: Any = None, **options: Any) -> None:
        if name == "t.fails":
            raise RuntimeError("no")
        options = {key: value for key, value in options.items() if key not in {"producer", "task_id"}}
        self.sent.append([(now - START).total_seconds(), name, list(args), kwargs, options])


class Broken(schedule):
    def is_due(self, last_run_at: datetime) -> Any:
        raise RuntimeError("broken")


def entries() -> dict[str, Any]:
    return {
        "seven": {"task": "t.seven", "schedule": schedule(7, nowfun=clock), "args": (1,), "kwargs": {"a": 2}},
        "twenty": {"task": "t.twenty", "schedule": schedule(timedelta(seconds=20), nowfun=clock), "relative": True},
        "hourly": {"task": "t.hourly", "schedule": crontab("0", nowfun=clock), "options": {"headers": {"h": 1}}},
        "minutely": {"task": "t.minutely", "schedule": crontab(nowfun=clock), "options": {"queue": "q", "priority": 3}},
        "fails": {"task": "t.fails", "schedule": schedule(50, nowfun=clock)},
        "broken": {"task": "t.broken", "schedule": Broken(5, nowfun=clock)},
    }


def run(scheduler: Noting, seconds: float) -> None:
    """Ticks, and the time that passes between them, rounded to what both agree on."""
    global now
    end = now + timedelta(seconds=seconds)
    while now < end:
        wait = scheduler.tick()
        now += timedelta(seconds=max(round(wait or 0, 1), 0.1 if wait else 0))


def main() -> None:
    logging.disable()
    app = Celery("peer", broker="memory://", set_as_current=False)
    app.conf.update(timezone="UTC", beat_schedule=entries(), result_expires=None)
    scheduler = Noting(app, max_interval=13)
    run(scheduler, 200)
    scheduler.add(name="new", task="t.new", schedule=schedule(30, nowfun=clock))
    del scheduler.schedule["seven"]
    run(scheduler, 100)
    scheduler.merge_inplace({"minutely": {"task": "t.other", "schedule": crontab(nowfun=clock), "args": [9]}})
    run(scheduler, 150)
    counts = {name: entry.total_run_count for name, entry in scheduler.schedule.items()}
    made = {"name": "e", "task": "t", "schedule": 5, "app": app, "last_run_at": START}
    entry, other = ScheduleEntry(**made), ScheduleEntry(**{**made, "args": (1,)})
    facts = {
        "equal": entry == ScheduleEntry(**{**made, "name": "f"}),
        "unequal": entry == other,
        "next": next(entry).total_run_count,
        "fields": sorted(dict(entry)),
        "reduced": len(entry.__reduce__()[1]),
        "adjusted": [scheduler.adjust(each) for each in (None, 0, 1.0, -1)],
        "empty": Noting(app, schedule={}, lazy=True, max_interval=9).tick(),
        "max": [Noting(app, lazy=True).max_interval, Noting(app, lazy=True, max_interval=2).max_interval],
        "should sync": [scheduler.should_sync(), Noting(app, lazy=True).should_sync()],
    }
    print(json.dumps({"sent": sorted(scheduler.sent, key=str), "counts": counts, "facts": facts}))


if __name__ == "__main__":
    main()
