"""What a file needs now and then: expired leases, due messages, old dead letters, free pages, its log.

Plain functions of a connection in a transaction, in chunks that hold the lock for a few milliseconds. Any number of
maintainers may run them at once. broker_port.py calls them aside of its event loop, publisher_port.py some of them.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from datetime import tzinfo

from celeriac.brokers.sqlite.queues import SQL, drop, move_due, numbers, push_front, token
from celeriac.brokers.sqlite.stages import drop_old
from celeriac.brokers.sqlite.statements import statements
from celeriac.codec import envelope
from celeriac.model.leases import after_lost_lease
from celeriac.ports import STAGE_EXPIRES, AdapterOptions, DeadRecord, Depth

__all__ = [
    "PURGE_CHUNK",
    "RESTORE_CHUNK",
    "bury",
    "checkpoint",
    "dead",
    "depth",
    "next_times",
    "purge",
    "restore",
    "shrink",
]

_BUS = statements("bus.sql")
RESTORE_CHUNK = 500
PURGE_CHUNK = 2000
#: Rows that the bus keeps at most.
BUS_LIMIT = 10_000
#: Pages of the log (4 KiB each) beyond which writers are held up until it starts anew.
_LOG_LIMIT = 16_000
#: Free pages that are kept for reuse, and that one step gives back to the file system.
_SPARE_PAGES = 16_000
_SHRINK_PAGES = 2000


def restore(sqlite: sqlite3.Connection, boot: int, uptime: float, zone: tzinfo) -> list[str]:
    """Make up to ``RESTORE_CHUNK`` messages ready whose lease ran out; returns their queues, one entry each."""
    lanes: dict[tuple[str, int], list[tuple[int, int]]] = {}
    for claim, key, queue, level, raw, held in sqlite.execute(SQL["expired"], (boot, uptime, RESTORE_CHUNK)).fetchall():
        delivery = envelope.delivery(raw, token=token("", claim, key), queue=queue, zone=zone)
        marks = after_lost_lease(delivery.marks, alone=held == 1)
        sqlite.execute(SQL["rewrite"], (envelope.remark(delivery, marks), key))
        sqlite.execute(SQL["end_leases"], (claim, numbers((key,))))
        lanes.setdefault((queue, level), []).append((key, 1))
    for (queue, level), entries in lanes.items():
        push_front(sqlite, queue, level, entries)
    return [queue for (queue, _), entries in lanes.items() for _ in entries]


def ripen(sqlite: sqlite3.Connection, now: float) -> list[str]:
    """Make due messages ready, up to a thousand of each queue; returns the queues that got some."""
    due = [queue for queue, time in sqlite.execute(SQL["next_dues"]).fetchall() if time <= now]
    return [queue for queue in due if move_due(sqlite, queue, now)]


def next_times(sqlite: sqlite3.Connection) -> tuple[float | None, float | None]:
    """When the next scheduled message is due, and the next lease ends."""
    dues = [time for _, time in sqlite.execute(SQL["next_dues"])]
    return min(dues, default=None), sqlite.execute(SQL["next_expiry"]).fetchone()[0]


def bury(sqlite: sqlite3.Connection, options: AdapterOptions, now: float) -> None:
    """Drop dead letters that are too old or too many, sends that were never completed, what the bus no longer needs."""
    sqlite.execute(SQL["drop_old_dead"], (now - options.dead_letter_expires, PURGE_CHUNK))
    sqlite.execute(SQL["drop_surplus_dead"], (options.dead_letter_limit,))
    drop_old(sqlite, now - STAGE_EXPIRES)
    sqlite.execute(_BUS["drop_old"], (now, BUS_LIMIT))


def shrink(sqlite: sqlite3.Connection) -> None:
    """Give free pages back to the file system when most of a big file is free; in small steps."""
    free = sqlite.execute("PRAGMA freelist_count").fetchone()[0]
    if free > _SPARE_PAGES and free * 2 > sqlite.execute("PRAGMA page_count").fetchone()[0]:
        # execute() would do one step, which is one page.
        sqlite.executescript(f"PRAGMA incremental_vacuum({_SHRINK_PAGES})")


def checkpoint(sqlite: sqlite3.Connection) -> None:
    """Copy the log into the file. When writers leave no gap for it to start anew, hold them up once."""
    _, pages, _ = sqlite.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
    if pages > _LOG_LIMIT:
        sqlite.execute("PRAGMA busy_timeout = 100")
        try:
            sqlite.execute("PRAGMA wal_checkpoint(RESTART)").fetchone()
        finally:
            sqlite.execute("PRAGMA busy_timeout = 0")


def depth(sqlite: sqlite3.Connection, queues: Sequence[str], now: float) -> dict[str, Depth]:
    """How full each queue is."""
    found = {}
    for queue in queues:
        ready, scheduled, leased, dead, oldest = sqlite.execute(SQL["depth"], (queue,)).fetchone()
        found[queue] = Depth(
            ready=ready,
            scheduled=scheduled,
            leased=leased,
            dead=dead,
            oldest=None if oldest is None else max(0.0, now - oldest),
        )
    return found


def purge(sqlite: sqlite3.Connection, queue: str) -> int:
    """Drop up to ``PURGE_CHUNK`` ready or scheduled messages; returns how many. 0: none is left."""
    rows = sqlite.execute(SQL["ready"], (queue, PURGE_CHUNK)).fetchall()
    if rows:
        sqlite.execute(SQL["drop_ready"], (queue, *rows[-1][:3]))
        ids = [row[2] for row in rows]
    else:
        rows = sqlite.execute(SQL["due"], (queue, float("inf"), PURGE_CHUNK)).fetchall()
        if rows:
            sqlite.execute(SQL["drop_due"], (queue, rows[-1][0], rows[-1][1]))
        ids = [row[1] for row in rows]
    drop(sqlite, ids)
    return len(ids)


def dead(sqlite: sqlite3.Connection, limit: int, queue: str | None) -> list[DeadRecord]:
    """The newest dead letters."""
    if queue is None:
        rows = sqlite.execute(SQL["dead"], (limit,))
    else:
        rows = sqlite.execute(SQL["dead_of_queue"], (queue, limit))
    return [
        DeadRecord(
            key=str(row[0]),
            id=row[1],
            task=row[2],
            queue=row[3],
            reason=row[4],
            detail=row[5],
            exception=row[6],
            traceback=row[7],
            worker=row[8],
            at=row[9],
            crashes=row[10],
            raw=row[11],
        )
        for row in rows.fetchall()
    ]
