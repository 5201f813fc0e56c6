"""Result records inside the file: put, get, forget, sweep. Plain functions of a connection in a transaction.

A record is never looked for before it is written: it is appended, and readers take the newest of its id, but a SUCCESS
is not hidden by a later record that is not terminal. How they are found: results.sql.
"""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Iterable, Sequence

from celeriac.brokers.sqlite.queues import numbers
from celeriac.brokers.sqlite.statements import statements
from celeriac.model.settle import StoredResult

__all__ = ["SWEEP_CHUNK", "find", "forget", "last", "put", "sweep", "written_since"]

SQL = statements("results.sql")
_SHIFT = 13  # 8192 records a bucket; also in results.sql
_SUCCESS = (b'{"status":"SUCCESS"', b'{"status": "SUCCESS"')
#: Records that one sweeping transaction drops at most.
SWEEP_CHUNK = 2000


def _hash(task_id: str) -> int:
    return zlib.crc32(task_id.encode("utf-8", "surrogatepass"))


def put(sqlite: sqlite3.Connection, records: Sequence[StoredResult], now: float) -> None:
    """Write records, in order."""
    wanted: dict[str, StoredResult] = {}
    for record in records:
        if record.terminal or record.id not in wanted or not wanted[record.id].body.startswith(_SUCCESS):
            wanted[record.id] = record
    newest = last(sqlite)
    hashes = {task_id: _hash(task_id) for task_id in wanted}
    _replace(sqlite, newest >> _SHIFT, wanted, hashes, now)
    if not wanted:
        return
    rows = [
        (seq, not record.terminal, None if record.expires is None else now + record.expires, record.id, record.body)
        for seq, record in enumerate(wanted.values(), newest + 1)
    ]
    sqlite.executemany(SQL["add"], rows)
    sqlite.execute(SQL["add_findings"], (newest + 1, numbers(hashes[task_id] for task_id in wanted)))
    end = rows[-1][0]
    earliest = min((row[2] for row in rows if row[2] is not None), default=None)
    for bucket in range((newest + 1) >> _SHIFT, (end >> _SHIFT) + 1):
        sqlite.execute(SQL["note_bucket"], (bucket, min(end, ((bucket + 1) << _SHIFT) - 1), earliest))


def _replace(
    sqlite: sqlite3.Connection, bucket: int, wanted: dict[str, StoredResult], hashes: dict[str, int], now: float
) -> None:
    """Drop what is about to be replaced, in the newest bucket only: a state and its successor are mostly both in it.
    Takes out of ``wanted`` what must not replace a SUCCESS there."""
    found = sqlite.execute(SQL["in_bucket"], (bucket, numbers(hashes.values()))).fetchall()
    for seq, task_id, expires, body in found:
        record = wanted.get(task_id)
        if record is None:
            continue
        lives = expires is None or expires > now
        if lives and not record.terminal and body.startswith(_SUCCESS):
            del wanted[task_id]
        else:
            _drop(sqlite, [(seq, hashes[task_id])])


def find(sqlite: sqlite3.Connection, task_id: str, now: float) -> tuple[bytes, bool] | None:
    """The record of an id and whether it is terminal, or None."""
    newest: bytes | None = None
    rows = sqlite.execute(SQL["find"], (_hash(task_id), task_id))
    try:
        for _, weak, expires, body in rows:
            if expires is not None and expires <= now:
                continue
            if not weak:
                return (body, True) if newest is None or body.startswith(_SUCCESS) else (newest, False)
            if newest is None:
                newest = body
    finally:
        rows.close()
    return None if newest is None else (newest, False)


def last(sqlite: sqlite3.Connection) -> int:
    """The number of the record written last."""
    row = sqlite.execute(SQL["last"]).fetchone()
    return int(row[0]) if row is not None else 0


def written_since(sqlite: sqlite3.Connection, seq: int) -> list[tuple[int, str]]:
    """Number and id of the records after ``seq``, at most 10,000 of them."""
    return sqlite.execute(SQL["written_since"], (seq,)).fetchall()


def forget(sqlite: sqlite3.Connection, ids: Iterable[str]) -> None:
    """Drop all records of these ids."""
    for task_id in ids:
        digest = _hash(task_id)
        seqs = [row[0] for row in sqlite.execute(SQL["find"], (digest, task_id)).fetchall()]
        _drop(sqlite, [(seq, digest) for seq in seqs])


def _drop(sqlite: sqlite3.Connection, found: list[tuple[int, int]]) -> None:
    if found:
        sqlite.execute(SQL["drop"], (numbers(seq for seq, _ in found),))
        sqlite.executemany(SQL["drop_finding"], [(seq >> _SHIFT, digest, seq) for seq, digest in found])


def sweep(sqlite: sqlite3.Connection, now: float) -> int:
    """Drop up to ``SWEEP_CHUNK`` expired records; returns how many. 0: none is left."""
    for (bucket,) in sqlite.execute(SQL["buckets_expired"], (now,)).fetchall():
        first, end = bucket << _SHIFT, ((bucket + 1) << _SHIFT) - 1
        rows = sqlite.execute(SQL["expired"], (first, end, now, SWEEP_CHUNK)).fetchall()
        _drop(sqlite, [(seq, _hash(task_id)) for seq, task_id in rows])
        if len(rows) < SWEEP_CHUNK:
            sqlite.execute(SQL["refresh_bucket"], (first, end, bucket))
        if rows:
            return len(rows)
    sqlite.execute(SQL["drop_empty_buckets"])
    return 0
