"""The ledger in the file: small values, each with a life time. Plain functions of a connection in a transaction.

They do not read clocks. The ports and finishing.py call them; their statements are in ledger.sql.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence

from celeriac.brokers.sqlite.statements import statements
from celeriac.model.ledger import ANY, Change, Lock

__all__ = ["change", "change_all", "free", "read", "sweep"]

_SQL = statements("ledger.sql")
_SWEEP_CHUNK = 2000


def read(sqlite: sqlite3.Connection, keys: Iterable[str], now: float) -> list[bytes | None]:
    """What stands under each key."""
    return [_find(sqlite, key, now) for key in keys]


def _find(sqlite: sqlite3.Connection, key: str, now: float) -> bytes | None:
    row = sqlite.execute(_SQL["read"], (key, now)).fetchone()
    return None if row is None else row[0]


def _allows(sqlite: sqlite3.Connection, wanted: Change, now: float) -> bool:
    return wanted.expected is ANY or _find(sqlite, wanted.key, now) == wanted.expected


def _make(sqlite: sqlite3.Connection, wanted: Change, now: float) -> None:
    if wanted.value is None:
        sqlite.execute(_SQL["drop"], (wanted.key,))
    else:
        expires = None if wanted.expires is None else now + wanted.expires
        sqlite.execute(_SQL["write"], (wanted.key, wanted.value, expires))


def change(sqlite: sqlite3.Connection, changes: Sequence[Change], now: float) -> list[bool]:
    """Make those changes that are allowed, in order; for each whether it was made."""
    made = []
    for wanted in changes:
        allowed = _allows(sqlite, wanted, now)
        if allowed:
            _make(sqlite, wanted, now)
        made.append(allowed)
    return made


def change_all(sqlite: sqlite3.Connection, changes: Sequence[Change], now: float) -> list[bytes | None] | None:
    """Make all changes, or none of them and say what stands under the keys."""
    if not all(_allows(sqlite, wanted, now) for wanted in changes):
        return read(sqlite, [wanted.key for wanted in changes], now)
    for wanted in changes:
        _make(sqlite, wanted, now)
    return None


def free(sqlite: sqlite3.Connection, locks: Iterable[Lock]) -> None:
    """Drop locks that their tasks still hold."""
    keys = [(lock.key, lock.waiting, lock.started) for lock in locks]
    if keys:
        sqlite.executemany(_SQL["free"], keys)


def sweep(sqlite: sqlite3.Connection, now: float) -> None:
    """Forget some of what is over."""
    sqlite.execute(_SQL["drop_expired"], (now, _SWEEP_CHUNK))
