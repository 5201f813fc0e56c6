"""Lengths of time: ffwd, remaining, and how they are written."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from celeriac.schedules import ambient, ffwd, humanize_seconds, maybe_timedelta, remaining

NOW = datetime(2026, 11, 30, 12, 30, tzinfo=UTC)


def test_ffwd() -> None:
    assert NOW + ffwd(hour=3, minute=0) == datetime(2026, 11, 30, 3, 0, tzinfo=UTC)
    assert NOW + ffwd(month=2, day=31) == datetime(2026, 2, 28, 12, 30, tzinfo=UTC)
    assert NOW + ffwd(weekday=2) == NOW + timedelta(days=2)
    assert NOW + ffwd(weekday=0, weeks=1) == NOW + timedelta(days=7)
    assert date(2026, 11, 30) + ffwd(year=2028) == date(2028, 11, 30)
    assert repr(ffwd(hour=3, weeks=1, weekday=0)) == "ffwd(hour=3, weeks=1, weekday=0)"
    with pytest.raises(TypeError):
        _ = 5 + ffwd()  # type: ignore[operator]


def test_remaining() -> None:
    assert remaining(NOW, timedelta(minutes=1), NOW) == timedelta(minutes=1)
    assert remaining(NOW, timedelta(minutes=1), NOW + timedelta(minutes=3)) == timedelta(minutes=-2)
    assert remaining(NOW, timedelta(hours=1), NOW, relative=True) == timedelta(minutes=30)
    oslo = datetime(2026, 3, 28, 12, tzinfo=ZoneInfo("Europe/Oslo"))
    assert remaining(oslo, timedelta(days=1), oslo) == timedelta(days=1)
    assert remaining(oslo, ffwd(day=29), oslo) == timedelta(hours=23)


def test_now_is_that_of_the_current_app(monkeypatch: pytest.MonkeyPatch) -> None:
    class App:
        def now(self) -> datetime:
            return NOW

    monkeypatch.setattr(ambient, "_getter", App)
    assert remaining(NOW, timedelta(minutes=1)) == timedelta(minutes=1)
    monkeypatch.setattr(ambient, "_getter", None)
    with pytest.raises(RuntimeError, match="no app and no nowfun"):
        remaining(NOW, timedelta(minutes=1))


def test_in_words() -> None:
    assert humanize_seconds(4, prefix="in ", sep="") == "in 4.00 seconds"
    assert humanize_seconds(0.2) == "now"
    assert humanize_seconds(0.2, microseconds=True) == "0.20 seconds"
    assert humanize_seconds(172_800) == "2.00 days"
    assert maybe_timedelta(3) == timedelta(seconds=3)
    assert maybe_timedelta(None) is None
