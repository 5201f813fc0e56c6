"""What all schedules are: times after a moment, asked in Celery's words (``is_due``) or in ours (``next_after``).

Reads no clock: "now" comes from ``nowfun`` or from an app, and which app is current is told by the app layer
(``ambient.py``). Schedulers call ``next_after``, ``latest_between`` and ``slots_between``; code written for
Celery calls ``is_due``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any, NamedTuple

from celeriac.schedules.ambient import current_app, has_app
from celeriac.schedules.zones import zone_named

__all__ = ["NEVER", "BaseSchedule", "aware", "schedstate"]

#: How long until something that never comes again, where a number is wanted.
NEVER = timedelta(days=36_500)
_ZERO = timedelta(0)


class schedstate(NamedTuple):  # noqa: N801 - Celery's name
    """Whether to run now, and in how many seconds to ask again."""

    is_due: bool
    next: float


class BaseSchedule:
    """Base of all schedules. One of your own implements ``next_after``; what was written for Celery, ``is_due``.

    ``nowfun`` tells the time instead of the app; ``tz`` is a zone or its name instead of the app's ``timezone``.
    """

    nowfun: Callable[[], datetime] | None = None
    _app: Any = None
    _tz: tzinfo | None = None

    def __init__(
        self, nowfun: Callable[[], datetime] | None = None, app: Any = None, *, tz: str | tzinfo | None = None
    ) -> None:
        self.nowfun = nowfun
        self._app = app
        if tz is not None:  # a subclass may have set it before
            self.tz = tz

    def next_after(self, moment: datetime) -> datetime | None:
        """The first time after ``moment``, an aware time; in UTC. None: it never comes."""
        raise NotImplementedError(f"{type(self).__name__} does not say when it is next")

    def slots_between(self, start: datetime, end: datetime) -> Iterator[datetime]:
        """All times after ``start`` up to ``end`` inclusive, in order, in UTC. Where ``start`` is itself one, as the
        last run, nothing is repeated or left out."""
        end = _utc(end)
        slot = self.next_after(start)
        while slot is not None and slot <= end:
            yield slot
            slot = self.next_after(slot)

    def latest_between(self, start: datetime, end: datetime) -> datetime | None:
        """The last time after ``start`` up to ``end`` inclusive, in UTC, without looking at all before it."""
        bound = _utc(end)
        slot = self.next_after(start)
        if slot is None or slot > bound:
            return None
        while (following := self.next_after(slot)) is not None and following <= bound:
            middle = following + (bound - following) / 2
            later = self.next_after(middle)
            if later is None or later > bound:  # nothing in the later half
                slot, bound = following, middle
            else:
                slot = later
        return slot

    def now(self) -> datetime:
        """The time, of ``nowfun`` or the app."""
        now: datetime = (self.nowfun or self.app.now)()
        return now

    def remaining_estimate(self, last_run_at: datetime) -> timedelta:
        """How long until it is due, negative for how long it has been; counted from ``last_run_at``."""
        following = self.next_after(self.maybe_make_aware(last_run_at))
        return NEVER if following is None else following - self.maybe_make_aware(self.now()).astimezone(UTC)

    def is_due(self, last_run_at: datetime) -> schedstate:
        """Whether to run now, and the seconds until the time after that, or until this one."""
        remaining = self.remaining_estimate(last_run_at)
        if remaining > _ZERO:
            return schedstate(False, remaining.total_seconds())
        return schedstate(True, self._seconds_from_now())

    def _seconds_from_now(self) -> float:
        return max(self.remaining_estimate(self.now()), _ZERO).total_seconds()

    def maybe_make_aware(self, dt: datetime, naive_as_utc: bool = True) -> datetime:
        """A naive time is one in UTC (``naive_as_utc``) or in the schedule's zone; returned in that zone. An aware one
        stays as it is."""
        if dt.utcoffset() is not None:
            return dt
        zone = self.tz
        return dt.replace(tzinfo=UTC).astimezone(zone) if naive_as_utc else dt.replace(tzinfo=zone)

    @property
    def app(self) -> Any:
        """The app given, else the current one."""
        return self._app if self._app is not None else current_app()

    @app.setter
    def app(self, app: Any) -> None:
        self._app = app

    @property
    def _has_app(self) -> bool:
        return self._app is not None or has_app()

    @property
    def tz(self) -> tzinfo:
        """The zone given, else the app's; UTC where there is no app."""
        if self._tz is not None:
            return self._tz
        return zone_named(self.app.timezone) if self._has_app else UTC

    @tz.setter
    def tz(self, tz: str | tzinfo) -> None:
        self._tz = zone_named(tz)

    @property
    def utc_enabled(self) -> bool:
        """The setting ``enable_utc`` of the app."""
        return bool(self.app.conf.enable_utc)

    def to_local(self, dt: datetime) -> datetime:
        """The time in the app's zone when the app does not use UTC, else as it is."""
        return dt if self.utc_enabled else self.maybe_make_aware(dt, naive_as_utc=False).astimezone(self.tz)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, BaseSchedule):
            return other.nowfun == self.nowfun
        return NotImplemented


def aware(moment: datetime) -> datetime:
    """``moment``. Raises ``ValueError`` for a naive one, for nobody can say when that is."""
    if moment.utcoffset() is None:
        raise ValueError(f"moment: {moment!r} has no time zone: write datetime(..., tzinfo=UTC)")
    return moment


def _utc(moment: datetime) -> datetime:
    return aware(moment).astimezone(UTC)
