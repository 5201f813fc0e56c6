"""Which slots of an entry are to be sent now, and when to look again. Pure: told the time, asks no clock.

A slot is a time at which an entry is due. One that is late by no more than ``GRACE`` is sent, whatever is said of
missed ones: schedulers were restarted, or the broker was away for a moment. Called by ``scheduler.py``.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any, Final, NamedTuple

from celeriac.beat.entry import Entry

__all__ = ["BATCH", "GRACE", "Due", "due", "next_slot"]

#: How late the first slot that nobody has sent may be, and still nothing counts as missed.
GRACE: Final = timedelta(seconds=10)
#: Most slots of one entry that are sent in one go; then others have their turn.
BATCH: Final = 100
#: Celery's schedules may say that they are due again at once.
_SOON: Final = timedelta(milliseconds=10)
_MICROSECOND: Final = timedelta(microseconds=1)


class Due(NamedTuple):
    """``slots`` to send now, in order; ``passed``: the last that is behind us then, sent or left out; ``next``: when to
    look again, None: never."""

    slots: tuple[datetime, ...]
    passed: datetime
    next: datetime | None


def due(entry: Entry, last: datetime, now: datetime, deadline: float | None = None) -> Due:
    """What is due of an entry whose slots up to ``last`` are behind us. Times are aware; slots come in UTC.

    ``deadline``: seconds after which a slot is too old, for an entry that has none of its own.
    """
    timetable: Any = entry.schedule
    if _is_asked(type(timetable)):
        return _answered(timetable, last, now)
    first = timetable.next_after(last)
    if first is None or first > now:
        return Due((), last, first)
    limit = entry.deadline if entry.deadline is not None else deadline
    oldest = None if limit is None else now - timedelta(seconds=limit)
    if entry.catch_up != "all" and now - first > GRACE:
        latest: datetime = timetable.latest_between(last, now)
        wanted = (entry.catch_up == "once" or now - latest <= GRACE) and (oldest is None or latest >= oldest)
        return Due((latest,) if wanted else (), latest, timetable.next_after(latest))
    start = last
    if oldest is not None and first < oldest:
        start = timetable.latest_between(last, oldest - _MICROSECOND) or last
    slots = tuple(islice(timetable.slots_between(start, now), BATCH))
    passed = slots[-1] if slots else start
    return Due(slots, passed, timetable.next_after(passed))


def next_slot(entry: Entry, slot: datetime) -> datetime | None:
    """The slot after ``slot``; None: there is none, or nobody can say."""
    if _is_asked(type(entry.schedule)):
        return None
    following: datetime | None = entry.schedule.next_after(slot)
    return following


def _answered(timetable: Any, last: datetime, now: datetime) -> Due:
    """What a schedule says that was written for Celery. It looks at a clock of its own, and nobody knows its missed
    slots: it is due now, or it is not."""
    is_due, seconds = timetable.is_due(last)
    then = now + max(timedelta(seconds=float(seconds)), _SOON)
    return Due((now.astimezone(UTC),), now, then) if is_due else Due((), last, then)


def _is_asked(kind: type) -> bool:
    """Whether a class of schedules has changed Celery's question, and not ours."""
    for each in kind.__mro__:
        names = vars(each)
        if "next_after" in names:
            return False
        if "is_due" in names or "remaining_estimate" in names:
            return True
    return True
