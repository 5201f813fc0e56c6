"""The oracle: what a crontab does, found by walking real minutes and looking at the clock. Slow, and plainly right."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import cache
from zoneinfo import ZoneInfo

from celeriac.schedules import crontab

MINUTE = timedelta(minutes=1)
FIRST, LAST = datetime(2000, 1, 2, tzinfo=UTC), datetime(2040, 12, 30, tzinfo=UTC)


def shown(instant: datetime, zone: ZoneInfo) -> datetime:
    """What the clock shows, with the pass in ``fold``."""
    return instant.astimezone(zone).replace(tzinfo=None)


def matches(wall: datetime, cron: crontab) -> bool:
    return (
        wall.minute in cron.minute
        and wall.hour in cron.hour
        and wall.day in cron.day_of_month
        and wall.month in cron.month_of_year
        and wall.isoweekday() % 7 in cron.day_of_week
    )


def says_every(cron: crontab) -> bool:
    """The rule of the docs, said again: minute or hour have a star or a step, or all their numbers."""
    fields = ((cron._orig_minute, cron.minute, 60), (cron._orig_hour, cron.hour, 24))
    return any(
        len(numbers) == size or (isinstance(text, str) and set(text) & set("*/")) for text, numbers, size in fields
    )


def walk(cron: crontab, zone: ZoneInfo, start: datetime, end: datetime) -> Iterator[datetime]:
    """All times after ``start`` up to ``end``, both whole minutes in UTC."""
    every = says_every(cron)
    before = shown(start, zone)
    instant = start
    while (instant := instant + MINUTE) <= end:
        wall = shown(instant, zone)
        fires = matches(wall, cron) and (every or not wall.fold)
        if not fires and len(cron.hour) < 24:
            skipped = before.replace(fold=0) + MINUTE
            while skipped < wall:  # the clock has jumped
                fires = fires or matches(skipped, cron)
                skipped += MINUTE
        if fires:
            yield instant
        before = wall


@cache
def changes(zone: ZoneInfo) -> tuple[datetime, ...]:
    """The first instants after changes of the offset, 2000 to 2040; two within forty days may be missed."""
    found = []
    step = timedelta(days=40)
    low = FIRST
    while low < LAST:
        high = low + step
        if low.astimezone(zone).utcoffset() != high.astimezone(zone).utcoffset():
            begin, end = low, high
            while end - begin > MINUTE:
                middle = begin + (end - begin) / 2
                middle = middle.replace(second=0, microsecond=0)
                if middle.astimezone(zone).utcoffset() == low.astimezone(zone).utcoffset():
                    begin = middle
                else:
                    end = middle
            found.append(end)
        low = high
    return tuple(found)
