"""Schedules, ours and Celery's: the same times, sets, answers and texts. What differs: docs/reference/schedules.md."""

from __future__ import annotations

import json
import random
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from celeriac import Celery, schedules
from celeriac.schedules import daylight
from tests.compat import schedules_peer

PEER = Path(schedules_peer.__file__)
OURS = schedules_peer.Peer(schedules, Celery)
FIRST = datetime(2000, 1, 1, tzinfo=UTC)
Question = dict[str, Any]
Ask = Callable[[list[Question]], list[tuple[Question, Any, Any]]]

pytestmark = pytest.mark.filterwarnings("ignore:setting 'beat_cron_starting_deadline' has no effect")


@pytest.fixture(scope="module")
def ask(celery_python: Path) -> Ask:
    """Questions with our answers and Celery's."""

    def both(questions: list[Question]) -> list[tuple[Question, Any, Any]]:
        ran = subprocess.run(
            [celery_python, PEER],
            input=json.dumps(questions),
            stdout=subprocess.PIPE,
            text=True,
            check=True,
            timeout=120,
        )
        theirs = json.loads(ran.stdout)
        ours = json.loads(json.dumps([OURS.answer(question) for question in questions]))
        return list(zip(questions, ours, theirs, strict=True))

    return both


def moment(rng: random.Random, years: int = 40) -> str:
    seconds = rng.randrange(years * 365 * 86_400)
    return (FIRST + timedelta(seconds=seconds)).isoformat()


def field(rng: random.Random, low: int, high: int, names: tuple[str, ...] = ()) -> str:
    """A field as users write it: what both understand."""

    def number() -> str:
        value = rng.randint(low, high)
        return rng.choice((str(value), names[value - low])) if names else str(value)

    def part() -> str:
        kind = rng.choice(("*", "*", "*/", "n", "n", "a-b", "a-b/"))
        if kind in ("*", "n"):
            return number() if kind == "n" else "*"
        if kind == "*/":
            return f"*/{rng.randint(1, high)}"
        text = f"{number()}-{number()}"
        return text if kind == "a-b" else f"{text}/{rng.randint(1, 9)}"

    return ",".join(part() for _ in range(rng.choice((1, 1, 1, 2, 3))))


WEEKDAYS = ("sun", "Monday", "tue", "wednes", "THU", "fri", "sat")
MONTHS = ("jan", "february", "mar", "Apr", "may", "jun", "july", "aug", "sept", "oct", "nov", "dec")


def crontab_args(rng: random.Random) -> dict[str, str]:
    return {
        "minute": field(rng, 0, 59),
        "hour": field(rng, 0, 23),
        "day_of_week": field(rng, 0, 6, WEEKDAYS) if rng.random() < 0.5 else "*",
        "day_of_month": field(rng, 1, 31) if rng.random() < 0.5 else "*",
        "month_of_year": field(rng, 1, 12, MONTHS) if rng.random() < 0.5 else "*",
    }


def same(asked: list[tuple[Question, Any, Any]]) -> None:
    assert [each for each in asked if each[1] != each[2]] == []


@pytest.mark.parametrize("kind", ["following", "added"])
def test_times_of_crontabs(ask: Ask, rng: random.Random, kind: str) -> None:
    """In zones without clock changes: with them the rules differ, by intent."""
    zones = ("UTC", "Asia/Tokyo", "Asia/Kolkata")
    questions = [
        {"kind": kind, "schedule": "crontab", "args": crontab_args(rng), "last": moment(rng), "zone": rng.choice(zones)}
        for _ in range(1500)
    ]
    same(ask(questions))


def test_is_due(ask: Ask, rng: random.Random) -> None:
    questions = []
    for _ in range(300):
        last = moment(rng)
        now = datetime.fromisoformat(last) + timedelta(seconds=rng.choice((0, 59, 60, 3600, 86_400, 10**6)))
        deadline = rng.choice((None, None, 30, 600, 86_400))
        args: dict[str, Any] = crontab_args(rng)
        schedule = "crontab"
        if rng.random() < 0.2:
            schedule, args = "schedule", {"run_every": rng.choice((1, 60, 3600)), "relative": rng.random() < 0.5}
        questions.append(
            {
                "kind": "due",
                "schedule": schedule,
                "args": args,
                "last": last,
                "now": now.isoformat(),
                "deadline": deadline,
            }
        )
    same(ask(questions))


def test_relative_intervals(ask: Ask, rng: random.Random) -> None:
    """From a last run in the zone of the app, as schedulers have it: Celery rounds on the clock of the last run."""
    questions = []
    for _ in range(200):
        zone = rng.choice(("UTC", "Asia/Tokyo"))
        every = rng.choice((1, 7, 60, 90, 3600, 5400, 86_400, 90_000, 604_800))
        last = datetime.fromisoformat(moment(rng)).astimezone(ZoneInfo(zone))
        questions.append({"kind": "remains", "every": every, "last": last.isoformat(), "zone": zone})
    same(ask(questions))


#: What each does around a clock change in Oslo: text, ours, Celery's. The docs have this table in words.
SPRING, AUTUMN = "2026-03-29T00:20:00+00:00", "2026-10-24T23:20:00+00:00"
CHANGES = [
    (SPRING, "30 2 * * *", "03:00", "03:30"),
    (SPRING, "*/15 2 * * *", "03:00", "03:00"),
    (SPRING, "0 */2 * * *", "03:00 04:00", "03:00 04:00"),
    (SPRING, "30 * * * *", "01:30 03:30 04:30", "01:30 03:30 04:30"),
    (AUTUMN, "30 2 * * *", "02:30", "02:30"),
    (AUTUMN, "*/30 2 * * *", "02:00 02:30 02:00 02:30", "02:00 02:30"),
    (AUTUMN, "30 * * * *", "01:30 02:30 02:30 03:30", "01:30 02:30 03:30"),
    (AUTUMN, "*/30 * * * *", "01:30 02:00 02:30 02:00 02:30 03:00 03:30 04:00", "01:30 02:00 02:30 03:00 03:30 04:00"),
    (AUTUMN, "0 */2 * * *", "02:00 02:00 04:00", "02:00 04:00"),
]


def test_clock_changes(ask: Ask) -> None:
    questions = [
        {
            "kind": "clocks",
            "args": {"text": text},
            "last": last,
            "hours": 3 if last == SPRING else 4,
            "zone": "Europe/Oslo",
        }
        for last, text, _, _ in CHANGES
    ]
    answers = [(ours, theirs) for _, ours, theirs in ask(questions)]
    assert answers == [(ours, theirs) for _, _, ours, theirs in CHANGES]


def test_fields(ask: Ask, rng: random.Random) -> None:
    kinds: tuple[tuple[str, int, int, tuple[str, ...]], ...] = (
        ("minute", 0, 59, ()),
        ("hour", 0, 23, ()),
        ("day_of_week", 0, 6, WEEKDAYS),
        ("day_of_month", 1, 31, ()),
        ("month_of_year", 1, 12, MONTHS),
    )
    questions: list[Question] = []
    for name, low, high, names in kinds:
        values: list[Any] = [field(rng, low, high, names) for _ in range(100)]
        values += [
            "",
            ",",
            "1,",
            "*/",
            "1-2/",
            "-1",
            "*/0",
            "*/x",
            "x",
            "5/2",
            "*-3",
            "1.5",
            str(high + 1),
            f"1-{high + 1}",
        ]
        values += [low, high, [low, high], low - 1, high + 1, [high + 1], None, 1.5, ["x"]]
        questions += [{"kind": "numbers", "field": name, "value": value} for value in values]
    wrong = []
    for question, ours, theirs in ask(questions):
        if isinstance(theirs, dict) or isinstance(ours, dict):  # ours are the more exact errors, and as many
            both = isinstance(theirs, dict) and isinstance(ours, dict)
            if not both or theirs["error"] == "ParseException" != ours["error"]:
                wrong.append((question, ours, theirs))
        elif ours != theirs:
            wrong.append((question, ours, theirs))
    assert wrong == []


def test_from_string(ask: Ask, rng: random.Random) -> None:
    texts = [" ".join(crontab_args(rng)[name] for name in ("minute", "hour")) + " 1-28 * *" for _ in range(50)]
    texts += ["* * * *", "", "* * * * * *", "60 * * * *"]
    same(ask([{"kind": "following", "args": {"text": text}, "last": moment(rng)} for text in texts]))


def test_texts_and_pickles(ask: Ask) -> None:
    crontabs: list[dict[str, Any]] = [
        {},
        {"minute": 0, "hour": "*/2"},
        {"day_of_week": "mon-fri", "day_of_month": [1, 2]},
    ]
    questions = [{"kind": "written", "schedule": "crontab", "args": args} for args in crontabs]
    questions += [
        {"kind": "written", "schedule": "schedule", "args": {"run_every": seconds, "relative": relative}}
        for seconds in (0.5, 1, 59, 60, 90, 3600, 86_400, 10**6)
        for relative in (False, True)
    ]
    questions.append({"kind": "written", "schedule": "solar", "args": {"event": "sunset", "lat": 1.5, "lon": -2}})
    same(ask(questions))


def test_the_sun(ask: Ask, rng: random.Random) -> None:
    """Within half a minute of ephem as far north and south as the sun never grazes the level that is asked for: up to
    60 degrees at the horizon, and less for each degree below it."""
    questions = []
    for event in rng.choices(sorted(daylight._LEVELS), k=300):
        level = daylight._LEVELS[event]
        most = 60.0 if level is None else 60.0 + min(0.0, level.height)
        place = {"event": event, "lat": rng.uniform(-most, most), "lon": rng.uniform(-180, 180)}
        questions.append({"kind": "following", "schedule": "solar", "args": place, "last": moment(rng)})
    far = [
        (question, ours, theirs)
        for question, ours, theirs in ask(questions)
        if abs(ours - theirs) > 30 and min(ours, theirs) > 30  # the same second, asked just before and just after it
    ]
    assert far == []
