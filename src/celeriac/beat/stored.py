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
from celeriac.beat.pages import Pages, Record, Unreadable, record_of, records_of
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
    """The entry that came of a record, as it stands there, and of the settings' entry of that name."""

    raw: bytes
    written: Entry | None
    entry: Entry | None


class Stored:
    """See ``Book``. ``ledger`` is asked; ``monotonic`` says when."""

    every = LOOK

    def __init__(self, app: Any, ledger: BlockingLedger, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._app = app
        self._written = Written(app)
        self._pages = Pages(lambda: ledger, _TIMEOUT)
        self._monotonic = monotonic
        self._bodies: Sequence[bytes | None] = ()
        # An edit costs what its page holds, not all there is.
        self._raws: dict[int, Mapping[str, bytes]] = {}
        self._made: dict[str, _Made] = {}
        self._looked = self._read_at = monotonic()
        self._told: set[str] = set()

    def entries(self) -> tuple[Any, Mapping[str, Entry]]:
        """See ``Book``. What cannot be read in the store is told and passed over."""
        written, known = self._written.entries()
        token, bodies = self._pages.read()
        self._looked = self._read_at = self._monotonic()
        entries = dict(known)
        made: dict[str, _Made] = {}
        for number, body in enumerate(bodies):
            if number not in self._raws or body != self._bodies[number]:
                self._raws[number] = self._parts(body)
            for name, raw in self._raws[number].items():
                each, own = self._made.get(name), known.get(name)
                if each is None or each.raw != raw or each.written is not own:
                    each = _Made(raw, own, self._read(name, raw, own))
                made[name] = each
                if each.entry is not None:
                    entries[name] = each.entry
        self._bodies, self._made = bodies, made
        return (written, token), entries

    def entry(self, name: str) -> Entry | None:
        """One entry; None: there is none, or it cannot be read. Raises ``Unreadable``."""
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

    def _parts(self, body: bytes | None) -> Mapping[str, bytes]:
        try:
            return {name: bytes(raw) for name, raw in records_of(body).items()}
        except Unreadable as error:
            self._tell("", f"Stored entries are passed over: {error}")
            return {}

    def _read(self, name: str, raw: bytes, written: Entry | None) -> Entry | None:
        try:
            return self._of(name, record_of(raw), written)
        except Unreadable as error:
            self._tell(name, f"Stored entry {one_line(name)!r} is passed over: {error}")
            return written

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
                    check(self._app, entry)
                except (TypeError, ValueError, OverflowError, CeleryError) as error:
                    self._tell(name, f"Stored entry {one_line(name)!r} is passed over: {one_line(str(error))}")
                    return None
        if entry is None:
            return None
        since = None if record.since is None else datetime.fromtimestamp(record.since, UTC)
        return replace(entry, enabled=entry.enabled if record.enabled is None else record.enabled, since=since)

    def _tell(self, name: str, text: str) -> None:
        if f"{name}: {text}" not in self._told:
            self._told.add(f"{name}: {text}")
            logger.error("beat: %s", text)
