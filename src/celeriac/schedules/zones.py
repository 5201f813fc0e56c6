"""Wall clocks and instants: which instants show a wall-clock time, and what a clock skips or repeats.

Works on any ``tzinfo`` that knows ``fold``, asking for nothing but offsets: pure, though a zone's name is looked up in
the machine's time zone data. Called by the schedules.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone, tzinfo

__all__ = ["as_utc", "fold_around", "gap_end", "instants", "offsets", "zone_named"]

_SECOND = timedelta(seconds=1)


def zone_named(zone: str | tzinfo) -> tzinfo:
    """The zone itself, or of that name. Zones of pytz, which need pytz's own calls, are replaced by name.

    Raises ``ValueError`` for a name that this machine does not know.
    """
    if isinstance(zone, timezone):
        return zone
    if not isinstance(zone, str):
        name = getattr(zone, "zone", None)
        if not (isinstance(name, str) and hasattr(zone, "localize")):
            return zone
        zone = name
    if zone.upper() == "UTC":
        return UTC
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

    try:
        return ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValueError(
            f"tz: {zone!r} is not known here: write a name such as 'Europe/Oslo', or install the package tzdata"
        ) from error


def offsets(wall: datetime, zone: tzinfo) -> tuple[timedelta, timedelta]:
    """The offsets before and after the change of the clock around a naive ``wall``; equal ones where there is none. The
    second is the smaller one where the clock shows ``wall`` twice, the larger where it skips it."""
    aware = wall.replace(tzinfo=zone, fold=0)
    first = aware.utcoffset()
    second = aware.replace(fold=1).utcoffset()
    if first is None or second is None:
        raise ValueError(f"tz: {zone!r} has no offset at {wall}")
    return first, second


def as_utc(wall: datetime, offset: timedelta) -> datetime:
    """The instant at which a clock with that offset shows the naive ``wall``."""
    return (wall - offset).replace(tzinfo=UTC, fold=0)


def instants(wall: datetime, zone: tzinfo) -> list[datetime]:
    """The instants at which the clock shows the naive ``wall``: one, two, or none."""
    before, after = offsets(wall, zone)
    if before < after:
        return []
    return [as_utc(wall, before)] if before == after else [as_utc(wall, before), as_utc(wall, after)]


def gap_end(wall: datetime, zone: tzinfo) -> tuple[datetime, datetime]:
    """The first instant after the gap in which the naive ``wall`` lies, and what the clock then shows."""
    wall = wall.replace(microsecond=0)  # clocks change at whole seconds
    before, after = offsets(wall, zone)
    change = _change(as_utc(wall, after), as_utc(wall, before), before, zone)
    return change, change.replace(tzinfo=None) + after


def fold_around(wall: datetime, zone: tzinfo) -> tuple[datetime, datetime]:
    """The wall-clock times that the clock shows twice around the naive ``wall``: the first of them, and the first
    after them."""
    wall = wall.replace(microsecond=0)  # clocks change at whole seconds
    before, after = offsets(wall, zone)
    change = _change(as_utc(wall, before), as_utc(wall, after), before, zone).replace(tzinfo=None)
    return change + after, change + before


def _change(low: datetime, high: datetime, before: timedelta, zone: tzinfo) -> datetime:
    """The instant in (low, high], to the second, at which the offset is no longer ``before``."""
    while high - low > _SECOND:
        middle = low + timedelta(seconds=(high - low) // _SECOND // 2)
        if middle.astimezone(zone).utcoffset() == before:
            low = middle
        else:
            high = middle
    return high
