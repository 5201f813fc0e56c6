"""The entries of the settings and those of the store, as one book.

An entry of the settings is the deploy's: the store can pause it and let it go on, nothing else. A stored entry with the
name of one in the settings is passed over, and that is said. Blocking; read by schedulers, and by ``desk.py``.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from msgspec.structs import replace

from celeriac.beat.entry import Entry
from celeriac.beat.pages import Pages, Record, Unreadable, record_of, records_of
from celeriac.beat.written import Written
from celeriac.codec.escape import one_line
from celeriac.ports import BlockingLedger

__all__ = ["LOOK", "Stored"]

logger = logging.getLogger("celery.beat")

#: Seconds between two looks whether an entry was edited, and between two at the pages themselves: an editor may have
#: been killed before it could say so.
LOOK: Final = 1.0
_ALL: Final = 60.0
_TIMEOUT: Final = 5.0


class Stored:
    """See ``Book``. ``ledger`` is asked; ``monotonic`` says when."""

    every = LOOK

    def __init__(self, app: Any, ledger: BlockingLedger, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._app = app
        self._written = Written(app)
        self._pages = Pages(lambda: ledger, _TIMEOUT)
        self._monotonic = monotonic
        self._bodies: Sequence[bytes | None] = ()
        self._looked = self._read_at = monotonic()
        self._told: set[str] = set()

    def entries(self) -> tuple[Any, Mapping[str, Entry]]:
        """See ``Book``. What cannot be read in the store is told and passed over."""
        written, known = self._written.entries()
        token, self._bodies = self._pages.read()
        self._looked = self._read_at = self._monotonic()
        entries = dict(known)
        for body in self._bodies:
            for name, record in self._records(body).items():
                entry = self._of(name, record, known.get(name))
                if entry is not None:
                    entries[name] = entry
        return (written, token), entries

    def changed(self, epoch: Any) -> bool:
        """See ``Book``."""
        written, token = epoch
        if self._written.changed(written):
            return True
        now = self._monotonic()
        if now < self._looked + LOOK:
            return False
        self._looked = now
        if self._pages.epoch() != token:
            return True
        if now < self._read_at + _ALL:
            return False
        self._read_at = now
        return list(self._pages.read()[1]) != list(self._bodies)

    def _records(self, body: bytes | None) -> Mapping[str, Record]:
        records = {}
        try:
            for name, raw in records_of(body).items():
                try:
                    records[name] = record_of(raw)
                except Unreadable as error:
                    self._tell(name, f"Stored entry {one_line(name)!r} is passed over: {error}")
        except Unreadable as error:
            self._tell("", f"Stored entries are passed over: {error}")
        return records

    def _of(self, name: str, record: Record, written: Entry | None) -> Entry | None:
        """What a record makes of an entry; None: nothing."""
        entry = written
        if record.entry is not None:
            if written is not None:
                self._tell(
                    name,
                    f"Stored entry {one_line(name)!r} is passed over: beat_schedule has one of that name; "
                    "`celeriac beat delete` forgets the stored one",
                )
            else:
                try:
                    entry = Entry.from_json(name, record.entry, self._app)
                except (TypeError, ValueError) as error:
                    self._tell(name, f"Stored entry {one_line(name)!r} is passed over: {one_line(str(error))}")
        if entry is None or record.enabled is None:
            return entry
        return replace(entry, enabled=record.enabled)

    def _tell(self, name: str, text: str) -> None:
        if f"{name}: {text}" not in self._told:
            self._told.add(f"{name}: {text}")
            logger.error("beat: %s", text)
