"""Limits across workers: how many runs of a task start per time, and how many go on at once, in the whole fleet.

Pure values and the arithmetic of rates. The server keeps the state (port ``Limiter``); ``worker/limits.py`` asks it
before a limited task starts. Redis repeats ``Pace.take`` in ``lua/limits.lua``.
"""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct

from celeriac.model.message import Delivery, Malformed, Message

__all__ = [
    "GO",
    "LOST",
    "PARKED",
    "SEAT",
    "SLACK",
    "Ask",
    "Pace",
    "Permission",
    "Permit",
    "Rate",
    "Seats",
    "per_second",
    "seat_of",
]

#: Seconds by which a start may be ahead of its time, to make up for those that came late: no window of w seconds sees
#: more than ``(w + SLACK) / interval + 1`` starts. Claims and timers are late by some milliseconds; without it each of
#: these would be lost for ever.
SLACK = 0.1
#: Header of a message that runs alone among all that have the same text there. Celery ignores it.
SEAT = "celeriac_seat"
_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0}


def per_second(limit: str | float | None) -> float | None:
    """A rate limit in Celery's words as starts per second: ``"100/m"``, ``"10/s"``, ``"2/h"``, ``"5"``, ``0.5``.

    None, 0 and an empty text are no limit: None. Raises ``ValueError`` for anything else.
    """
    if not limit:
        return None
    try:
        if isinstance(limit, str):
            count, _, unit = limit.partition("/")
            rate = float(count) / _SECONDS[unit.strip() or "s"]
        else:
            rate = float(limit)
        if 0 <= rate < float("inf"):
            return rate or None
    except (KeyError, ValueError, TypeError):
        pass
    raise ValueError(f"rate limit {limit!r} is not understood; write '10/s', '100/m', '2/h' or a number a second")


class Rate(Struct, frozen=True):
    """The starts of one bucket are ``interval`` seconds apart."""

    bucket: str
    interval: float


class Seats(Struct, frozen=True):
    """At most ``most`` deliveries that share ``key`` run at once."""

    key: str
    most: int


def seat_of(message: Message | Malformed) -> Seats | None:
    """The one seat that a message asks for, if any, whatever its task is."""
    key = None if isinstance(message, Malformed) else message.headers.get(SEAT)
    return Seats(key, 1) if isinstance(key, str) and key else None


class Ask(Struct, frozen=True):
    """May this delivery run now?"""

    delivery: Delivery
    rate: Rate | None = None
    seats: Seats | None = None


class Permission(StrEnum):
    """What the server says to an ask."""

    GO = "go"
    #: Not before a time: the caller releases it to the schedule, marked ``reserved``.
    LATER = "later"
    #: It waits for a seat, in the server, and is no longer leased.
    PARKED = "parked"
    #: Its token is no longer held.
    LOST = "lost"


class Permit(Struct, frozen=True):
    """The answer to an ask; ``due`` in seconds since the epoch for LATER."""

    permission: Permission
    due: float = 0.0
    #: That time is its own, in the line of its pace; else it may ask again then, as it was marked before.
    reserved: bool = True


GO = Permit(Permission.GO)
PARKED = Permit(Permission.PARKED)
LOST = Permit(Permission.LOST)


class Pace(Struct, frozen=True):
    """What a server knows of one bucket, seconds since the epoch: 0 is long ago."""

    #: The next start is in time from here on.
    start: float = 0.0
    #: The end of the line: the first moment that nobody has reserved.
    line: float = 0.0

    def take(self, interval: float, now: float, *, reserved: bool) -> tuple[Pace, float | None]:
        """One delivery asks to start: the pace afterwards, and None, or the time that is reserved for it.

        What comes first goes into the line, at its end, in one step however long the line is; what comes back with its
        ``reserved`` time is only held to the pace. When it missed its time by so much that others go first, it gets
        into the line again.
        """
        if self.start <= now + SLACK and (reserved or self.line <= now + SLACK):
            return Pace(max(self.start, now) + interval, self.line), None
        due = max(self.line, self.start, now)
        return Pace(self.start, due + interval), due
