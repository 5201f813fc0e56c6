"""Beat: what sends periodic tasks when they are due, any number of schedulers together, each slot once.

Loaded by schedulers alone: an app with periodic tasks has their settings, and nothing of this. Public names come from
here; where they live is this package's matter.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from celeriac.beat.desk import EntryNotFound, EntryRefused, Periodic
    from celeriac.beat.entry import Entry
    from celeriac.beat.interface import DEFAULT_MAX_INTERVAL, ScheduleEntry, Scheduler, SchedulingError
    from celeriac.beat.lazy import BeatLazyFunc
    from celeriac.beat.loop import Service
    from celeriac.beat.persistent import PersistentScheduler
    from celeriac.beat.scheduler import SharedScheduler

__all__ = [
    "DEFAULT_MAX_INTERVAL",
    "BeatLazyFunc",
    "Entry",
    "EntryNotFound",
    "EntryRefused",
    "Periodic",
    "PersistentScheduler",
    "ScheduleEntry",
    "Scheduler",
    "SchedulingError",
    "Service",
    "SharedScheduler",
]

#: Where the public names live; loaded at first use.
_HOMES = {
    "BeatLazyFunc": "lazy",
    "DEFAULT_MAX_INTERVAL": "interface",
    "Entry": "entry",
    "EntryNotFound": "desk",
    "EntryRefused": "desk",
    "Periodic": "desk",
    "PersistentScheduler": "persistent",
    "ScheduleEntry": "interface",
    "Scheduler": "interface",
    "SchedulingError": "interface",
    "Service": "loop",
    "SharedScheduler": "scheduler",
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
