"""``clocked``: once, at a time of its own, under django-celery-beat's name. Knows no clock."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, tzinfo
from typing import Any

from celeriac.schedules.base import NEVER, BaseSchedule, aware, schedstate

__all__ = ["clocked"]


class clocked(BaseSchedule):  # noqa: N801 - django-celery-beat's name
    """Once, at ``clocked_time``; a naive one is in ``tz``, else in UTC. A run at or after that time was the one."""

    def __init__(
        self,
        clocked_time: datetime,
        nowfun: Callable[[], datetime] | None = None,
        app: Any = None,
        *,
        tz: str | tzinfo | None = None,
    ) -> None:
        if not isinstance(clocked_time, datetime):
            raise TypeError(f"clocked_time: {clocked_time!r} is no datetime")
        super().__init__(nowfun=nowfun, app=app, tz=tz)
        if clocked_time.utcoffset() is None:
            clocked_time = clocked_time.replace(tzinfo=self._tz or UTC)
        self.clocked_time = clocked_time

    def next_after(self, moment: datetime) -> datetime | None:
        """The time itself, as long as it is to come."""
        slot = self.clocked_time.astimezone(UTC)
        return slot if aware(moment).astimezone(UTC) < slot else None

    def is_due(self, last_run_at: datetime | None) -> schedstate:
        """Whether to run now, and the seconds until then; a very long time where it is over. None: it never ran."""
        slot = self.clocked_time.astimezone(UTC)
        if last_run_at is not None and self.maybe_make_aware(last_run_at).astimezone(UTC) >= slot:
            return schedstate(False, NEVER.total_seconds())
        remaining = (slot - self.maybe_make_aware(self.now()).astimezone(UTC)).total_seconds()
        return schedstate(True, NEVER.total_seconds()) if remaining <= 0 else schedstate(False, remaining)

    def __repr__(self) -> str:
        return f"<clocked: {self.clocked_time}>"

    def __eq__(self, other: object) -> bool:
        if isinstance(other, clocked):
            return self.clocked_time == other.clocked_time
        return NotImplemented

    def __reduce__(self) -> tuple[Any, ...]:
        return self.__class__, (self.clocked_time, self.nowfun)
