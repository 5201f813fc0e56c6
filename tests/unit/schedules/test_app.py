"""Whose schedules are: the app given, the current one, or nobody's."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

import celeriac.schedules
from celeriac import current_app
from celeriac.schedules import crontab, schedule

NOON = datetime(2026, 7, 1, 12, tzinfo=UTC)


def test_the_current_app_tells_the_time_and_the_zone(make_app: Callable[..., Any]) -> None:
    previous = current_app._get_current_object()
    app = make_app(NOON, timezone="Europe/Oslo")
    app.set_current()
    try:
        assert crontab().app is app
        assert schedule(60).now() == NOON
        assert str(crontab().tz) == "Europe/Oslo"
    finally:
        previous.set_current()


def test_without_any_app_times_are_in_utc() -> None:
    script = (
        "from datetime import *; from celeriac.schedules import crontab\n"
        "cron = crontab(0, 9)\n"
        "print(cron.next_after(datetime(2026, 7, 1, 12, tzinfo=UTC)))\n"
        "try: cron.is_due(datetime(2026, 7, 1, 12, tzinfo=UTC))\n"
        "except RuntimeError as error: print(error)\n"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert ran.stdout.splitlines() == [
        "2026-07-02 09:00:00+00:00",
        "the schedule has no app and no nowfun to tell the time: create celeriac.Celery(...) first",
    ]


def test_public_names() -> None:
    assert set(celeriac.schedules._HOMES) == set(celeriac.schedules.__all__)
    for name in celeriac.schedules.__all__:
        assert getattr(celeriac.schedules, name) is not None
    assert set(celeriac.schedules.__all__) <= set(dir(celeriac.schedules))
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        assert celeriac.schedules.nothing
