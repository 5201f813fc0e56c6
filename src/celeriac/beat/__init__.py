"""Beat: what sends periodic tasks when they are due, any number of schedulers together, each slot once.

Loaded by schedulers and by ``app.periodic``: an app with periodic tasks has their settings, and nothing of this. Public
names come from here; where they live is this package's matter.
"""

from __future__ import annotations

from celeriac.beat.desk import EntryNotFound, EntryRefused, Periodic
from celeriac.beat.entry import Entry
from celeriac.beat.interface import DEFAULT_MAX_INTERVAL, ScheduleEntry, Scheduler, SchedulingError
from celeriac.beat.lazy import BeatLazyFunc
from celeriac.beat.loop import Service
from celeriac.beat.now import EntryRuns
from celeriac.beat.persistent import PersistentScheduler
from celeriac.beat.scheduler import SharedScheduler

__all__ = [
    "DEFAULT_MAX_INTERVAL",
    "BeatLazyFunc",
    "Entry",
    "EntryNotFound",
    "EntryRefused",
    "EntryRuns",
    "Periodic",
    "PersistentScheduler",
    "ScheduleEntry",
    "Scheduler",
    "SchedulingError",
    "Service",
    "SharedScheduler",
]
