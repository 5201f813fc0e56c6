"""When periodic tasks are due, as arithmetic. Public under the names of ``celery.schedules``.

``crontab``, ``schedule``, ``solar`` and ``clocked`` say what comes after a moment. They read no clock, do no I/O and
know no service: what is run then is the scheduler's matter.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from celeriac.schedules.base import BaseSchedule, schedstate
    from celeriac.schedules.cron import crontab
    from celeriac.schedules.daylight import solar
    from celeriac.schedules.delta import ffwd, humanize_seconds, maybe_timedelta, remaining
    from celeriac.schedules.fields import Cronspec, ParseException, crontab_parser
    from celeriac.schedules.interval import maybe_schedule, schedule
    from celeriac.schedules.oneshot import clocked

__all__ = [
    "BaseSchedule",
    "Cronspec",
    "ParseException",
    "clocked",
    "crontab",
    "crontab_parser",
    "ffwd",
    "humanize_seconds",
    "maybe_schedule",
    "maybe_timedelta",
    "remaining",
    "schedstate",
    "schedule",
    "solar",
]

#: Where the public names live. Loaded at first use: an app loads ``ambient.py`` alone, and few processes need more.
_HOMES = {
    "BaseSchedule": "base",
    "Cronspec": "fields",
    "ParseException": "fields",
    "clocked": "oneshot",
    "crontab": "cron",
    "crontab_parser": "fields",
    "ffwd": "delta",
    "humanize_seconds": "delta",
    "maybe_schedule": "interval",
    "maybe_timedelta": "delta",
    "remaining": "delta",
    "schedstate": "base",
    "schedule": "interval",
    "solar": "daylight",
}


def __getattr__(name: str) -> Any:
    from importlib import import_module

    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"{__name__}.{home}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
