"""Entries: from settings, to the store and back, and what is refused."""

from __future__ import annotations

import math
from datetime import UTC, date, datetime, timedelta
from typing import Any

import msgspec
import pytest

from celeriac import Celery
from celeriac.beat import BeatLazyFunc, Entry
from celeriac.exceptions import ImproperlyConfigured
from celeriac.schedules import BaseSchedule, clocked, crontab, schedule, solar

GOOD: dict[str, Any] = {"task": "tasks.add", "schedule": 30}


@pytest.fixture
def app() -> Celery:
    return Celery("periodic", set_as_current=False)


class Hours(BaseSchedule):
    """A schedule of the user's own."""

    def next_after(self, moment: datetime) -> datetime | None:
        return moment + timedelta(hours=1)


def test_celerys_keys(app: Celery) -> None:
    entry = Entry.from_settings(
        "add",
        {
            "task": "tasks.add",
            "schedule": timedelta(minutes=2),
            "args": [1, 2],
            "kwargs": {"z": 3},
            "options": {"queue": "slow", "expires": 10},
            "relative": True,
        },
        app,
    )
    assert (entry.name, entry.task, entry.args, entry.kwargs) == ("add", "tasks.add", (1, 2), {"z": 3})
    assert entry.options == {"queue": "slow", "expires": 10}
    assert entry.schedule == schedule(120)
    assert entry.relative is True
    assert entry.schedule.app is app
    assert (entry.enabled, entry.catch_up, entry.overlap) == (True, "once", "allow")
    assert (entry.deadline, entry.expires, entry.stored) == (None, None, False)


def test_keys_of_ours(app: Celery) -> None:
    given = {**GOOD, "enabled": False, "catch_up": "all", "overlap": "skip", "expires": 5}
    given["deadline"] = timedelta(hours=1)
    entry = Entry.from_settings("add", given, app)
    assert (entry.enabled, entry.catch_up, entry.overlap) == (False, "all", "skip")
    assert (entry.deadline, entry.expires) == (3600.0, 5)


def test_what_is_not_given(app: Celery) -> None:
    given = {**GOOD, "args": None, "kwargs": None, "options": None, "relative": None}
    entry = Entry.from_settings("add", given, app)
    assert (entry.args, entry.kwargs, entry.options, entry.relative) == ((), {}, {}, False)


def test_a_task_stands_for_its_name(app: Celery) -> None:
    @app.task(name="tasks.add")
    def add() -> None: ...

    assert Entry.from_settings("add", {"task": add, "schedule": 1}, app).task == "tasks.add"


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"schedule": 1}, "entry 'x': task is missing"),
        ({"task": "t"}, "entry 'x': schedule is missing"),
        ({**GOOD, "shedule": 1}, "entry 'x': key 'shedule' is not known; allowed are task, schedule"),
        ({**GOOD, "last_run_at": None}, "key 'last_run_at' is not known"),
        ({**GOOD, "task": 7}, "entry 'x': task: 7 is not the name of a task"),
        ({**GOOD, "schedule": "daily"}, "entry 'x': schedule: 'daily' is neither a schedule"),
        ({**GOOD, "schedule": True}, "entry 'x': schedule: True is neither"),
        ({**GOOD, "schedule": 0}, "entry 'x': run_every: 0 s, must be more than 0"),
        ({**GOOD, "schedule": {"crontab": "* *"}}, "entry 'x': crontab '\\* \\*' has 2 fields"),
        ({**GOOD, "args": "ab"}, "entry 'x': args: 'ab' is not a list"),
        ({**GOOD, "kwargs": [1]}, "entry 'x': kwargs: \\[1\\] is not a dict"),
        ({**GOOD, "kwargs": {1: 1}}, "entry 'x': kwargs: .* keys are names"),
        ({**GOOD, "options": "slow"}, "entry 'x': options: 'slow' is not a dict"),
        ({**GOOD, "relative": "yes"}, "entry 'x': relative: 'yes' is not True or False"),
        ({**GOOD, "enabled": 1}, "entry 'x': enabled: 1 is not True or False"),
        ({**GOOD, "catch_up": "never"}, "entry 'x': catch_up: 'never' is not one of none, once, all"),
        ({**GOOD, "overlap": None}, "entry 'x': overlap: None is not one of allow, skip, queue"),
        ({**GOOD, "deadline": 0}, "entry 'x': deadline: 0 is not a number of seconds above 0"),
        ({**GOOD, "deadline": math.inf}, "entry 'x': deadline: inf is not"),
        ({**GOOD, "expires": -1}, "entry 'x': expires: -1 is not a number of seconds"),
        ([], "entry 'x': \\[\\] is not a dict with the keys task, schedule"),
    ],
)
def test_what_is_wrong_is_named(app: Celery, given: Any, says: str) -> None:
    with pytest.raises(ImproperlyConfigured, match=f"^beat_schedule: .*{says}"):
        Entry.from_settings("x", given, app)


def test_an_entry_needs_a_name() -> None:
    with pytest.raises(TypeError, match="name: '' is not the name of an entry"):
        Entry(name="", task="t", schedule=schedule(1))


PLAIN = [
    (30, {"every": 30.0}),
    (0.25, {"every": 0.25}),
    (schedule(60, relative=True, tz="Asia/Tokyo"), {"every": 60.0, "relative": True, "tz": "Asia/Tokyo"}),
    (crontab(minute="*/15", hour="8-18"), {"crontab": "*/15 8-18 * * *"}),
    (crontab(minute=[30, 0], day_of_week={5, 1}, tz="UTC"), {"crontab": "0,30 * * * 1,5", "tz": "UTC"}),
    (crontab.from_string("0 9 * * mon-fri", tz="Europe/Oslo"), {"crontab": "0 9 * * mon-fri", "tz": "Europe/Oslo"}),
    (solar("sunset", 59.9, 10), {"solar": ["sunset", 59.9, 10.0]}),
    (clocked(datetime(2030, 1, 1, 12, tzinfo=UTC)), {"at": "2030-01-01T12:00:00+00:00"}),
]


@pytest.mark.parametrize(("timetable", "plain"), PLAIN, ids=[str(plain) for _, plain in PLAIN])
def test_schedules_to_the_store_and_back(app: Celery, timetable: Any, plain: dict[str, Any]) -> None:
    entry = Entry.from_settings("add", {**GOOD, "schedule": timetable}, app)
    stored = entry.to_json()
    assert stored == {"task": "tasks.add", "schedule": plain}
    again = Entry.from_json("add", msgspec.json.decode(msgspec.json.encode(stored)), app)
    assert again.schedule == entry.schedule
    assert again.relative == entry.relative
    assert again.fingerprint == entry.fingerprint
    assert again.stored
    assert again.schedule.app is app
    now = datetime(2026, 3, 29, 0, 30, tzinfo=UTC)
    assert again.schedule.next_after(now) == entry.schedule.next_after(now)


def test_everything_else_to_the_store_and_back(app: Celery) -> None:
    given = {
        **GOOD,
        "args": [1, date(2026, 1, 2)],
        "kwargs": {"at": datetime(2026, 1, 2, tzinfo=UTC)},
        "options": {"queue": "slow", "priority": 3},
        "enabled": False,
        "catch_up": "none",
        "deadline": 60,
        "overlap": "queue",
        "expires": 0,
    }
    entry = Entry.from_settings("add", given, app)
    wire = msgspec.json.encode(entry.to_json())
    again = Entry.from_json("add", msgspec.json.decode(wire), app)
    assert again == msgspec.structs.replace(entry, stored=True)


def test_a_schedule_in_settings_may_be_plain_too(app: Celery) -> None:
    entry = Entry.from_settings("add", {**GOOD, "schedule": {"crontab": "0 4 * * *", "tz": "Europe/Oslo"}}, app)
    assert entry.schedule == crontab(minute=0, hour=4, tz="Europe/Oslo")
    entry = Entry.from_settings("add", {**GOOD, "schedule": {"every": 60}, "relative": True}, app)
    assert entry.relative


@pytest.mark.parametrize(
    ("plain", "says"),
    [
        ({}, "must have exactly one of the keys every, crontab, solar, at"),
        ({"every": 1, "at": "2030-01-01"}, "must have exactly one of the keys"),
        ({"every": "1"}, "every: '1' is not a number"),
        ({"every": True}, "every: True is not a number"),
        ({"crontab": 5}, "crontab: 5 is not text"),
        ({"crontab": "* * * * *", "relative": True}, "'relative' means nothing beside 'crontab'"),
        ({"crontab": "* * * * *", "tz": "Mars/Base"}, "'Mars/Base' is not known here"),
        ({"crontab": "* * * * *", "tz": 2}, "tz: 2 is not the name"),
        ({"solar": "sunset"}, "solar: 'sunset' is not"),
        ({"at": 5}, "at: 5 is not a time"),
        ({"at": "soon"}, "soon"),
    ],
)
def test_plain_schedules_that_are_wrong(app: Celery, plain: dict[str, Any], says: str) -> None:
    with pytest.raises((ValueError, TypeError), match=f"^entry 'x': .*{says}"):
        Entry.from_json("x", {"task": "t", "schedule": plain}, app)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"schedule": Hours()}, "only this program knows the class Hours; keep the entry in beat_schedule"),
        ({"schedule": schedule(1, nowfun=datetime.now)}, "has a nowfun"),
        ({"args": [BeatLazyFunc(int)]}, "args: .*BeatLazyFunc"),
        ({"options": {"link": object()}}, "options: .*object"),
    ],
)
def test_what_cannot_be_stored_is_named(app: Celery, given: dict[str, Any], says: str) -> None:
    entry = Entry.from_settings("x", {**GOOD, **given}, app)
    with pytest.raises(ValueError, match=f"^entry 'x': .*{says}"):
        entry.to_json()


def test_the_fingerprint_is_of_the_schedule_alone(app: Celery) -> None:
    def of(timetable: Any, **more: Any) -> str:
        return Entry.from_settings("x", {**GOOD, "schedule": timetable, **more}, app).fingerprint

    assert of(30) == of(timedelta(seconds=30), args=[1], catch_up="all")
    assert of(crontab(minute="0,30")) == of(crontab(minute=[30, 0]))
    different = [of(30), of(31), of(30, relative=True), of(crontab()), of(crontab(tz="UTC")), of(Hours())]
    assert len(set(different)) == len(different)
    assert of(Hours()) == of(Hours())  # no address in it


def test_a_zone_without_a_name_cannot_be_stored(app: Celery) -> None:
    local = datetime.now().astimezone().tzinfo
    entry = Entry.from_settings("x", {**GOOD, "schedule": crontab(tz=local)}, app)
    if str(local) == "UTC":
        assert entry.to_json()["schedule"]["tz"] == "UTC"
        return
    with pytest.raises(ValueError, match="has no name that could be stored"):
        entry.to_json()
