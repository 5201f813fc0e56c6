"""``app.periodic``: look at periodic tasks, and add, change, pause, resume, delete and run them.

What is written here is in the ledger, where schedulers find it within a second. Blocking; thread-safe. The command line
(``celeriac beat list`` and its like) calls nothing else.
"""

from __future__ import annotations

import builtins
import os
import socket
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from msgspec import Struct
from msgspec.structs import replace

from celeriac.beat.due import next_slot
from celeriac.beat.entry import Entry
from celeriac.beat.hours import Hours
from celeriac.beat.lazy import evaluated
from celeriac.beat.making import NAME_HEADER, check
from celeriac.beat.pages import Pages, Record
from celeriac.beat.places import ledger_of
from celeriac.beat.seen import Seen, read_seen
from celeriac.beat.state import State, state_key
from celeriac.beat.stored import Stored
from celeriac.beat.written import Written
from celeriac.client.connections import PerProcess
from celeriac.exceptions import CeleryError
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


class Periodic:
    """The periodic tasks of an app: those of its settings, and those that are stored beside its broker.

    Raises ``ImproperlyConfigured`` where there is no ledger, ``OperationalError`` while it cannot be reached.
    """

    def __init__(self, app: Any) -> None:
        self._app = app
        self._ledger: PerProcess[BlockingLedger] = PerProcess(lambda: ledger_of(app))
        self._pages = Pages(self._ledger.get, _TIMEOUT)

    def list(self) -> builtins.list[Shown]:
        """All entries, by name."""
        self._app.loader.import_default_modules()
        ledger = self._ledger.get()
        hours = Hours(ledger)
        hours.ask()
        now = datetime.fromtimestamp(hours.now(), UTC)
        _, entries = Stored(self._app, ledger).entries()
        names = sorted(entries)
        shown = []
        for first in range(0, len(names), _PAGE):
            page = names[first : first + _PAGE]
            raws = ledger.read([state_key(name) for name in page], timeout=_TIMEOUT)
            shown += [_shown(entries[name], State.decode(raw), now) for name, raw in zip(page, raws, strict=True)]
        return shown

    def show(self, name: str) -> Shown:
        """One entry. Raises ``EntryNotFound``."""
        for each in self.list():
            if each.entry.name == name:
                return each
        raise EntryNotFound(f"there is no entry {name!r}: see `celeriac beat list`")

    def add(self, name: str, **keys: Any) -> Shown:
        """Store an entry; ``keys`` are those of ``beat_schedule``. It counts from now. Raises ``EntryRefused`` for one
        that cannot be, cannot be stored, or whose name is taken."""
        plain = self._plain(name, keys)

        def judge(record: Record | None) -> Record:
            if record is not None and record.entry is not None:
                raise EntryRefused(f"there is an entry {name!r} already: change it, or choose another name")
            return Record(entry=plain)

        self._refuse_written(name, "add")
        self._edit(name, judge)
        return self.show(name)

    def change(self, name: str, **keys: Any) -> Shown:
        """Replace some keys of a stored entry; None gives a key its default. With another schedule it counts from now.
        Raises ``EntryNotFound`` and ``EntryRefused``."""
        self._refuse_written(name, "change")

        def judge(record: Record | None) -> Record:
            if record is None or record.entry is None:
                raise EntryNotFound(f"there is no stored entry {name!r}: see `celeriac beat list`")
            wanted = {key: value for key, value in {**record.entry, **keys}.items() if value is not None}
            on = record.enabled if "enabled" not in keys else None
            return replace(record, entry=self._plain(name, wanted), enabled=on)

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
                return replace(record, entry=None) if record.enabled is not None and name in written else None
            if name in written:
                raise EntryRefused(f"entry {name!r} is in beat_schedule: take it out there, or pause it")
            raise EntryNotFound(f"there is no entry {name!r}: see `celeriac beat list`")

        self._edit(name, judge)

    def run(self, name: str) -> AsyncResult[Any]:
        """Send the task of an entry now, whatever its schedule and whether it is paused; its slots stay as they are.
        Raises ``EntryNotFound``, and what sending raises."""
        entry = self.show(name).entry
        args, kwargs = evaluated(entry.args, entry.kwargs)
        headers = {NAME_HEADER: entry.name, **(entry.options.get("headers") or {})}
        task = self._app.tasks.get(entry.task)
        options = {**entry.options, "headers": headers}
        if task is None:
            result: AsyncResult[Any] = self._app.send_task(entry.task, args, kwargs, **options)
            return result
        made: AsyncResult[Any] = task.apply_async(args, kwargs, **options)
        return made

    def schedulers(self) -> Mapping[str, Seen]:
        """The schedulers that were heard of in the last half minute, by host and process id."""
        ledger = self._ledger.get()
        hours = Hours(ledger)
        hours.ask()
        return read_seen(ledger, hours.now(), timeout=_TIMEOUT)

    def close(self) -> None:
        """Give the connection back."""
        self._ledger.close()

    # ------------------------------------------------------------ how

    def _written(self) -> Mapping[str, Entry]:
        self._app.loader.import_default_modules()
        return Written(self._app).entries()[1]

    def _refuse_written(self, name: str, what: str) -> None:
        if name in self._written():
            raise EntryRefused(
                f"cannot {what} entry {name!r}: beat_schedule has it, and only a deploy changes that; it can be paused"
            )

    def _plain(self, name: str, keys: Mapping[str, Any]) -> dict[str, Any]:
        """An entry as it is stored. Raises ``EntryRefused``."""
        try:
            entry = Entry.of(name, keys, self._app, stored=True)
            plain = entry.to_json()
            check(self._app, entry)
        except (TypeError, ValueError, CeleryError) as error:
            raise EntryRefused(str(error)) from error
        return plain

    def _switch(self, name: str, on: bool) -> Shown:
        written = self._written()

        def judge(record: Record | None) -> Record:
            if (record is None or record.entry is None) and name not in written:
                raise EntryNotFound(f"there is no entry {name!r}: see `celeriac beat list`")
            return replace(record or Record(), enabled=on)

        self._edit(name, judge)
        return self.show(name)

    def _edit(self, name: str, judge: Any) -> None:
        self._pages.edit(name, judge, by=f"{socket.gethostname()}:{os.getpid()}")


def _shown(entry: Entry, state: State | None, now: datetime) -> Shown:
    if state is None:
        return Shown(entry=entry, next_run=next_slot(entry, now) if entry.enabled else None)
    known = state.fingerprint == entry.fingerprint
    following = (next_slot(entry, state.slot) if known else next_slot(entry, now)) if entry.enabled else None
    return Shown(
        entry=entry,
        last_slot=state.slot if state.id else None,
        last_run=datetime.fromtimestamp(state.at, UTC) if state.id else None,
        last_id=state.id,
        count=state.count,
        next_run=following,
        overdue=known and following is not None and (now - following).total_seconds() > OVERDUE,
    )
