"""When a task may start and when it expires: what callers give, as header text and as seconds since the epoch.

Pure but for the caller's clock. Called by the sender.
"""

from __future__ import annotations

from datetime import datetime, timedelta, tzinfo

__all__ = ["earliest", "latest"]

_Moment = tuple[str | None, float | None]


def earliest(countdown: float | None, eta: datetime | str | None, *, now: float, zone: tzinfo) -> _Moment:
    """Header ``eta`` and its moment; ``countdown`` seconds from ``now`` win, as in Celery.

    A time without a zone stays so in the header and is in ``zone``. Raises ``ValueError`` or ``TypeError`` naming the
    argument.
    """
    if countdown:
        return _after("countdown", countdown, now, zone)
    return _at("eta", eta, zone) if eta is not None else (None, None)


def latest(expires: float | timedelta | datetime | str | None, *, now: float, zone: tzinfo) -> _Moment:
    """Header ``expires`` and its moment; numbers are seconds from ``now``. Raises as ``earliest`` does."""
    if expires is None:
        return None, None
    if isinstance(expires, timedelta):
        expires = expires.total_seconds()
    if isinstance(expires, (int, float)):
        return _after("expires", expires, now, zone)
    return _at("expires", expires, zone)


def _after(name: str, seconds: float, now: float, zone: tzinfo) -> _Moment:
    try:
        moment = now + seconds
        return datetime.fromtimestamp(moment, zone).isoformat(), moment
    except (OverflowError, ValueError, OSError):
        raise ValueError(f"{name}={seconds!r} is out of range") from None
    except TypeError:
        raise TypeError(f"{name} must be a number of seconds, not {seconds!r}") from None


def _at(name: str, value: object, zone: tzinfo) -> _Moment:
    if isinstance(value, datetime):
        moment, text = value, value.isoformat()
    elif isinstance(value, str):
        try:
            moment, text = datetime.fromisoformat(value), value
        except ValueError:
            raise ValueError(f"{name}={value!r} is no ISO 8601 time") from None
    else:
        raise TypeError(f"{name} must be a datetime or ISO 8601 text, not a {type(value).__name__}")
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=zone)
    try:
        return text, moment.timestamp()
    except (OverflowError, ValueError):
        raise ValueError(f"{name}={text} is out of range") from None
