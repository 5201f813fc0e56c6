"""The entries of the settings and those of the store, as one book.

An entry of the settings is the deploy's: the store can pause it and let it go on, nothing else. A stored entry with the
name of one in the settings is passed over, and that is said. Blocking; read by schedulers, and by ``desk.py``.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from msgspec.structs import replace

from celeriac.beat.entry import Entry
from celeriac.beat.making import check
from celeriac.beat.pages import KEYS, Pages, Record, Unreadable, record_of, records_of
from celeriac.beat.written import Written
from celeriac.codec.escape import one_line
from celeriac.exceptions import CeleryError
from celeriac.ports import BlockingLedger

__all__ = ["LOOK", "Stored"]

logger = logging.getLogger("celery.beat")

#: Seconds between two looks whether an entry was edited, and between two at the pages themselves: an editor may have
#: been killed before it could say so.
LOOK: Final = 1.0
_ALL: Final = 60.0
_TIMEOUT: Final = 5.0


class _Made(NamedTuple):
    """The entry that came of a record, as it stands there, and of the settings' entry of that name; and why nothing
    came of the record, or nothing."""

    raw: bytes
    written: Entry | None
    entry: Entry | None
    why: str


class Stored:
    """See ``Book``. ``ledger`` is asked; ``monotonic`` says when; ``log``: what is passed over is logged."""

    every = LOOK

    def __init__(
        self, app: Any, ledger: BlockingLedger, monotonic: Callable[[], float] = time.monotonic, *, log: bool = True
    ) -> None:
        self._app = app
        self._written = Written(app)
        self._pages = Pages(lambda: ledger, _TIMEOUT)
        self._monotonic = monotonic
        self._log = log
        self._bodies: Sequence[bytes | None] = ()
        # An edit costs what its page holds, not all there is.
        self._raws: dict[int, Mapping[str, bytes]] = {}
        self._made: dict[str, _Made] = {}
        self._looked = self._read_at = monotonic()
        #: What is stored and passed over: why, and what to do, by name (by key for a page that cannot be read).
        self.passed_over: Mapping[str, str] = {}

    def entries(self) -> tuple[Any, Mapping[str, Entry]]:
        """See ``Book``. What cannot be read in the store is told and passed over."""
        written, known = self._written.entries()
        token, bodies = self._pages.read()
        self._looked = self._read_at = self._monotonic()
        entries = dict(known)
        made: dict[str, _Made] = {}
        passed_over: dict[str, str] = {}
        for number, body in enumerate(bodies):
            if not self._raws.get(number) or body != self._bodies[number]:
                try:
                    records = records_of(body, KEYS[number])
                except Unreadable as error:
                    records, passed_over[error.name] = {}, error.why
                self._raws[number] = {name: bytes(raw) for name, raw in records.items()}
            for name, raw in self._raws[number].items():
                each, own = self._made.get(name), known.get(name)
                if each is None or each.raw != raw or each.written is not own:
                    each = self._read(name, raw, own)
                made[name] = each
                if each.entry is not None:
                    entries[name] = each.entry
                if each.why:
                    passed_over[name] = each.why
        self._bodies, self._made = bodies, made
        self._tell(passed_over)
        return (written, token), entries

    def entry(self, name: str) -> Entry | None:
        """One entry; None: there is none. Raises ``Unreadable`` for what cannot be one."""
        own = self._written.entries()[1].get(name)
        record = self._pages.get(name)
        return own if record is None else self._of(name, record, own)

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

    def _read(self, name: str, raw: bytes, written: Entry | None) -> _Made:
        try:
            record = record_of(name, raw)
            twice = record.entry is not None and written is not None
            why = Unreadable.entry(name, "beat_schedule has one of that name").why if twice else ""
            return _Made(raw, written, self._of(name, record, written), why)
        except Unreadable as error:
            return _Made(raw, written, written, error.why)

    def _of(self, name: str, record: Record, written: Entry | None) -> Entry | None:
        """What a record makes of an entry, that of the settings where there is one; None: nothing. Raises
        ``Unreadable``."""
        entry = written
        if record.entry is not None and written is None:
            try:
                entry = Entry.from_json(name, record.entry, self._app)
                check(self._app, entry)
            except (TypeError, ValueError, OverflowError, CeleryError) as error:
                raise Unreadable.entry(name, one_line(str(error))) from error
        if entry is None:
            return None
        since = None if record.since is None else datetime.fromtimestamp(record.since, UTC)
        return replace(entry, enabled=entry.enabled if record.enabled is None else record.enabled, since=since)

    def _tell(self, passed_over: Mapping[str, str]) -> None:
        """Once of each, and again when it is another reason, or was mended meanwhile."""
        for name, why in passed_over.items():
            if self._log and self.passed_over.get(name) != why:
                logger.error("beat: %s", Unreadable(name, why))
        self.passed_over = passed_over
