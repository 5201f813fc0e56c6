"""``schedule``: every so many seconds of real time, counted from the last run. Knows no entries and no clock."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any

from celeriac.schedules.base import BaseSchedule, aware, schedstate
from celeriac.schedules.delta import end_of, humanize_seconds, maybe_timedelta

__all__ = ["maybe_schedule", "schedule"]

_ZERO = timedelta(0)
_MINUTE = timedelta(minutes=1)
_HOUR = timedelta(hours=1)
_DAY = timedelta(days=1)


class schedule(BaseSchedule):  # noqa: N801 - Celery's name
    """Every ``run_every`` (seconds or a timedelta) after the last run.

    ``relative`` rounds each time down to the day, hour or minute of the clock of ``tz``: every two hours on the hour.
    Raises ``ValueError`` for no time or less, ``TypeError`` for what is no length of time.
    """

    relative: bool = False

    def __init__(
        self,
        run_every: float | timedelta | None = None,
        relative: bool = False,
        nowfun: Callable[[], datetime] | None = None,
        app: Any = None,
        *,
        tz: str | tzinfo | None = None,
    ) -> None:
        self.run_every: timedelta = maybe_timedelta(run_every)
        if not isinstance(self.run_every, timedelta):
            raise TypeError(f"run_every: {run_every!r} is neither a number of seconds nor a timedelta")
        if self.run_every <= _ZERO:
            raise ValueError(f"run_every: {self.run_every.total_seconds():g} s, must be more than 0")
        self.relative = relative
        super().__init__(nowfun=nowfun, app=app, tz=tz)

    def next_after(self, moment: datetime) -> datetime | None:
        """``run_every`` after ``moment``: from run to run, nothing else fixes the times of an interval."""
        try:
            return end_of(aware(moment), self.run_every, self.relative, self.tz if self.relative else UTC)
        except OverflowError:
            return None

    def latest_between(self, start: datetime, end: datetime) -> datetime | None:
        """As ``BaseSchedule.latest_between``; the times count from ``start``."""
        if self.relative and self.run_every >= _MINUTE:
            return self._latest_rounded(start, aware(end).astimezone(UTC))
        first = self.next_after(start)
        if first is None or first > aware(end):
            return None
        return first + (aware(end).astimezone(UTC) - first) // self.run_every * self.run_every

    def _latest_rounded(self, start: datetime, end: datetime) -> datetime | None:
        latest, slot = None, self.next_after(start)
        while slot is not None and slot <= end:
            latest = self._ahead(slot, end)
            slot = self.next_after(latest)
        return latest

    def _ahead(self, slot: datetime, end: datetime) -> datetime:
        """A later time in the row, up to a day behind ``slot`` and not behind ``end``; ``slot`` itself where that is
        not sure. Rounded times are equally far apart as long as the clock is not changed: a year has half a million
        minutes."""
        unit = _HOUR if self.run_every >= _HOUR else _MINUTE
        local = slot.astimezone(self.tz)
        if self.run_every >= _DAY or local.second or local.microsecond or (unit is _HOUR and local.minute):
            return slot
        step = self.run_every // unit * unit
        later = slot + min(end - slot, _DAY) // step * step
        return later if later.astimezone(self.tz).utcoffset() == local.utcoffset() else slot

    def is_due(self, last_run_at: datetime) -> schedstate:
        """Whether to run now, and the seconds until the time after that, or until this one."""
        remaining = self.remaining_estimate(last_run_at)
        if remaining > _ZERO:
            return schedstate(False, remaining.total_seconds())
        return schedstate(True, self._seconds_from_now() if self.relative else self.seconds)

    @property
    def seconds(self) -> float:
        """``run_every`` in seconds."""
        return max(self.run_every.total_seconds(), 0)

    @property
    def human_seconds(self) -> str:
        """``run_every`` in words."""
        return humanize_seconds(self.seconds)

    def __repr__(self) -> str:
        return f"<freq: {self.human_seconds}>"

    def __eq__(self, other: object) -> bool:
        if isinstance(other, schedule):
            return self.run_every == other.run_every
        return self.run_every == other

    def __reduce__(self) -> tuple[Any, ...]:
        made = self.__class__, (self.run_every, self.relative, self.nowfun)
        return made if self._tz is None else (*made, {"_tz": self._tz})


def maybe_schedule(s: Any, relative: bool = False, app: Any = None) -> Any:
    """A number of seconds or a timedelta as a ``schedule``; a schedule itself, with ``app`` as its app; None as it is.

    Raises ``TypeError`` for anything else.
    """
    if s is None:
        return None
    if isinstance(s, int | float | timedelta):
        return schedule(s, relative, app=app)
    if not hasattr(s, "is_due"):
        raise TypeError(f"schedule: {s!r} is neither a schedule, nor a number of seconds, nor a timedelta")
    s.app = app
    return s
