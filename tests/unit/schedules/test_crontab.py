"""crontab: which times, in whose zone, and what Celery's code asks of it."""

from __future__ import annotations

import copy
import pickle
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from celeriac.schedules import BaseSchedule, crontab, ffwd, remaining, schedstate

OSLO = ZoneInfo("Europe/Oslo")


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def following(cron: crontab, moment: str, count: int) -> list[str]:
    found = []
    slot: datetime | None = at(moment)
    for _ in range(count):
        assert slot is not None
        slot = cron.next_after(slot)
        assert slot is not None
        assert slot.tzinfo is UTC
        found.append(slot.strftime("%Y-%m-%d %H:%M"))
    return found


@pytest.mark.parametrize(
    ("text", "moment", "times"),
    [
        ("* * * * *", "2026-11-30 10:00:59.999", ["2026-11-30 10:01", "2026-11-30 10:02"]),
        ("0 9 * * mon-fri", "2026-11-27 09:00", ["2026-11-30 09:00", "2026-12-01 09:00"]),
        ("*/20 22-1 * * *", "2026-12-31 23:30", ["2026-12-31 23:40", "2027-01-01 00:00", "2027-01-01 00:20"]),
        ("0 0 31 * *", "2026-01-31 00:00", ["2026-03-31 00:00", "2026-05-31 00:00"]),
        ("0 0 29 2 *", "2096-03-01 00:00", ["2104-02-29 00:00", "2108-02-29 00:00"]),
        ("0 0 29 2 mon", "2072-02-29 00:00", ["2112-02-29 00:00"]),
        ("0 12 1-7 * mon", "2026-11-30 12:00", ["2026-12-07 12:00", "2027-01-04 12:00"]),
        ("59 23 31 12 *", "2026-12-31 23:59", ["2027-12-31 23:59"]),
        ("30 4 1,15 1-6/2 *", "2026-05-15 04:30", ["2027-01-01 04:30", "2027-01-15 04:30", "2027-03-01 04:30"]),
    ],
)
def test_times(text: str, moment: str, times: list[str]) -> None:
    assert following(crontab.from_string(text, tz=UTC), moment, len(times)) == times


def test_a_time_itself_is_not_after_itself() -> None:
    cron = crontab(0, 12, tz=UTC)
    noon = at("2026-11-30 12:00")
    assert cron.next_after(noon) == noon + timedelta(days=1)
    assert cron.next_after(noon - timedelta(microseconds=1)) == noon


def test_zones_by_name_by_value_and_of_the_app(make_app: Callable[..., Any]) -> None:
    noon = at("2026-07-01 12:00")
    app = make_app(noon, timezone="Asia/Kolkata")
    for cron, time in (
        (crontab(0, 14, tz="Europe/Oslo"), "2026-07-02 12:00"),
        (crontab(0, 14, tz=timezone(timedelta(hours=-1))), "2026-07-01 15:00"),
        (crontab(0, 18, app=app), "2026-07-01 12:30"),
        (crontab(0, 14, app=app, tz="UTC"), "2026-07-01 14:00"),
    ):
        assert following(cron, "2026-07-01 12:00", 1) == [time]
    moved = crontab(0, 14)
    moved.tz = OSLO
    assert following(moved, "2026-07-01 12:00", 1) == ["2026-07-02 12:00"]


def test_the_zone_of_the_app_is_read_each_time(make_app: Callable[..., Any]) -> None:
    app = make_app(at("2026-07-01 12:00"))
    cron = crontab(0, 14, app=app)
    assert following(cron, "2026-07-01 12:30", 1) == ["2026-07-01 14:00"]
    app.conf.timezone = "Europe/Oslo"
    assert following(cron, "2026-07-01 11:30", 1) == ["2026-07-01 12:00"]


def test_an_unknown_zone() -> None:
    with pytest.raises(ValueError, match=r"^tz: 'Europe/Olso' is not known here: write a name such as 'Europe/Oslo'"):
        crontab(tz="Europe/Olso")


class Pytz(tzinfo):
    """Behaves like a zone of pytz, whose offset without `localize` is that of the year 1900."""

    zone = "Europe/Oslo"

    def localize(self, dt: datetime) -> datetime:
        raise AssertionError

    def utcoffset(self, dt: datetime | None) -> timedelta:
        return timedelta(minutes=43)

    dst = tzname = utcoffset  # type: ignore[assignment]


def test_a_zone_of_pytz_is_taken_by_its_name() -> None:
    assert crontab(tz=Pytz()).tz == OSLO


def test_a_naive_moment_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^moment: datetime.datetime\(2026, 1, 1, 0, 0\) has no time zone"):
        crontab(tz=UTC).next_after(datetime(2026, 1, 1))


def test_the_end_of_the_calendar() -> None:
    cron = crontab(0, 0, day_of_month=31, month_of_year=12, tz=UTC)
    end = datetime(9999, 12, 31, 12, tzinfo=UTC)
    assert cron.next_after(end) is None
    assert list(cron.slots_between(end - timedelta(days=1), end)) == [datetime(9999, 12, 31, tzinfo=UTC)]
    assert crontab(tz="Asia/Tokyo").next_after(datetime(9999, 12, 31, 23, 59, tzinfo=UTC)) is None
    with pytest.raises(OverflowError, match=r"has no time after 9999"):
        crontab(0, 0, nowfun=lambda: end, tz=UTC).remaining_delta(end)


def test_slots_between_and_the_last_of_them() -> None:
    cron = crontab("*/15", tz=UTC)
    start, end = at("2026-01-01 00:00"), at("2026-01-01 01:00")
    times = list(cron.slots_between(start, end))
    assert [each.minute for each in times] == [15, 30, 45, 0]
    assert cron.latest_between(start, end) == end
    assert cron.latest_between(start, end - timedelta(seconds=1)) == times[2]
    assert cron.latest_between(start, start + timedelta(minutes=14)) is None
    assert cron.latest_between(end, start) is None
    assert list(cron.slots_between(end, start)) == []


def test_the_last_slot_is_found_without_visiting_all() -> None:
    class Counted(crontab):
        asked = 0

        def next_after(self, moment: datetime) -> datetime | None:
            Counted.asked += 1
            return super().next_after(moment)

    assert Counted(tz=UTC).latest_between(at("2000-01-01"), at("2026-01-01 12:00:30")) == at("2026-01-01 12:00")
    assert Counted.asked < 100


# -- Celery's interface


def test_is_due(make_app: Callable[..., Any]) -> None:
    cron = crontab(0, "*/2", app=make_app(at("2026-11-30 13:00")))
    assert cron.is_due(at("2026-11-30 12:00")) == schedstate(False, 3600.0)
    assert cron.is_due(at("2026-11-30 11:59:59")) == schedstate(True, 3600.0)
    cron.app.at = at("2026-11-30 14:00")
    assert cron.is_due(at("2026-11-30 12:00")) == schedstate(True, 7200.0)
    assert cron.is_due(datetime(2026, 11, 30, 12)) == (True, 7200.0)
    assert cron.remaining_estimate(at("2026-11-30 12:00")) == timedelta(0)
    assert cron.remaining_estimate(at("2026-11-30 10:00")) == timedelta(hours=-2)


def test_the_time_comes_from_nowfun() -> None:
    cron = crontab(30, tz=UTC, nowfun=lambda: datetime(2026, 11, 30, 10, 20))
    assert cron.now() == datetime(2026, 11, 30, 10, 20)
    assert cron.remaining_estimate(at("2026-11-30 10:00")) == timedelta(minutes=10)


@pytest.mark.parametrize(
    ("deadline", "now", "due"),
    [
        (None, "12:59", True),
        (600, "12:10:00", True),
        (600, "12:10:01", False),
        (600, "12:00:00", True),
        (0, "12:00", True),
    ],
)
@pytest.mark.filterwarnings("ignore:setting 'beat_cron_starting_deadline' has no effect")
def test_the_deadline(make_app: Callable[..., Any], deadline: float | None, now: str, due: bool) -> None:
    cron = crontab(0, 12, app=make_app(at(f"2026-11-30 {now}"), beat_cron_starting_deadline=deadline))
    state = cron.is_due(at("2026-11-30 11:00"))
    assert state == (due, (at("2026-12-01 12:00") - cron.app.at).total_seconds())


def test_remaining_delta() -> None:
    now = at("2026-07-01 12:00")
    last, delta, then = crontab(0, 9, "mon", tz="Europe/Oslo", nowfun=lambda: now).remaining_delta(now)
    assert (last, then) == (now, now)
    assert last.tzinfo is OSLO
    assert repr(delta) == "ffwd(year=2026, month=7, day=6, hour=9, minute=0, second=0, microsecond=0)"
    assert (last + delta).isoformat() == "2026-07-06T09:00:00+02:00"
    assert remaining(last, delta, then) == at("2026-07-06 07:00") - now
    assert remaining(*crontab(0, 9, nowfun=lambda: now).remaining_delta(now, tz="Asia/Tokyo")) == timedelta(hours=12)


def test_remaining_delta_into_the_second_pass() -> None:
    last = at("2026-10-25 00:59")
    cron = crontab(30, "*", tz="Europe/Oslo", nowfun=lambda: last)
    _, delta, _ = cron.remaining_delta(last)
    assert remaining(last.astimezone(OSLO), delta, last) == timedelta(minutes=31)
    _, delta, _ = cron.remaining_delta(last + timedelta(minutes=32), ffwd=lambda **parts: parts)
    assert delta == {
        "year": 2026,
        "month": 10,
        "day": 25,
        "hour": 3,
        "minute": 30,
        "second": 0,
        "microsecond": 0,
        "fold": 0,
    }
    assert isinstance(ffwd(), ffwd)


def test_maybe_make_aware() -> None:
    cron = crontab(tz="Europe/Oslo")
    naive = datetime(2026, 7, 1, 12)
    assert cron.maybe_make_aware(naive).isoformat() == "2026-07-01T14:00:00+02:00"
    assert cron.maybe_make_aware(naive, naive_as_utc=False).isoformat() == "2026-07-01T12:00:00+02:00"
    aware = naive.replace(tzinfo=UTC)
    assert cron.maybe_make_aware(aware) is aware


def test_to_local(make_app: Callable[..., Any]) -> None:
    moment = at("2026-07-01 12:00")
    assert crontab(app=make_app(moment)).to_local(moment) is moment
    local = crontab(app=make_app(moment, enable_utc=False, timezone="Europe/Oslo"))
    assert local.to_local(moment).isoformat() == "2026-07-01T14:00:00+02:00"
    assert not local.utc_enabled


def test_repr_is_celerys() -> None:
    assert repr(crontab()) == "<crontab: * * * * * (m/h/dM/MY/d)>"
    assert repr(crontab(0, "*/2", "mon", [1, 2], {3})) == "<crontab: 0 */2 [1, 2] {3} mon (m/h/dM/MY/d)>"
    assert repr(crontab(tz="Europe/Oslo")) == "<crontab: * * * * * (m/h/dM/MY/d), Europe/Oslo>"


def test_equality() -> None:
    assert crontab("*/30", 1) == crontab({0, 30}, "1")
    assert crontab(1) != crontab(2)
    assert crontab(hour=1) != crontab(hour=2)
    assert crontab(day_of_week=1) != crontab(day_of_week=2)
    assert crontab(day_of_month=1) != crontab(day_of_month=2)
    assert crontab(month_of_year=1) != crontab(month_of_year=2)
    assert crontab(tz="Europe/Oslo") == crontab(tz=OSLO) != crontab(tz="UTC")
    assert crontab(nowfun=datetime.now) != crontab()
    assert crontab() != "* * * * *"
    with pytest.raises(TypeError, match="unhashable"):
        hash(crontab())


def _now() -> datetime:
    return datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    "cron", [crontab("*/5", {1, 2}, "mon", [1], "jan-mar", tz="Europe/Oslo", nowfun=_now), crontab()]
)
def test_copies(cron: crontab) -> None:
    for made in (pickle.loads(pickle.dumps(cron)), copy.copy(cron), copy.deepcopy(cron)):
        assert made == cron
        assert repr(made) == repr(cron)
        assert made.nowfun is cron.nowfun
        assert made._tz is cron._tz
    assert cron.__reduce__()[1] == tuple(
        getattr(cron, f"_orig_{name}") for name in ("minute", "hour", "day_of_week", "day_of_month", "month_of_year")
    )


def test_numbers_that_come_once_are_kept() -> None:
    cron = crontab(minute=iter([0, 30]))
    assert pickle.loads(pickle.dumps(cron)) == cron
    assert repr(cron) == "<crontab: [0, 30] * * * * (m/h/dM/MY/d)>"


def test_from_string() -> None:
    assert crontab.from_string("0 9 1-7 jan mon") == crontab(0, 9, "mon", "1-7", "jan")
    assert crontab.from_string(" 0\t9  * * * ", tz="Europe/Oslo") == crontab(0, 9, tz="Europe/Oslo")
    for text in ("", "* * * *", "0 0 * * * *"):
        with pytest.raises(
            ValueError,
            match=rf"^crontab {re.escape(repr(text))} has {len(text.split())} fields, must have 5: minute hour",
        ):
            crontab.from_string(text)


class TzAwareCrontab(crontab):
    """As django-celery-beat has it: the zone is set before Celery's constructor, and left out of the pickle's state."""

    def __init__(
        self,
        minute: str = "*",
        hour: str = "*",
        day_of_week: str = "*",
        day_of_month: str = "*",
        month_of_year: str = "*",
        tz: tzinfo = UTC,
        app: Any = None,
    ) -> None:
        self.tz = tz
        super().__init__(
            minute=minute,
            hour=hour,
            day_of_week=day_of_week,
            day_of_month=day_of_month,
            month_of_year=month_of_year,
            nowfun=self.nowfunc,
            app=app,
        )

    def nowfunc(self) -> datetime:
        return at("2026-07-01 12:00")

    def is_due(self, last_run_at: datetime) -> schedstate:
        last_run_at = last_run_at.astimezone(self.tz)
        left = max(self.remaining_estimate(last_run_at).total_seconds(), 0)
        if left == 0:
            return schedstate(is_due=True, next=max(self.remaining_estimate(self.now()).total_seconds(), 0))
        return schedstate(is_due=False, next=left)

    def __reduce__(self) -> tuple[Any, ...]:
        fields = self._orig_minute, self._orig_hour, self._orig_day_of_week
        return self.__class__, (*fields, self._orig_day_of_month, self._orig_month_of_year, self.tz), None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, crontab) and other.hour == self.hour and other.tz == self.tz

    __hash__ = None  # type: ignore[assignment]


def test_subclasses_written_for_celery() -> None:
    cron = TzAwareCrontab("0", "14", tz=OSLO)
    assert cron.is_due(at("2026-07-01 11:59:59")) == (True, 86400.0)
    assert cron.is_due(at("2026-07-01 12:00")) == (False, 86400.0)
    assert pickle.loads(pickle.dumps(cron)) == cron


def test_a_base_schedule_says_what_it_lacks() -> None:
    with pytest.raises(NotImplementedError, match="BaseSchedule does not say when it is next"):
        BaseSchedule(tz=UTC).next_after(at("2026-01-01"))
    assert BaseSchedule() == BaseSchedule()
    assert BaseSchedule() != 5
