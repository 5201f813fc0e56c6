"""``ScheduleEntry`` and ``Scheduler``: what schedulers written for Celery are made of, and what drives any of them.

One scheduler decides alone here: it keeps when each entry ran last, and a second one fires everything again. For that
there is ``SharedScheduler``, which has only ``tick`` in common with these. Driven by ``service.py``; knows no store.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from copy import copy
from datetime import UTC, datetime
from functools import cached_property, total_ordering
from heapq import heapify, heappop, heappush
from typing import Any, NamedTuple

from celeriac.beat.lazy import evaluated
from celeriac.codec.envelope import new_id
from celeriac.codec.escape import one_line
from celeriac.exceptions import OperationalError
from celeriac.schedules import humanize_seconds, maybe_schedule

__all__ = ["DEFAULT_MAX_INTERVAL", "ScheduleEntry", "Scheduler", "SchedulingError", "event_t"]

_log = logging.getLogger("celery.beat")

#: Seconds after which a scheduler looks again, whatever its entries say.
DEFAULT_MAX_INTERVAL = 300
#: Marks the messages of schedulers, as Celery's.
_HEADER = "celery_beat_task"
_EDITABLE = ("task", "args", "kwargs", "options", "schedule")
#: Seconds between attempts to send while the broker is away: the first, the longest.
_PAUSE, _LONGEST_PAUSE = 1.0, 30.0
_PRIORITY = 5


class SchedulingError(Exception):
    """A periodic task could not be sent."""


class _Interrupted(SchedulingError):
    """The scheduler is to be closed, and the broker is still away."""


class event_t(NamedTuple):  # noqa: N801 - Celery's name
    """A place in the heap: when, then Celery's priority, then the entry."""

    time: float
    priority: int
    entry: Any


@total_ordering
class ScheduleEntry:  # noqa: PLW1641 - as in Celery: compared, and no key
    """A periodic task, when it ran last and how often. Compared by what can be edited.

    ``last_run_at`` is when it was sent last, at first the time at which the entry was made; ``app`` tells the time.
    """

    name: Any = None
    task: Any = None
    schedule: Any = None
    args: Any = None
    kwargs: Any = None
    options: Any = None
    last_run_at: Any = None
    total_run_count: int = 0

    def __init__(
        self,
        name: Any = None,
        task: Any = None,
        last_run_at: datetime | None = None,
        total_run_count: int | None = None,
        schedule: Any = None,
        args: Any = (),
        kwargs: Any = None,
        options: Any = None,
        relative: bool = False,
        app: Any = None,
    ) -> None:
        self.app = app
        self.name = name
        self.task = task
        self.args = args
        self.kwargs = kwargs or {}
        self.options = options or {}
        self.schedule = maybe_schedule(schedule, relative, app=app)
        self.last_run_at = last_run_at or self.default_now()
        self.total_run_count = total_run_count or 0

    def default_now(self) -> datetime:
        """The time, as the schedule tells it."""
        now: datetime = self.schedule.now() if self.schedule else self.app.now()
        return now

    _default_now = default_now

    def is_due(self) -> Any:
        """Whether to run now, and in how many seconds to ask again: the schedule's ``schedstate``."""
        return self.schedule.is_due(self.last_run_at)

    def _next_instance(self, last_run_at: datetime | None = None) -> Any:
        """The entry after one more run, now unless said otherwise."""
        fields = {
            **dict(self),
            "last_run_at": last_run_at or self.default_now(),
            "total_run_count": self.total_run_count + 1,
        }
        return self.__class__(**fields)

    __next__ = next = _next_instance

    def update(self, other: Any) -> None:
        """Take over what can be edited, and nothing of when it ran."""
        vars(self).update({name: getattr(other, name) for name in _EDITABLE})

    def editable_fields_equal(self, other: Any) -> bool:
        """Same task, schedule, arguments and options."""
        return all(getattr(self, name) == getattr(other, name) for name in _EDITABLE)

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        return iter(vars(self).items())

    def __eq__(self, other: object) -> bool:
        return self.editable_fields_equal(other) if isinstance(other, ScheduleEntry) else NotImplemented

    def __lt__(self, other: object) -> bool:
        # The heap comes here when two are due at the same time: any order will do.
        return id(self) < id(other) if isinstance(other, ScheduleEntry) else NotImplemented

    def __reduce__(self) -> tuple[Any, ...]:
        made = (self.name, self.task, self.last_run_at, self.total_run_count)
        return self.__class__, (*made, self.schedule, self.args, self.kwargs, self.options)

    def __repr__(self) -> str:
        given = [repr(each) for each in self.args or ()]
        given += [f"{name}={value!r}" for name, value in (self.kwargs or {}).items()]
        return f"<{type(self).__name__}: {self.name} {self.task}({', '.join(given)}) {self.schedule}>"


class Scheduler:
    """The base of schedulers written for Celery, and one by itself: entries of ``beat_schedule``, kept in memory.

    Subclasses override ``setup_schedule``, ``schedule``, ``reserve``, ``sync`` and ``Entry``, or ``tick`` itself.
    ``lazy`` sets nothing up, for a look at the class. While the broker is away, sending waits for it: whatever
    was due is sent late, nothing is left out.
    """

    Entry: Any = ScheduleEntry
    #: Seconds between two looks, at most.
    max_interval: float = DEFAULT_MAX_INTERVAL
    #: Seconds between two calls of ``sync``, at least.
    sync_every: float = 3 * 60
    #: Tasks sent between two calls of ``sync``, at most; None or 0: by time alone.
    sync_every_tasks: int | None = None
    logger: logging.Logger = _log

    _last_sync: float | None = None
    _tasks_since_sync = 0

    def __init__(
        self,
        app: Any,
        schedule: Any = None,
        max_interval: float | None = None,
        Producer: Any = None,  # noqa: N803 - Celery's name
        lazy: bool = False,
        sync_every_tasks: int | None = None,
        **kwargs: Any,
    ) -> None:
        self.app = app
        self.data: Any = {} if schedule is None else schedule() if callable(schedule) else schedule
        self.max_interval = max_interval or app.conf.seconds("beat_max_loop_interval") or self.max_interval
        self.sync_every_tasks = app.conf.beat_sync_every if sync_every_tasks is None else sync_every_tasks
        self.Producer = Producer
        self.old_schedulers: Any = None
        self._heap: list[event_t] | None = None
        if not lazy:
            self.setup_schedule()

    # ------------------------------------------------------------ the schedule

    def get_schedule(self) -> Any:
        """For subclasses: entries by name."""
        return self.data

    def set_schedule(self, schedule: Any) -> None:
        """For subclasses: other entries."""
        self.data = schedule

    @property
    def schedule(self) -> Any:
        """Entries by name."""
        return self.get_schedule()

    @schedule.setter
    def schedule(self, schedule: Any) -> None:
        self.set_schedule(schedule)

    def setup_schedule(self) -> None:
        """Fill the schedule: entries of the settings."""
        self.install_default_entries(self.data)
        self.merge_inplace(self.app.conf.beat_schedule or {})

    def install_default_entries(self, data: Any) -> None:
        """Entries that every schedule has: none. Workers drop expired results by themselves, unlike Celery's."""
        self.update_from_dict({})

    def add(self, **kwargs: Any) -> Any:
        """Make an entry, add it, return it."""
        entry = self.Entry(app=self.app, **kwargs)
        self.schedule[entry.name] = entry
        return entry

    def update_from_dict(self, dict_: Mapping[str, Any]) -> None:
        """Add entries, or replace those of the same name; each is an entry or what makes one."""
        self.schedule.update({name: self._maybe_entry(name, entry) for name, entry in dict_.items()})

    def _maybe_entry(self, name: str, entry: Any) -> Any:
        if isinstance(entry, self.Entry):
            entry.app = self.app
            return entry
        return self.Entry(**dict(entry, name=name, app=self.app))

    def merge_inplace(self, b: Mapping[str, Any]) -> None:
        """Let the schedule have the entries of ``b`` and no others. Those that it had keep when they ran."""
        schedule: MutableMapping[str, Any] = self.schedule
        for key in set(schedule) ^ set(b):
            schedule.pop(key, None)
        for key, fields in b.items():
            entry = self.Entry(**dict(fields, name=key, app=self.app))
            if schedule.get(key):
                schedule[key].update(entry)
            else:
                schedule[key] = entry

    def schedules_equal(self, old_schedules: Any, new_schedules: Any) -> bool:
        """Same names, equal entries. None is equal to None alone."""
        if old_schedules is None or new_schedules is None:
            return old_schedules is new_schedules
        if old_schedules.keys() != new_schedules.keys():
            return False
        return all(
            new is old or (bool(new) and new == old)
            for old, new in ((old, new_schedules.get(name)) for name, old in old_schedules.items())
        )

    # ------------------------------------------------------------ time

    def is_due(self, entry: Any) -> Any:
        """As ``entry.is_due``."""
        return entry.is_due()

    def adjust(self, n: float | None, drift: float = -0.010) -> float | None:
        """Seconds to sleep, a little less than ``n``."""
        return n + drift if n and n > 0 else n

    def _when(self, entry: Any, next_time_to_run: float | None, mktime: Callable[..., float] | None = None) -> float:
        """The Unix time so many seconds after the entry's now."""
        now: datetime = entry.default_now()
        return (now if now.utcoffset() is not None else now.replace(tzinfo=UTC)).timestamp() + (
            self.adjust(next_time_to_run) or 0
        )

    def _asked(self, ask: Callable[[], Any], entry: Any) -> tuple[bool, float]:
        """What the entry says. One that fails must not hold up the others: it is asked again after a while."""
        try:
            due, seconds = ask()
        except Exception:  # schedules are the user's code
            self.logger.exception(
                "beat: cannot tell when %r is next, asking again in %s",
                one_line(entry.name), humanize_seconds(self.max_interval),
            )  # fmt: skip
            return False, self.max_interval
        return bool(due), seconds if isinstance(seconds, int | float) else self.max_interval

    def populate_heap(self) -> None:
        """Put all entries in the order of their times."""
        heap = []
        for entry in self.schedule.values():
            due, seconds = self._asked(entry.is_due, entry)
            heap.append(event_t(self._when(entry, 0 if due else seconds), _PRIORITY, entry))
        heapify(heap)
        self._heap = heap

    def tick(self) -> float | None:
        """Send one task if one is due; returns the seconds until the next call, 0 for at once."""
        if self._heap is None or not self.schedules_equal(self.old_schedulers, self.schedule):
            self.old_schedulers = copy(self.schedule)
            self.populate_heap()
        heap: Any = self._heap
        if not heap:
            return self.max_interval
        time_, priority, entry = event = heap[0]
        now = self._when(entry, 0)
        if time_ > now:
            return float(min(time_ - now, self.max_interval))
        due, seconds = self._asked(lambda: self.is_due(entry), entry)
        if not heap or heap[0] is not event:  # asking has changed the schedule
            return 0
        heappop(heap)
        if not due:
            heappush(heap, event_t(self._when(entry, seconds), priority, entry))
            return 0 if heap[0][2] is not entry else min(self.adjust(seconds) or 0, self.max_interval)
        following = self.reserve(entry)
        try:
            self.apply_entry(entry, producer=self.producer)
        except _Interrupted:  # as if it had not been asked: the next start sends it
            self.schedule[entry.name] = entry
            heappush(heap, event)
            return self.max_interval
        heappush(heap, event_t(self._when(following, seconds), priority, following))
        return 0

    def reserve(self, entry: Any) -> Any:
        """Count a run, now; returns the entry after it, which is in the schedule from then on."""
        following = self.schedule[entry.name] = next(entry)
        return following

    # ------------------------------------------------------------ sending

    def apply_entry(self, entry: Any, producer: Any = None) -> None:
        """Send the task of an entry; what fails is logged."""
        self.logger.info("Scheduler: Sending due task %s (%s)", one_line(entry.name), one_line(entry.task))
        try:
            result = self.apply_async(entry, producer=producer, advance=False)
        except _Interrupted:
            raise
        except Exception as error:  # arguments, routers and receivers are the user's code
            self.logger.exception("Message Error: %s", one_line(error))
        else:
            self.logger.debug("%s sent. id->%s", entry.task, getattr(result, "id", None))

    def apply_async(self, entry: Any, producer: Any = None, advance: bool = True, **kwargs: Any) -> Any:
        """Send the task of an entry, and count the run unless ``advance`` is off. Waits for a broker that is away.

        Raises ``SchedulingError`` with the cause.
        """
        # Counted before it is sent: what raises must not be due again at once, for ever.
        entry = self.reserve(entry) if advance else entry
        task = self.app.tasks.get(entry.task)
        try:
            args, keywords = evaluated(entry.args or (), entry.kwargs or {})
            options = {"task_id": new_id(), **(entry.options or {})}
            options["headers"] = {**(options.get("headers") or {}), _HEADER: True}
            if task:
                return self._insist(lambda: task.apply_async(args, keywords, producer=producer, **options))
            return self._insist(lambda: self.send_task(entry.task, args, keywords, producer=producer, **options))
        except _Interrupted:
            raise
        except Exception as error:
            raise SchedulingError(f"Couldn't apply scheduled task {entry.name}: {error}") from error
        finally:
            self._tasks_since_sync += 1
            if self.should_sync():
                self._do_sync()

    def send_task(self, *args: Any, **kwargs: Any) -> Any:
        """As ``app.send_task``: for tasks that this process does not know."""
        return self.app.send_task(*args, **kwargs)

    def _insist(self, send: Callable[[], Any]) -> Any:
        """``send()`` until the broker takes it, always under the same id, or until ``interrupt``."""
        pause = 0.0
        while True:
            try:
                result = send()
            except OperationalError as error:
                if not pause:
                    self.logger.error("beat: %s; trying again until it is back", one_line(error))
                pause = min(2 * pause or _PAUSE, _LONGEST_PAUSE)
                if self._interrupted.wait(pause):
                    raise _Interrupted(f"the broker is still away: {error}") from error
            else:
                if pause:
                    self.logger.info("beat: the broker is back")
                return result

    @cached_property
    def _interrupted(self) -> threading.Event:
        # Made when needed: subclasses need not call our __init__ before they send.
        return threading.Event()

    def interrupt(self) -> None:
        """End a wait for the broker, from another thread: this scheduler is to be closed."""
        self._interrupted.set()

    @cached_property
    def connection(self) -> Any:
        """None: the app has one, and looks after it."""
        return None

    @cached_property
    def producer(self) -> Any:
        """None: the app publishes by itself."""
        return None

    # ------------------------------------------------------------ keeping

    def should_sync(self) -> bool:
        """It is time to call ``sync``."""
        late = self._last_sync is None or time.monotonic() - self._last_sync > self.sync_every
        return late or bool(self.sync_every_tasks and self._tasks_since_sync >= self.sync_every_tasks)

    def _do_sync(self) -> None:
        try:
            self.logger.debug("beat: Synchronizing schedule...")
            self.sync()
        finally:
            self._last_sync = time.monotonic()
            self._tasks_since_sync = 0

    def sync(self) -> None:
        """For subclasses: write the schedule."""

    def close(self) -> None:
        """For subclasses too: write the schedule and give back what is held."""
        self.interrupt()
        self.sync()

    @property
    def info(self) -> str:
        """For subclasses: a line for the banner."""
        return ""
