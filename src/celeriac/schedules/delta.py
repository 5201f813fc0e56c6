"""Lengths of time until something is due: real seconds, rounded ones, and Celery's ``ffwd``. Knows no schedules but
their app's clock, for ``remaining`` when it is not told the time."""

from __future__ import annotations

import calendar
from datetime import UTC, date, datetime, timedelta, tzinfo
from typing import Any, TypeVar

from celeriac.schedules.ambient import current_app
from celeriac.schedules.zones import gap_end, instants

__all__ = ["end_of", "ffwd", "humanize_seconds", "maybe_timedelta", "remaining"]

_Date = TypeVar("_Date", bound=date)
_DAY = timedelta(days=1)
_HOUR = timedelta(hours=1)
_MINUTE = timedelta(minutes=1)


def maybe_timedelta(delta: Any) -> Any:
    """Seconds as a timedelta; anything but a number as it is."""
    return timedelta(seconds=delta) if isinstance(delta, int | float) else delta


def end_of(start: datetime, every: timedelta, relative: bool, zone: tzinfo) -> datetime:
    """When ``every`` has passed since ``start``, in UTC: in real time, whatever clocks do meanwhile.

    ``relative`` rounds it down on the clock of ``zone``, to the day, the hour or the minute, whichever is the largest
    that fits into ``every``; whole days are then counted on the calendar, from midnight to midnight.
    """
    start = start.astimezone(UTC)
    end = start + every
    if not relative:
        return end
    if every >= _DAY:
        local = start.astimezone(zone).replace(tzinfo=None, fold=0) + every
        shown = instants(midnight := local.replace(hour=0, minute=0, second=0, microsecond=0), zone)
        return next((each for each in shown if each > start), end) if shown else gap_end(midnight, zone)[0]
    wall = end.astimezone(zone).replace(tzinfo=None, fold=0, microsecond=0)
    if every >= _MINUTE:
        wall = wall.replace(second=0)
    if every >= _HOUR:
        wall = wall.replace(minute=0)
    shown = instants(wall, zone) or [gap_end(wall, zone)[0]]
    rounded = max((each for each in shown if each <= end), default=end)
    return rounded if rounded > start else end


class ffwd:  # noqa: N801 - Celery's name
    """Added to a date or time, sets the parts that are given, then goes on to ``weekday`` (Monday is 0), then ``weeks``
    further."""

    def __init__(
        self,
        year: int | None = None,
        month: int | None = None,
        weeks: int = 0,
        weekday: int | None = None,
        day: int | None = None,
        hour: int | None = None,
        minute: int | None = None,
        second: int | None = None,
        microsecond: int | None = None,
        fold: int | None = None,
    ) -> None:
        self.year = year
        self.month = month
        self.weeks = weeks
        self.weekday = weekday
        self.day = day
        self.hour = hour
        self.minute = minute
        self.second = second
        self.microsecond = microsecond
        self.fold = fold
        self.days = weeks * 7

    def __repr__(self) -> str:
        given = self._given() | {"weeks": self.weeks or None, "weekday": self.weekday}
        return f"ffwd({', '.join(f'{name}={value}' for name, value in given.items() if value is not None)})"

    def __radd__(self, other: _Date) -> _Date:
        if not isinstance(other, date):
            return NotImplemented
        year, month = self.year or other.year, self.month or other.month
        day = min(calendar.monthrange(year, month)[1], self.day or other.day)
        moved = other.replace(**self._given() | {"year": year, "month": month, "day": day})
        days = self.days if self.weekday is None else self.days + (self.weekday - moved.weekday()) % 7
        return moved + timedelta(days=days) if days else moved  # adding nothing would lose the fold

    def _given(self) -> dict[str, Any]:
        names = ("year", "month", "day", "hour", "minute", "second", "microsecond", "fold")
        return {name: value for name in names if (value := getattr(self, name)) is not None}


def remaining(
    start: datetime, ends_in: timedelta | ffwd, now: datetime | None = None, relative: bool = False
) -> timedelta:
    """How long from ``now`` (None: the current app's time) until ``ends_in`` after ``start``, an aware time; negative
    when that is over."""
    at: datetime = now or current_app().now()
    if isinstance(ends_in, timedelta):
        end = end_of(start, ends_in, relative, start.tzinfo or UTC)
    else:
        end = (start + ends_in).astimezone(UTC)
    return end - at.astimezone(UTC)


def humanize_seconds(secs: float, prefix: str = "", sep: str = "", now: str = "now", microseconds: bool = False) -> str:
    """Seconds in the largest unit that fits: ``"1.00 minute"``; ``now`` for less than one."""
    secs = float(format(float(secs), ".2f"))
    for unit, length in (("day", 86_400.0), ("hour", 3_600.0), ("minute", 60.0), ("second", 1.0)):
        if secs >= length:
            number = secs / length
            return f"{prefix}{sep}{number:.2f} {unit}{'' if number == 1 else 's'}"
    return f"{prefix}{sep}{secs:.2f} seconds" if microseconds and secs > 0.0 else now
