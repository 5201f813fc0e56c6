"""What is kept of entries in the store: records, on a fixed number of pages in the ledger; and the epoch of changes.

A page is one value, so that an edit is one compare-and-set: of two editors none loses anything, and one that is killed
has changed all or nothing. The epoch is written after it: readers look at that alone, and at the pages once in a while
for the sake of an editor that was killed between. Knows no settings and no schedules. Used by ``stored.py`` and
``desk.py``.
"""

from __future__ import annotations

import logging
import shlex
import time
from collections.abc import Callable, Sequence
from random import random
from typing import Any, Final, Self
from zlib import crc32

import msgspec
from msgspec import Raw, Struct

from celeriac.codec.envelope import new_id
from celeriac.codec.escape import one_line
from celeriac.exceptions import CeleryError, OperationalError
from celeriac.model.ledger import Change
from celeriac.ports import BlockingLedger

__all__ = ["KEYS", "Pages", "Record", "Unreadable", "page_of", "record_of", "records_of"]

logger = logging.getLogger("celery.beat")

#: Key of a token that each change replaces.
EPOCH: Final = "beat:epoch"
#: 10,000 entries are 150 a page then, some 20 kB. Never change it: names are found by it.
PAGES: Final = 64
#: Edits of one page that may come before this one while it tries.
_TRIES: Final = 100
KEYS: Final = tuple(f"beat:page:{number}" for number in range(PAGES))


class Record(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What the store has under a name: an entry of its own, or what is said of one of the settings."""

    #: As ``Entry.to_json`` writes it; None: the entry is one of the settings.
    entry: dict[str, Any] | None = None
    #: On or off, whatever the entry says; None: as it says.
    enabled: bool | None = None
    #: When it was added, got this schedule or was resumed, by the ledger's clock: what was due before is none of its.
    since: float | None = None
    #: Who changed it last, and when.
    by: str = ""
    at: float = 0.0
    #: Another one with each change.
    edit: str = ""


class Unreadable(CeleryError):
    """What is stored under a name cannot be an entry here: ``why``, and what to do."""

    def __init__(self, name: str, why: str) -> None:
        super().__init__(f"Stored entry {one_line(name)!r} is passed over: {why}")
        self.name = name
        self.why = why

    @classmethod
    def entry(cls, name: str, why: str) -> Self:
        """Of one entry, which can be deleted."""
        return cls(name, f"{why}; `celeriac beat delete {shlex.quote(one_line(name))}` forgets it")


Page = dict[str, Raw]
Judge = Callable[[Record | None], Record | None]

_page_decoder: msgspec.json.Decoder[Page] = msgspec.json.Decoder(Page)
_record_decoder: msgspec.json.Decoder[Record] = msgspec.json.Decoder(Record)


def page_of(name: str) -> int:
    """The number of the page that has a name's record."""
    return crc32(name.encode("utf-8", "surrogatepass")) % PAGES


def records_of(body: bytes | None, key: str) -> Page:
    """The records of the page ``key``, undecoded. Raises ``Unreadable``."""
    if body is None:
        return {}
    try:
        return _page_decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Unreadable(
            key, f"the whole page cannot be read ({error}): remove this key of the ledger, to go on without its entries"
        ) from error


def record_of(name: str, raw: Raw | bytes) -> Record:
    """A record. Raises ``Unreadable``."""
    try:
        return _record_decoder.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Unreadable.entry(name, f"it cannot be read ({error})") from error


class Pages:
    """The pages of one ledger. All raise ``OperationalError`` when it cannot be reached within ``timeout`` seconds."""

    def __init__(self, ledger: Callable[[], BlockingLedger], timeout: float) -> None:
        self._ledger = ledger
        self._timeout = timeout

    def epoch(self) -> str:
        """The token of the last change, "" before the first."""
        return _text(self._ledger().read([EPOCH], timeout=self._timeout)[0])

    def read(self) -> tuple[str, Sequence[bytes | None]]:
        """The epoch and all pages. The epoch is the older of both: what changes meanwhile is seen by the next look."""
        epoch = self.epoch()
        return epoch, self._ledger().read(KEYS, timeout=self._timeout)

    def get(self, name: str) -> Record | None:
        """The record of a name. Raises ``Unreadable``."""
        key = KEYS[page_of(name)]
        raw = records_of(self._ledger().read([key], timeout=self._timeout)[0], key).get(name)
        return None if raw is None else record_of(name, raw)

    def edit(self, name: str, judge: Judge, by: str = "", *, unreadable: Record | None = None) -> Record | None:
        """Put what ``judge`` makes of a name's record in its place (None: nothing), and return it. ``judge`` is asked
        again when somebody else was faster, and may raise. Raises ``Unreadable``, unless there is something that a
        record counts as that is ``unreadable``."""
        key = KEYS[page_of(name)]
        for attempt in range(_TRIES):
            there = self._ledger().read([key], timeout=self._timeout)[0]
            page = records_of(there, key)
            raw = page.get(name)
            try:
                before = None if raw is None else record_of(name, raw)
            except Unreadable:
                if unreadable is None:
                    raise
                before = unreadable
            record = judge(before)
            if record is None and raw is None:
                return None
            if record is None:
                del page[name]
            else:
                record = msgspec.structs.replace(record, by=by, at=time.time(), edit=new_id())
                page[name] = Raw(msgspec.json.encode(record))
            body = msgspec.json.encode(page, order="sorted") if page else None
            if self._written(Change(key, body, there)):
                self._announce(name)
                return record
            if attempt:
                time.sleep(random() * 0.002 * min(attempt, 10))
        raise OperationalError(
            f"{one_line(name, 80)!r} is not changed: others changed its page {_TRIES} times meanwhile"
        )

    def _written(self, change: Change) -> bool:
        """Whether it was written, also where only the answer was lost: no two edits of a page are equal."""
        try:
            return self._ledger().change([change], timeout=self._timeout)[0]
        except OperationalError as error:
            if not error.uncertain:
                raise
            try:
                there = self._ledger().read([change.key], timeout=self._timeout)[0]
            except OperationalError:
                raise error from None
            if there == change.value:
                return True
            raise

    def _announce(self, name: str) -> None:
        try:
            self._ledger().change([Change(EPOCH, new_id().encode())], timeout=self._timeout)
        except OperationalError as error:
            logger.warning(
                "The change of %r is stored, but schedulers hear of it only within a minute: %s", one_line(name), error
            )


def _text(value: bytes | None) -> str:
    return "" if value is None else value.decode("utf-8", "replace")
