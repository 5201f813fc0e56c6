"""Crontabs in zones of the IANA database, 2000 to 2040: each time is the one that a walk over real minutes finds.

More examples, and all zones: `./dev test tests/unit/schedules --crontabs 20000`.
"""

from __future__ import annotations

import random
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo, available_timezones

import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from celeriac.schedules import crontab
from tests.unit.schedules.minutes import FIRST, LAST, changes, walk

ZONES = sorted(available_timezones())
TYPICAL = [
    "*/15 * * * *",
    "30 * * * *",
    "30 2 * * *",
    "0 */2 * * *",
    "*/20 2,0 * * *",
    "0,59 0-3 * * *",
    "5 0 * * 0-5/2",
]
AROUND = timedelta(hours=4)


@st.composite
def texts(draw: st.DrawFn, low: int, high: int) -> str:
    """A field as users write it."""
    number = st.integers(low, high)
    kind = draw(st.sampled_from(["*", "*", "step", "number", "range", "list", "steps"]))
    if kind == "*":
        return "*"
    if kind == "step":
        return f"*/{draw(st.integers(1, high))}"
    if kind == "number":
        return str(draw(number))
    if kind == "list":
        return ",".join(map(str, draw(st.lists(number, min_size=1, max_size=4))))
    text = f"{draw(number)}-{draw(number)}"
    return text if kind == "range" else f"{text}/{draw(st.integers(1, 10))}"


CLOCKS = st.tuples(texts(0, 59), texts(0, 23))


@st.composite
def days(draw: st.DrawFn) -> str:
    """The three fields of days: mostly any day, for what is far away is not walked to."""
    if draw(st.integers(0, 3)):
        return "* * *"
    return f"{draw(texts(1, 28))} * {draw(texts(0, 6))}"


@st.composite
def moments(draw: st.DrawFn, zone: ZoneInfo) -> datetime:
    """Before a change of the clock, by some hours; anywhere where the zone has none."""
    found = changes(zone)
    if found:
        return draw(st.sampled_from(found)) - timedelta(minutes=draw(st.integers(0, 360)))
    return FIRST + timedelta(minutes=draw(st.integers(0, (LAST - FIRST) // timedelta(minutes=1))))


def test_any_crontab_anywhere(pytestconfig: pytest.Config) -> None:
    @settings(max_examples=pytestconfig.option.crontabs)
    @given(st.data(), st.sampled_from(ZONES), CLOCKS, days())
    def holds(data: st.DataObject, name: str, clock: tuple[str, str], days: str) -> None:
        zone = ZoneInfo(name)
        start = data.draw(moments(zone))
        end = start + 2 * AROUND
        cron = crontab.from_string(f"{clock[0]} {clock[1]} {days}", tz=zone)
        wanted = list(walk(cron, zone, start, end))
        assert list(cron.slots_between(start, end)) == wanted
        assert cron.latest_between(start, end) == (wanted[-1] if wanted else None)
        moment = start + timedelta(
            seconds=data.draw(st.integers(0, 28_799)), microseconds=data.draw(st.integers(0, 999))
        )
        assert cron.next_after(moment) == next((each for each in wanted if each > moment), cron.next_after(end))

    holds()


def test_typical_crontabs_at_a_change_of_each_zone(rng: random.Random, pytestconfig: pytest.Config) -> None:
    for name in rng.sample(ZONES, min(len(ZONES), pytestconfig.option.crontabs)):
        zone = ZoneInfo(name)
        if not changes(zone):
            continue
        change = rng.choice(changes(zone))
        cron = crontab.from_string(rng.choice(TYPICAL), tz=zone)
        start, end = change - AROUND, change + AROUND
        assert list(cron.slots_between(start, end)) == list(walk(cron, zone, start, end)), (name, change, cron)


@given(st.sampled_from(ZONES), texts(0, 59), texts(0, 23), texts(1, 31), texts(1, 12), texts(0, 6), st.data())
@settings(max_examples=100)
def test_times_increase_and_match_over_years(
    name: str, minute: str, hour: str, day: str, month: str, weekday: str, data: st.DataObject
) -> None:
    zone = ZoneInfo(name)
    try:
        cron = crontab(minute, hour, weekday, day, month, tz=zone)
    except ValueError:
        reject()  # the 30th of February
    moment = FIRST + timedelta(minutes=data.draw(st.integers(0, (LAST - FIRST) // timedelta(minutes=1))))
    for _ in range(5):
        slot = cron.next_after(moment)
        assert slot is not None
        assert slot > moment
        wall = slot.astimezone(zone)
        assert wall.year - moment.year <= 41
        if slot not in changes(zone):
            assert wall.minute in cron.minute
            assert wall.hour in cron.hour
            assert wall.day in cron.day_of_month
            assert wall.month in cron.month_of_year
            assert wall.isoweekday() % 7 in cron.day_of_week
        moment = slot
