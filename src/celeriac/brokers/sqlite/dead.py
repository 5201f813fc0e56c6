"""What happens to dead letters in the file: look, send again, drop, keep within bounds. Plain functions of a connection
in a transaction; how a letter gets there is in queues.py. Called by dead_port.py, broker_port.py and upkeep.py.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

from celeriac.brokers.sqlite import ledger_table
from celeriac.brokers.sqlite import queues as tables
from celeriac.brokers.sqlite.statements import statements
from celeriac.model.dead import DeadFilter, DeadPage, DeadRecord, Replay, Stayed
from celeriac.ports import AdapterOptions

__all__ = ["drop", "get", "newest", "page", "replay", "trim"]

_SQL = statements("dead.sql")
#: Most letters, and about how many bytes, that one page looks at.
_SCAN, _SCAN_BYTES = 1000, 8 * 1024 * 1024
#: Most letters that are dropped at a time for their age or size.
_CHUNK = 2000
_BEHIND_ALL = 2**63 - 1
#: Of every query for letters, behind the key.
_COLUMNS = (
    "id", "task", "queue", "reason", "detail", "exception", "traceback", "worker", "at", "crashes", "raw",
)  # fmt: skip


def newest(sqlite: sqlite3.Connection, limit: int, queue: str | None) -> list[DeadRecord]:
    """The newest letters first."""
    if queue is None:
        rows = sqlite.execute(_SQL["newest"], (limit,))
    else:
        rows = sqlite.execute(_SQL["newest_of_queue"], (queue, limit))
    return [_record(row) for row in rows]


def page(sqlite: sqlite3.Connection, wanted: DeadFilter, limit: int, after: str) -> DeadPage:
    """See ``DeadLetters.page``."""
    found: list[DeadRecord] = []
    seen = size = 0
    record: DeadRecord | None = None
    for row in sqlite.execute(_SQL["before"], (_key(after) if after else _BEHIND_ALL, _SCAN)):
        record = _record(row)
        seen, size = seen + 1, size + len(record.raw) + len(record.traceback)
        if wanted.matches(record):
            found.append(record)
        if len(found) == limit or size > _SCAN_BYTES:
            break
    else:
        if seen < _SCAN:
            record = None
    return DeadPage(records=tuple(found), after="" if record is None else record.key)


def get(sqlite: sqlite3.Connection, keys: Sequence[str]) -> list[DeadRecord | None]:
    """The letters of these keys."""
    rows = [sqlite.execute(_SQL["get"], (_key(key),)).fetchone() for key in keys]
    return [None if row is None else _record(row) for row in rows]


def replay(
    sqlite: sqlite3.Connection, replays: Sequence[Replay], prepared: Sequence[tables.Row], now: float
) -> list[Stayed]:
    """Put messages, as ``prepared``, in the place of letters; returns those of which nothing happened."""
    stayed: list[Stayed] = []
    rows: list[tables.Row] = []
    for each, row in zip(replays, prepared, strict=True):
        change, there = each.change, None
        if change is not None and sqlite.execute(_SQL["get"], (_key(each.key),)).fetchone() is not None:
            there = ledger_table.change_all(sqlite, [change], now)
        if there is not None:
            stayed.append(Stayed(each.key, False, there[0]))
        elif _drop(sqlite, each.key):
            rows.append(row)
        else:
            stayed.append(Stayed(each.key))
    if rows:
        tables.add(sqlite, rows, now)
    return stayed


def drop(sqlite: sqlite3.Connection, keys: Sequence[str]) -> int:
    """Forget letters; returns how many there were."""
    return sum([_drop(sqlite, key) for key in keys])


def trim(sqlite: sqlite3.Connection, options: AdapterOptions, now: float) -> int:
    """Drop letters that are too old, too many or too large, the oldest first, in chunks; returns how many of them were
    not too old."""
    sqlite.execute(_SQL["drop_old"], (now - options.dead_letter_expires, _CHUNK))
    surplus = sqlite.execute(_SQL["drop_surplus"], (options.dead_letter_limit,)).rowcount
    over: int = sqlite.execute(_SQL["size"]).fetchone()[0] - options.dead_letter_max_bytes
    last = None
    if over > 0:
        for key, size in sqlite.execute(_SQL["oldest_sizes"], (_CHUNK,)):
            last, over = key, over - size
            if over <= 0:
                break
    if last is not None:
        surplus += sqlite.execute(_SQL["drop_oldest"], (last,)).rowcount
    return surplus


def _drop(sqlite: sqlite3.Connection, key: str) -> bool:
    return sqlite.execute(_SQL["drop"], (_key(key),)).rowcount > 0


def _key(text: str) -> int:
    """A key as the file knows it; of a foreign text one that no letter has."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else -1


def _record(row: Sequence[Any]) -> DeadRecord:
    key, *others = row
    return DeadRecord(key=str(key), **dict(zip(_COLUMNS, others, strict=True)))
