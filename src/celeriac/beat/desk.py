"""``app.periodic``: look at periodic tasks, and add, change, pause, resume, delete and run them.

What is written here is in the ledger, where schedulers find it within a second. Blocking; thread-safe. The command line
(``celeriac beat list`` and its like) calls nothing else.
"""

from __future__ import annotations

import builtins
import os
import socket
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from msgspec import Struct
from msgspec.structs import replace

from celeriac.beat.choose import scheduler_class
from celeriac.beat.due import due, next_slot
from celeriac.beat.entry import Entry
from celeriac.beat.hours import Hours
from celeriac.beat.making import check
from celeriac.beat.now import send_now
from celeriac.beat.pages import Judge, Pages, Record, Unreadable
from celeriac.beat.places import ledger_of
from celeriac.beat.scheduler import SharedScheduler
from celeriac.beat.seen import Seen, read_seen
from celeriac.beat.state import State, state_key
from celeriac.beat.stored import Stored
from celeriac.beat.track import counted_from
from celeriac.beat.written import Written
from celeriac.client.connections import PerProcess
from celeriac.exceptions import CeleryError, ImproperlyConfigured
from celeriac.ports import BlockingLedger
from celeriac.result import AsyncResult

__all__ = ["EntryNotFound", "EntryRefused", "Periodic", "Shown"]

_TIMEOUT: Final = 10.0
#: Seconds after which an entry that has not been sent counts as overdue.
OVERDUE: Final = 10.0
#: Keys that are read in one call.
_PAGE: Final = 1000


class EntryNotFound(CeleryError, LookupError):
    """No entry has that name."""


class EntryRefused(CeleryError, ValueError):
    """The entry cannot be so, or cannot be changed here."""


class Shown(Struct, frozen=True, kw_only=True):
    """An entry, and what became of it so far."""

    entry: Entry
    #: The slot that was sent last, when that was, and the id of its task; None and empty: none was.
    last_slot: datetime | None = None
    last_run: datetime | None = None
    last_id: str = ""
    #: Tasks sent so far.
    count: int = 0
    #: When it is due; None: it is paused, it is over, or nobody can say.
    next_run: datetime | None = None
    #: It was due for more than ten seconds, and nobody has sent it.
    overdue: bool = False


class Survey(NamedTuple):
    """All entries by name; and what is stored and passed over: why, and what to do, by name."""

    entries: Sequence[Shown]
    passed_over: Mapping[str, str]


class Periodic:
    """The periodic tasks of an app: those of its settings, and those that are stored beside its broker.

    Raises ``ImproperlyConfigured`` where there is no ledger or ``beat_scheduler`` is another one than ours,
    ``OperationalError`` while the ledger cannot be reached.
    """

    def __init__(self, app: Any) -> None:
        self._app = app
        self._ledger: PerProcess[BlockingLedger] = PerProcess(self._opened)
        self._pages = Pages(self._ledger.get, _TIMEOUT)

    def list(self) -> builtins.list[Shown]:
        """All entries, by name."""
        return [*self.survey().entries]

    def survey(self) -> Survey:
        """All entries, and what is stored that cannot be one: written by hand, by a newer version, or for another app;
        or with a name that the settings have, too."""
        self._app.loader.import_default_modules()
        ledger = self._ledger.get()
        now = datetime.fromtimestamp(self._now(), UTC)
        stored = Stored(self._app, ledger, log=False)
        _, entries = stored.entries()
        names = sorted(entries)
        shown: list[Shown] = []
        for first in range(0, len(names), _PAGE):
            page = names[first : first + _PAGE]
            raws = ledger.read([state_key(name) for name in page], timeout=_TIMEOUT)
            states = map(State.decode, raws)
            shown += [
                _shown(entries[name], state, now, self._deadline) for name, state in zip(page, states, strict=True)
            ]
        return Survey(shown, stored.passed_over)

    def show(self, name: str) -> Shown:
        """One entry. Raises ``EntryNotFound``; ``EntryRefused`` for what is stored and cannot be one."""
        self._app.loader.import_default_modules()
        ledger = self._ledger.get()
        try:
            entry = Stored(self._app, ledger).entry(name)
        except Unreadable as error:
            raise EntryRefused(str(error)) from error
        if entry is None:
            raise _not_found(name)
        (raw,) = ledger.read([state_key(name)], timeout=_TIMEOUT)
        return _shown(entry, State.decode(raw), datetime.fromtimestamp(self._now(), UTC), self._deadline)

    def add(self, name: str, **keys: Any) -> Shown:
        """Store an entry; ``keys`` are those of ``beat_schedule``. It counts from now. Raises ``EntryRefused`` for one
        that cannot be, cannot be stored, is never due, or whose name is taken."""
        now = self._now()
        plain = self._plain(name, keys, now)

        def judge(record: Record | None) -> Record:
            if record is not None and record.entry is not None:
                raise EntryRefused(f"there is an entry {name!r} already: change it, or choose another name")
            return Record(entry=plain, since=now)

        self._refuse_written(name, "add")
        self._edit(name, judge)
        return self.show(name)

    def change(self, name: str, **keys: Any) -> Shown:
        """Replace some keys of a stored entry; None gives a key its default. With another schedule it counts from now.
        Raises ``EntryNotFound`` and ``EntryRefused``."""
        self._refuse_written(name, "change")
        now = self._now()

        def judge(record: Record | None) -> Record:
            if record is None or record.entry is None:
                raise EntryNotFound(f"there is no stored entry {name!r}: see `celeriac beat list`")
            wanted = {key: value for key, value in {**record.entry, **keys}.items() if value is not None}
            plain = self._plain(name, wanted, now if "schedule" in keys else None)
            made = Record(entry=plain, enabled=record.enabled if "enabled" not in keys else None)
            begins = _times(made) != _times(record) or _is_on(made, None) != _is_on(record, None)
            return replace(made, since=now if begins else record.since)

        self._edit(name, judge)
        return self.show(name)

    def pause(self, name: str) -> Shown:
        """Send an entry no more, until it is resumed. Raises ``EntryNotFound``."""
        return self._switch(name, False)

    def resume(self, name: str) -> Shown:
        """Send an entry again, counting from now. Raises ``EntryNotFound``."""
        return self._switch(name, True)

    def delete(self, name: str) -> None:
        """Forget a stored entry. Raises ``EntryNotFound``, ``EntryRefused`` for one of the settings."""
        written = self._written()

        def judge(record: Record | None) -> Record | None:
            if record is not None and record.entry is not None:
                # A pause that somebody wished counts for the settings' entry, which has been in its place.
                return replace(record, entry=None) if record.enabled is not None and name in written else None
            if name in written:
                raise EntryRefused(f"entry {name!r} is in beat_schedule: take it out there, or pause it")
            raise _not_found(name)

        self._edit(name, judge, unreadable=Record(entry={}))

    def run(self, name: str, *, force: bool = False) -> AsyncResult[Any]:
        """Send the task of an entry now, whatever its schedule and whether it is paused; its slots stay as they are.

        Its ``overlap`` counts, unless ``force``: with "skip" it raises ``EntryRuns`` while a run goes on, with "queue"
        it starts behind that one. Raises as ``show``, and what sending raises."""
        return send_now(self._app, self.show(name).entry, self._now(), force=force)

    def schedulers(self) -> Mapping[str, Seen]:
        """The schedulers that were heard of in the last half minute, by host and process id."""
        return read_seen(self._ledger.get(), self._now(), timeout=_TIMEOUT)

    def close(self) -> None:
        """Give the connection back."""
        self._ledger.close()

    # ------------------------------------------------------------ how

    def _opened(self) -> BlockingLedger:
        kind = scheduler_class(self._app.conf.beat_scheduler)
        if not (isinstance(kind, type) and issubclass(kind, SharedScheduler)):
            raise ImproperlyConfigured(
                f"beat_scheduler is {kind.__module__}:{kind.__qualname__}, which keeps its entries elsewhere: what is "
                "seen and edited here is celeriac.beat:SharedScheduler's"
            )
        return ledger_of(self._app)

    def _now(self) -> float:
        """The time by which schedulers count."""
        hours = Hours(self._ledger.get())
        hours.ask()
        return hours.now()

    @property
    def _deadline(self) -> float | None:
        deadline: float | None = self._app.conf.seconds("beat_cron_starting_deadline")
        return deadline

    def _written(self) -> Mapping[str, Entry]:
        self._app.loader.import_default_modules()
        return Written(self._app).entries()[1]

    def _refuse_written(self, name: str, what: str) -> None:
        if name in self._written():
            raise EntryRefused(
                f"cannot {what} entry {name!r}: beat_schedule has it, and only a deploy changes that; it can be paused"
            )

    def _plain(self, name: str, keys: Mapping[str, Any], begin: float | None) -> dict[str, Any]:
        """An entry as it is stored; it has to be due some time after ``begin``. Raises ``EntryRefused``."""
        try:
            entry = Entry.of(name, keys, self._app, stored=True)
            plain = entry.to_json()
            check(self._app, entry)
        except (TypeError, ValueError, OverflowError, CeleryError) as error:
            raise EntryRefused(str(error)) from error
        if begin is not None and next_slot(entry, datetime.fromtimestamp(begin, UTC)) is None:
            raise EntryRefused(f"entry {name!r}: schedule: {entry.schedule!r} is never due: its time is over")
        return plain

    def _switch(self, name: str, on: bool) -> Shown:
        own, now = self._written().get(name), self._now()

        def judge(record: Record | None) -> Record:
            if (record is None or record.entry is None) and own is None:
                raise _not_found(name)
            record = record or Record()
            begins = on != _is_on(record, own)  # paused, too: of two edits it shows which is the later
            return replace(record, enabled=on, since=now if begins else record.since)

        self._edit(name, judge)
        return self.show(name)

    def _edit(self, name: str, judge: Judge, unreadable: Record | None = None) -> None:
        try:
            self._pages.edit(name, judge, by=f"{socket.gethostname()}:{os.getpid()}", unreadable=unreadable)
        except Unreadable as error:
            raise EntryRefused(str(error)) from error


def _shown(entry: Entry, state: State | None, now: datetime, deadline: float | None) -> Shown:
    following = None
    if entry.enabled:
        known = state is not None and state.fingerprint == entry.fingerprint
        begin = state.slot if state is not None and known else counted_from(entry, state, now)
        begin = begin if entry.since is None else max(begin, entry.since)
        try:
            found = due(entry, begin, now, deadline)
            if found.slots or found.next is not None:  # else it is over: what was missed is too old, or not caught up
                following = next_slot(entry, begin)
        except Exception:  # noqa: BLE001 - a schedule of the user's own: the schedulers' logs say what is wrong with it
            pass
    shown = Shown(
        entry=entry,
        next_run=following,
        overdue=following is not None and (now - following).total_seconds() > OVERDUE,
    )
    if state is None or not state.id:
        return shown
    at = datetime.fromtimestamp(state.at, UTC)
    return replace(shown, last_slot=state.slot, last_run=at, last_id=state.id, count=state.count)


def _times(record: Record) -> Any:
    return None if record.entry is None else record.entry.get("schedule")


def _is_on(record: Record, written: Entry | None) -> bool:
    """Whether the entry is sent, as far as a record and the settings say."""
    if record.enabled is not None:
        return record.enabled
    if written is not None:
        return written.enabled
    return record.entry is None or record.entry.get("enabled", True) is True


def _not_found(name: str) -> EntryNotFound:
    return EntryNotFound(f"there is no entry {name!r}: see `celeriac beat list`")
