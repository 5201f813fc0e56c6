"""``celery.utils.time``: the helpers that applications import."""

from __future__ import annotations

from datetime import UTC, datetime, tzinfo

from celeriac.schedules.delta import ffwd, humanize_seconds, maybe_timedelta, remaining

__all__ = [
    "ffwd",
    "humanize_seconds",
    "is_naive",
    "make_aware",
    "maybe_make_aware",
    "maybe_timedelta",
    "remaining",
    "to_utc",
]


def is_naive(dt: datetime) -> bool:
    """The time has no zone."""
    return dt.tzinfo is None or dt.utcoffset() is None


def make_aware(dt: datetime, tz: tzinfo) -> datetime:
    """A naive time, in a zone."""
    return dt.replace(tzinfo=tz)


def maybe_make_aware(dt: datetime, tz: tzinfo | None = None, naive_as_utc: bool = True) -> datetime:
    """A naive time becomes one in UTC (``naive_as_utc``) or ``tz``; an aware one is moved to ``tz``."""
    if is_naive(dt):
        dt = dt.replace(tzinfo=UTC if naive_as_utc or tz is None else tz)
    return dt if tz is None else dt.astimezone(tz)


def to_utc(dt: datetime) -> datetime:
    """The time in UTC; a naive one is taken to be in it."""
    return make_aware(dt, UTC) if is_naive(dt) else dt.astimezone(UTC)
