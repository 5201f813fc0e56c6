"""Which minutes of the wall clock a crontab names, and the next of them.

Pure calendar arithmetic on naive times: knows no zones, so it does not know that a clock may skip or repeat an hour.
Searches field by field, never minute by minute. Called by ``cron.py``.
"""

from __future__ import annotations

import calendar
from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import MAXYEAR, date, datetime
from typing import Self

__all__ = ["Pattern"]

#: The longest that each month gets.
_LONGEST = (0, 31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pattern:
    """Sorted fields; days as bits, bit *n* for day *n*, by the weekday of the first of the month (Sunday is 0)."""

    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    days: tuple[int, ...]
    months: tuple[int, ...]

    @classmethod
    def of(
        cls,
        *,
        minutes: Iterable[int],
        hours: Iterable[int],
        days: Iterable[int],
        months: Iterable[int],
        weekdays: Iterable[int],
    ) -> Self | None:
        """The pattern of these fields, a day to match both as day of month and as weekday; None when no month has any
        of the days."""
        days, weekdays, months = sorted(days), frozenset(weekdays), sorted(months)
        if all(days[0] > _LONGEST[month] for month in months):
            return None
        by_first = [sum(1 << day for day in days if (first + day - 1) % 7 in weekdays) for first in range(7)]
        return cls(
            minutes=tuple(sorted(minutes)), hours=tuple(sorted(hours)), days=tuple(by_first), months=tuple(months)
        )

    def first_from(self, wall: datetime) -> datetime | None:
        """The first minute of the pattern at or after ``wall``, a naive whole minute; None beyond the year 9999."""
        year, month, day = wall.year, wall.month, wall.day
        if month in self.months:
            days = self._days(year, month) >> day
            if days & 1:
                time = self._time_from(wall.hour, wall.minute)
                if time is not None:
                    return datetime(year, month, day, *time)  # noqa: DTZ001 - a wall clock's
            if days > 1:
                return self._begin(year, month, days >> 1 << (day + 1))
        index = bisect_right(self.months, month)
        while year <= MAXYEAR:  # 40 rounds at most: the 29th of February on a given weekday around 2100
            for month in self.months[index:]:
                days = self._days(year, month)
                if days:
                    return self._begin(year, month, days)
            year += 1
            index = 0
        return None

    def _days(self, year: int, month: int) -> int:
        length = 29 if month == 2 and calendar.isleap(year) else 28 if month == 2 else _LONGEST[month]
        return self.days[date(year, month, 1).isoweekday() % 7] & ((2 << length) - 1)

    def _begin(self, year: int, month: int, days: int) -> datetime:
        day = (days & -days).bit_length() - 1
        return datetime(year, month, day, self.hours[0], self.minutes[0])  # noqa: DTZ001 - a wall clock's

    def _time_from(self, hour: int, minute: int) -> tuple[int, int] | None:
        index = bisect_left(self.hours, hour)
        if index == len(self.hours):
            return None
        if self.hours[index] == hour:
            place = bisect_left(self.minutes, minute)
            if place < len(self.minutes):
                return hour, self.minutes[place]
            index += 1
            if index == len(self.hours):
                return None
        return self.hours[index], self.minutes[0]
