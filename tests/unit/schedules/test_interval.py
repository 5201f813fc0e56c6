"""schedule: every so many seconds of real time, rounded on request; maybe_schedule."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo, available_timezones

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from celeriac.schedules import BaseSchedule, crontab, maybe_schedule, schedstate, schedule

ZONES = sorted(available_timezones())
HOUR = timedelta(hours=1)


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def test_it_counts_real_time_from_the_last_run() -> None:
    oslo = ZoneInfo("Europe/Oslo")
    for moment in ("2026-03-28T12:00+01:00", "2026-10-24T12:00+02:00"):
        last = datetime.fromisoformat(moment).astimezone(oslo)
        slot = schedule(86_400, tz="Europe/Oslo").next_after(last)
        assert slot is not None
        assert slot - last.astimezone(UTC) == timedelta(days=1)
    assert schedule(0.25).next_after(at("2026-01-01")) == at("2026-01-01 00:00:00.250")


def test_the_slots_of_a_downtime() -> None:
    every = schedule(timedelta(minutes=7))
    start = at("2026-01-01 00:00:30")
    slots = list(every.slots_between(start, start + HOUR))
    assert slots == [start + n * timedelta(minutes=7) for n in range(1, 9)]
    assert every.latest_between(start, start + HOUR) == slots[-1]
    assert every.latest_between(start, start + timedelta(minutes=7)) == slots[0]
    assert every.latest_between(start, start + timedelta(minutes=6)) is None
    assert every.latest_between(start, start + timedelta(days=36_500)) is not None
    assert schedule(timedelta(days=9_999_999)).next_after(start) is None
    assert schedule(timedelta(days=9_999_999)).latest_between(start, start + HOUR) is None


@pytest.mark.parametrize("zone", ["UTC", "Europe/Oslo", "Australia/Lord_Howe", "Asia/Kathmandu", "Africa/Casablanca"])
@pytest.mark.parametrize("minutes", [1, 1.5, 7, 60, 90, 300, 2000])
@pytest.mark.parametrize(
    "start", ["2026-03-27 20:31:07.5", "2026-10-23 23:59:59", "2026-04-03 00:00", "2026-02-14 10:20"]
)
def test_the_last_rounded_one_of_a_downtime(zone: str, minutes: float, start: str) -> None:
    every = schedule(timedelta(minutes=minutes), relative=True, tz=zone)
    slots = list(every.slots_between(at(start), at(start) + timedelta(days=3)))
    for number in (0, 1, 2, 17, 100, 1000, 2500, len(slots) - 1):
        for slot in slots[number : number + 1]:
            assert every.latest_between(at(start), slot) == slot
            following = every.next_after(slot)
            assert following is not None
            assert every.latest_between(at(start), following - timedelta(microseconds=1)) == slot


def test_the_last_rounded_one_of_ten_years_is_found_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    every = schedule(60, relative=True, tz="Europe/Oslo")
    asked, real = [], schedule.next_after
    monkeypatch.setattr(schedule, "next_after", lambda self, moment: asked.append(moment) or real(self, moment))
    assert every.latest_between(at("2026-01-01 00:00:30"), at("2036-01-01 00:00:30")) == at("2036-01-01")
    assert len(asked) < 50_000, "not five million"


@pytest.mark.parametrize(
    ("every", "last", "slot"),
    [
        (timedelta(hours=1), "2026-11-30 10:20:30.5", "2026-11-30 11:00"),
        (timedelta(hours=2), "2026-11-30 10:20", "2026-11-30 12:00"),
        (timedelta(minutes=90), "2026-11-30 10:20", "2026-11-30 11:00"),
        (timedelta(minutes=5), "2026-11-30 10:20:59", "2026-11-30 10:25"),
        (timedelta(seconds=10), "2026-11-30 10:20:59.9", "2026-11-30 10:21:09"),
        (timedelta(milliseconds=500), "2026-11-30 10:20:59.1", "2026-11-30 10:20:59.600"),
        (timedelta(days=1), "2026-11-30 10:20", "2026-12-01 00:00"),
        (timedelta(days=7, hours=3), "2026-11-30 22:20", "2026-12-08 00:00"),
    ],
)
def test_relative_ones_are_rounded_down(every: timedelta, last: str, slot: str) -> None:
    assert schedule(every, relative=True, tz=UTC).next_after(at(last)) == at(slot)


def test_relative_ones_follow_the_clock_of_their_zone() -> None:
    daily = schedule(timedelta(days=1), relative=True, tz="Europe/Oslo")
    found = list(daily.slots_between(at("2026-03-28 12:00"), at("2026-03-30 12:00")))
    assert found == [at("2026-03-28 23:00"), at("2026-03-29 22:00")]
    assert daily.latest_between(at("2026-03-28 12:00"), at("2026-03-30 12:00")) == found[-1]
    beirut = schedule(timedelta(days=1), relative=True, tz="Asia/Beirut")  # there is no 00:00 on March 29th
    assert beirut.next_after(at("2026-03-28 12:00")) == at("2026-03-28 22:00")
    hourly = schedule(HOUR, relative=True, tz="Europe/Oslo")
    assert list(hourly.slots_between(at("2026-10-25 00:00"), at("2026-10-25 03:00"))) == [
        at(f"2026-10-25 0{hour}:00") for hour in (1, 2, 3)
    ]
    lord_howe = schedule(HOUR, relative=True, tz="Australia/Lord_Howe")  # goes from 02:00 to 02:30
    assert lord_howe.next_after(at("2026-10-03 14:40")) == at("2026-10-03 15:30")
    assert schedule(10, relative=True, tz=UTC).latest_between(at("2000-01-01"), at("2026-01-01")) == at("2026-01-01")


@given(
    st.sampled_from(ZONES),
    st.datetimes(datetime(2000, 1, 1), datetime(2040, 1, 1), timezones=st.just(UTC)),
    st.timedeltas(timedelta(seconds=1), timedelta(days=40)),
)
@settings(max_examples=200)
def test_relative_ones_go_forward_and_not_beyond(name: str, last: datetime, every: timedelta) -> None:
    zone = ZoneInfo(name)
    slot = schedule(every, relative=True, tz=zone).next_after(last)
    assert slot is not None
    assert last < slot <= last + every + timedelta(days=2)
    if every < timedelta(days=1):
        assert last + every - HOUR - HOUR / 2 < slot <= last + every


def test_is_due() -> None:
    now = at("2026-11-30 10:00")
    every = schedule(60, nowfun=lambda: now, tz=UTC)
    assert every.is_due(now - timedelta(seconds=20)) == schedstate(False, 40.0)
    assert every.is_due(now - timedelta(seconds=60)) == schedstate(True, 60.0)
    assert every.is_due(datetime(2026, 11, 30, 9)) == schedstate(True, 60.0)
    assert every.remaining_estimate(now - timedelta(seconds=90)) == timedelta(seconds=-30)
    relative = schedule(HOUR, relative=True, nowfun=lambda: now + HOUR / 3, tz=UTC)
    assert relative.is_due(now - HOUR / 2) == schedstate(True, 2400.0)


def test_how_it_prints_and_compares() -> None:
    assert [repr(schedule(each)) for each in (1, 10, 60, 5400, 86_400, 0.5)] == [
        "<freq: 1.00 second>",
        "<freq: 10.00 seconds>",
        "<freq: 1.00 minute>",
        "<freq: 1.50 hours>",
        "<freq: 1.00 day>",
        "<freq: now>",
    ]
    assert schedule(60) == schedule(timedelta(minutes=1), relative=True)
    assert schedule(60) == timedelta(minutes=1)
    assert schedule(60) != schedule(61)
    assert schedule(60) != crontab()
    assert (schedule(60).seconds, schedule(60).human_seconds) == (60.0, "1.00 minute")


@pytest.mark.parametrize("every", [schedule(60), schedule(1.5, True, datetime.now, tz="Europe/Oslo")])
def test_copies(every: schedule) -> None:
    for made in (pickle.loads(pickle.dumps(every)), copy.copy(every), copy.deepcopy(every)):
        assert (made.run_every, made.relative, made.nowfun) == (every.run_every, every.relative, every.nowfun)
        assert made._tz is every._tz
    assert schedule(60).__reduce__() == (schedule, (timedelta(seconds=60), False, None))


@pytest.mark.parametrize("value", [0, -1, timedelta(0)])
def test_no_time_at_all(value: Any) -> None:
    with pytest.raises(ValueError, match=r"^run_every: -?\d s, must be more than 0$"):
        schedule(value)


@pytest.mark.parametrize("value", [None, "60", datetime(2026, 1, 1)])
def test_no_length_of_time(value: Any) -> None:
    with pytest.raises(TypeError, match=r"^run_every: .* is neither a number of seconds nor a timedelta$"):
        schedule(value)


def test_maybe_schedule(make_app: Callable[..., Any]) -> None:
    app = make_app(at("2026-01-01"))
    for given_, seconds in ((30, 30), (1.5, 1.5), (timedelta(minutes=1), 60)):
        made = maybe_schedule(given_, relative=True, app=app)
        assert isinstance(made, schedule)
        assert (made.seconds, made.relative, made.app) == (seconds, True, app)
    cron = crontab()
    assert maybe_schedule(cron, app=app) is cron
    assert cron.app is app
    assert maybe_schedule(None) is None
    with pytest.raises(
        TypeError, match=r"^schedule: 'daily' is neither a schedule, nor a number of seconds, nor a timedelta"
    ):
        maybe_schedule("daily")


def test_a_schedule_of_ones_own() -> None:
    class Hourly(BaseSchedule):
        def next_after(self, moment: datetime) -> datetime | None:
            moment = moment.astimezone(UTC)
            return moment.replace(minute=0, second=0, microsecond=0) + HOUR

    now = at("2026-01-01 12:30")
    hourly = Hourly(nowfun=lambda: now, tz=UTC)
    assert hourly.is_due(now - HOUR) == (True, 1800.0)
    assert hourly.is_due(now) == (False, 1800.0)
    assert hourly.latest_between(now - 40 * HOUR, now) == at("2026-01-01 12:00")
