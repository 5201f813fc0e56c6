"""Sends of more messages than one transaction should write: put aside in several, made ready in one.

Plain functions of a connection in a transaction; the statements are in stages.sql.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from celeriac.brokers.sqlite.queues import SQL, Row
from celeriac.brokers.sqlite.statements import statements

__all__ = ["drop_old", "launch", "stage"]

_STAGES = statements("stages.sql")


def stage(sqlite: sqlite3.Connection, name: str, rows: Sequence[Row], now: float) -> None:
    """Store messages that nobody can claim."""
    last: int = sqlite.execute(SQL["last_id"]).fetchone()[0] or 0
    numbered = list(enumerate(rows, last + 1))
    sqlite.executemany(SQL["add_message"], [(key, row[0], row[1], now, row[3]) for key, row in numbered])
    sqlite.executemany(_STAGES["add"], [(name, key, row[0], row[1], row[2]) for key, row in numbered])


def launch(sqlite: sqlite3.Connection, name: str, count: int, now: float) -> list[str] | None:
    """Make a stage ready or scheduled; returns its queues, or None when it does not hold ``count`` messages."""
    if sqlite.execute(_STAGES["count"], (name,)).fetchone()[0] != count:
        return None
    queues = [row[0] for row in sqlite.execute(_STAGES["queues"], (name,))]
    sqlite.execute(_STAGES["ready"], (name, now))
    sqlite.execute(_STAGES["schedule"], (name, now))
    sqlite.execute(_STAGES["drop"], (name,))
    return queues


def drop_old(sqlite: sqlite3.Connection, before: float) -> None:
    """Forget a stage whose producer put nothing aside since that moment: it died."""
    row = sqlite.execute(_STAGES["old"], (before,)).fetchone()
    if row is not None:
        sqlite.execute(_STAGES["drop_messages"], row)
        sqlite.execute(_STAGES["drop"], row)
