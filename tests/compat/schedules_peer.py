"""Asks schedules questions and says what they answer: of ours in the tests' process, of Celery's when run with it.

Run, it reads questions as JSON from standard input and writes the answers. Called by `test_schedules.py`; knows neither
package but by what it is handed.
"""

from __future__ import annotations

import json
import pickle
import sys
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

#: Answers that are errors: ``{"error": class name}``.
Answer = Any


class Peer:
    """One of the two packages: its module ``schedules`` and its class ``Celery``."""

    def __init__(self, schedules: Any, celery: Any) -> None:
        self.schedules = schedules
        self.celery = celery
        self.apps: dict[str, Any] = {}

    def answer(self, question: dict[str, Any]) -> Answer:
        """One of the methods below, by the ``kind`` of the question."""
        try:
            return getattr(self, question["kind"])(question)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is the answer
            return {"error": type(error).__name__}

    def made(self, question: dict[str, Any], now: datetime | None = None, **settings: Any) -> Any:
        args = dict(question["args"])
        changes = {"timezone": question.get("zone", "UTC"), **settings}
        app = self.apps.get(repr(changes))
        if app is None:
            app = self.apps[repr(changes)] = self.celery(set_as_current=False, changes=changes)
        if "run_every" in args:
            args["run_every"] = timedelta(seconds=args["run_every"])
        if "text" in args:
            schedule = self.schedules.crontab.from_string(args["text"])
            schedule.app = app
        else:
            schedule = getattr(self.schedules, question["schedule"])(**args, app=app)
        if now is not None:
            schedule.nowfun = lambda: now
        return schedule

    def following(self, question: dict[str, Any]) -> Answer:
        """The next time after ``last``, in seconds, as remaining_estimate tells it at that time."""
        last = datetime.fromisoformat(question["last"])
        return self.made(question, last).remaining_estimate(last).total_seconds()

    def remains(self, question: dict[str, Any]) -> Answer:
        """As ``following``, of a relative interval, from a last run in the zone of the app."""
        last = datetime.fromisoformat(question["last"]).astimezone(ZoneInfo(question["zone"]))
        args = {"run_every": question["every"], "relative": True}
        return (
            self.made({**question, "schedule": "schedule", "args": args}, last).remaining_estimate(last).total_seconds()
        )

    def clocks(self, question: dict[str, Any]) -> Answer:
        """What the clock shows at each time of the next ``hours`` hours."""
        last = datetime.fromisoformat(question["last"])
        end = last + timedelta(hours=question["hours"])
        shown = []
        while True:
            last += self.made(question, last).remaining_estimate(last)
            if last > end:
                return " ".join(shown)
            shown.append(f"{last.astimezone(ZoneInfo(question['zone'])):%H:%M}")

    def added(self, question: dict[str, Any]) -> Answer:
        """What remaining_delta says is to be added to ``last``, added."""
        last = datetime.fromisoformat(question["last"])
        local, delta, _ = self.made(question, last).remaining_delta(last)
        return (local + delta).isoformat()

    def due(self, question: dict[str, Any]) -> Answer:
        now, last = (datetime.fromisoformat(question[name]) for name in ("now", "last"))
        return list(self.made(question, now, beat_cron_starting_deadline=question["deadline"]).is_due(last))

    def written(self, question: dict[str, Any]) -> Answer:
        """repr, what a pickle is made of, and whether a copy and another one are equal to it."""
        args = dict(question["args"])
        schedule = getattr(self.schedules, question["schedule"])(**args)
        copied = pickle.loads(pickle.dumps(schedule))
        return [repr(schedule), repr(schedule.__reduce__()[1]), repr(copied), copied == schedule, schedule == 60]

    def numbers(self, question: dict[str, Any]) -> Answer:
        field = question["field"]
        return sorted(getattr(self.schedules.crontab(**{field: question["value"]}), field))


if __name__ == "__main__":
    from celery import Celery, schedules

    peer = Peer(schedules, Celery)
    json.dump([peer.answer(question) for question in json.load(sys.stdin)], sys.stdout)
