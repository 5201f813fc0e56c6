"""``crontab``: at given minutes, hours, days and months of a clock, in Celery's syntax, with a rule for clock changes.

The rule: a time that the clock skips runs at the first instant after the gap; one that it shows twice runs once, the
first time. Fields that say *every* follow real time instead (docs/reference/schedules.md). Reads no clock itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any, Self

from celeriac.schedules.base import BaseSchedule, aware, schedstate
from celeriac.schedules.delta import ffwd as _ffwd
from celeriac.schedules.fields import DAY_OF_MONTH, DAY_OF_WEEK, HOUR, MINUTE, MONTH_OF_YEAR, Cronspec
from celeriac.schedules.pattern import Pattern
from celeriac.schedules.zones import as_utc, fold_around, gap_end, offsets, zone_named

__all__ = ["crontab"]

_MINUTE = timedelta(minutes=1)
_MICROSECOND = timedelta(microseconds=1)
_DAY_HOURS = 24
_FIELDS = "minute hour day_of_month month_of_year day_of_week"


class crontab(BaseSchedule):  # noqa: N801 - Celery's name
    """At each minute that matches all five fields, on the clock of ``tz``, else of the app's ``timezone``.

    A field is a number, numbers, or text: ``"*"``, ``"*/15"``, ``"8-18/2"``, ``"22-4"`` (over midnight), ``"mon-fri"``,
    ``"jan,jul"``, parts with commas between them. Sunday is 0. A day must match day of month *and* day of week. The
    fields are there as sets of numbers under their names.

    Raises ``ParseException`` (a ``ValueError``) for what is no pattern, ``ValueError`` for numbers out of range and for
    days that no month has, ``TypeError`` for other types; the text names field, value and what is allowed.
    """

    def __init__(
        self,
        minute: Cronspec = "*",
        hour: Cronspec = "*",
        day_of_week: Cronspec = "*",
        day_of_month: Cronspec = "*",
        month_of_year: Cronspec = "*",
        nowfun: Callable[[], datetime] | None = None,
        app: Any = None,
        *,
        tz: str | tzinfo | None = None,
    ) -> None:
        # Names and form as in Celery's: schedulers that keep entries in a database read them.
        self._orig_minute = minute = _kept(minute)
        self._orig_hour = hour = _kept(hour)
        self._orig_day_of_week = day_of_week = _kept(day_of_week)
        self._orig_day_of_month = day_of_month = _kept(day_of_month)
        self._orig_month_of_year = month_of_year = _kept(month_of_year)
        given = {"nowfun": nowfun, "app": app, "tz": tz}
        self._orig_kwargs = {name: value for name, value in given.items() if value is not None}
        self.minute = MINUTE.expand(minute)
        self.hour = HOUR.expand(hour)
        self.day_of_week = DAY_OF_WEEK.expand(day_of_week)
        self.day_of_month = DAY_OF_MONTH.expand(day_of_month)
        self.month_of_year = MONTH_OF_YEAR.expand(month_of_year)
        pattern = Pattern.of(
            minutes=self.minute,
            hours=self.hour,
            days=self.day_of_month,
            months=self.month_of_year,
            weekdays=self.day_of_week,
        )
        if pattern is None:
            raise ValueError(f"day_of_month: {day_of_month!r} is in no month of month_of_year {month_of_year!r}")
        self._pattern = pattern
        #: Minute or hour say every: both passes count where the clock shows an hour twice.
        self._repeats = MINUTE.says_every(minute, self.minute) or HOUR.says_every(hour, self.hour)
        super().__init__(nowfun=nowfun, app=app, tz=tz)

    @classmethod
    def from_string(cls, crontab: str, **kwargs: Any) -> Self:
        """From ``"minute hour day_of_month month_of_year day_of_week"``, the order of cron: ``"0 9 * * mon-fri"``.

        Keywords are those of the class. Raises ``ValueError`` unless there are five fields, and what the class raises.
        """
        fields = crontab.split()
        if len(fields) != len(_FIELDS.split()):
            raise ValueError(f"crontab {crontab!r} has {len(fields)} fields, must have 5: {_FIELDS}")
        minute, hour, day_of_month, month_of_year, day_of_week = fields
        return cls(minute, hour, day_of_week, day_of_month, month_of_year, **kwargs)

    def next_after(self, moment: datetime) -> datetime | None:
        """The first time after ``moment``, an aware time; in UTC. None beyond the year 9999."""
        try:
            return self._next(aware(moment), self.tz)
        except OverflowError:
            return None

    def _next(self, moment: datetime, zone: tzinfo) -> datetime | None:
        """Wall-clock times in order, each looked up in the zone. Where the clock shows ``moment`` twice, its two passes
        come first, or what is left of them."""
        local = moment.astimezone(zone)
        wall = local.replace(tzinfo=None, fold=0)
        begin = wall.replace(second=0, microsecond=0) + _MINUTE
        first, second = offsets(wall, zone)
        if first > second:
            repeated, end = fold_around(wall, zone)
            passes = [(begin, first), (_whole_minute(repeated), second)] if not local.fold else [(begin, second)]
            for start, offset in passes:
                if offset == second and not self._repeats:
                    continue
                slot = self._pattern.first_from(start)
                if slot is not None and slot < end:
                    return as_utc(slot, offset)
            begin = _whole_minute(end)
        return self._on_clock(begin, zone)

    def _on_clock(self, begin: datetime, zone: tzinfo) -> datetime | None:
        """The first time at or after the wall-clock time ``begin``, which is not in its second pass."""
        while (slot := self._pattern.first_from(begin)) is not None:
            first, second = offsets(slot, zone)
            if first >= second:
                return as_utc(slot, first)
            end, shown = gap_end(slot, zone)
            if len(self.hour) < _DAY_HOURS:
                return end
            begin = _whole_minute(shown)  # at each hour: the next one comes by itself
        return None

    def remaining_delta(
        self, last_run_at: datetime, tz: str | tzinfo | None = None, ffwd: Callable[..., Any] = _ffwd
    ) -> tuple[datetime, Any, datetime]:
        """The last run on the schedule's clock, what to add to it to get the next one, and the time now.

        Raises ``OverflowError`` beyond the year 9999.
        """
        zone = zone_named(tz) if tz is not None else self.tz
        last = self.maybe_make_aware(last_run_at).astimezone(zone)
        slot = self._next(last, zone)
        if slot is None:
            raise OverflowError(f"{self!r} has no time after {last_run_at}")
        at = slot.astimezone(zone)
        parts = {
            name: getattr(at, name) for name in ("year", "month", "day", "hour", "minute", "second", "microsecond")
        }
        if at.fold != last.fold:
            parts["fold"] = at.fold
        return last, ffwd(**parts), self.maybe_make_aware(self.now()).astimezone(zone)

    def is_due(self, last_run_at: datetime) -> schedstate:
        """Whether to run now, and the seconds until the time after that, or until this one.

        Times that were missed by more than ``beat_cron_starting_deadline`` seconds do not count.
        """
        remaining = self.remaining_estimate(last_run_at)
        if remaining > timedelta(0):
            return schedstate(False, remaining.total_seconds())
        return schedstate(not self._too_late(), self._seconds_from_now())

    def _too_late(self) -> bool:
        """All times since the last run were missed by more than the deadline."""
        deadline = self.app.conf.beat_cron_starting_deadline if self._has_app else None
        if deadline is None:
            return False
        since = self.maybe_make_aware(self.now()).astimezone(UTC) - timedelta(seconds=deadline)
        return self.remaining_estimate(since - _MICROSECOND) > timedelta(0)

    def __repr__(self) -> str:
        fields = " ".join(str(getattr(self, f"_orig_{name}")) for name in _FIELDS.split())
        return (
            f"<crontab: {fields} (m/h/dM/MY/d)>"
            if self._tz is None
            else f"<crontab: {fields} (m/h/dM/MY/d), {self._tz}>"
        )

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, crontab):
            return NotImplemented
        names = (*_FIELDS.split(), "_tz", "nowfun")
        return all(getattr(self, name) == getattr(other, name) for name in names)

    def __reduce__(self) -> tuple[Any, ...]:
        fields = self._orig_minute, self._orig_hour, self._orig_day_of_week
        return self.__class__, (*fields, self._orig_day_of_month, self._orig_month_of_year), self._orig_kwargs

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        super().__init__(**state)
        self._orig_kwargs = dict(state)


def _kept(spec: Cronspec) -> Cronspec:
    """What can be read more than once, as it was given."""
    return list(spec) if isinstance(spec, Iterator) else spec


def _whole_minute(wall: datetime) -> datetime:
    """The first whole minute at or after ``wall``: some old offsets have seconds."""
    whole = wall.replace(second=0, microsecond=0)
    return whole if whole == wall else whole + _MINUTE
