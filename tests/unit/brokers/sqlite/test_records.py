from __future__ import annotations

import sqlite3

import pytest

from celeriac.brokers.sqlite import records
from celeriac.model.settle import StoredResult

BUCKET = 8192


def record(task_id: str, state: str, expires: float | None = 60.0) -> StoredResult:
    body = f'{{"status": "{state}", "task_id": "{task_id}"}}'.encode()
    return StoredResult(task_id, body, state in {"SUCCESS", "FAILURE"}, expires)


def start_bucket(tables: sqlite3.Connection, number: int) -> None:
    """From now on records go into this bucket."""
    tables.execute("INSERT INTO bucket (number, last) VALUES (?, ?)", (number, number * BUCKET))


def state(tables: sqlite3.Connection, task_id: str, now: float = 1.0) -> str | None:
    found = records.find(tables, task_id, now)
    return None if found is None else found[0].split(b'"')[3].decode()


@pytest.mark.parametrize("apart", [False, True], ids=["one bucket", "two buckets"])
@pytest.mark.parametrize(
    ("first", "second", "seen"),
    [
        ("STARTED", "SUCCESS", "SUCCESS"),
        ("SUCCESS", "STARTED", "SUCCESS"),
        ("SUCCESS", "FAILURE", "FAILURE"),
        ("FAILURE", "STARTED", "STARTED"),
        ("STARTED", "RETRY", "RETRY"),
        ("FAILURE", "SUCCESS", "SUCCESS"),
    ],
)
def test_the_newest_counts_but_success_stays(
    tables: sqlite3.Connection, first: str, second: str, seen: str, apart: bool
) -> None:
    records.put(tables, [record("a", first)], 0.0)
    if apart:
        start_bucket(tables, 3)
    records.put(tables, [record("a", second)], 0.0)
    assert state(tables, "a") == seen
    records.forget(tables, ["a"])
    assert state(tables, "a") is None


def test_progress_does_not_pile_up(tables: sqlite3.Connection) -> None:
    for _ in range(50):
        records.put(tables, [record("a", "PROGRESS")], 0.0)
    assert tables.execute("SELECT count(*) FROM result").fetchone() == (1,)
    assert tables.execute("SELECT count(*) FROM finding").fetchone() == (1,)


def test_an_expired_success_hides_nothing(tables: sqlite3.Connection) -> None:
    records.put(tables, [record("a", "SUCCESS", 1.0)], 0.0)
    records.put(tables, [record("a", "STARTED", 60.0)], 5.0)
    assert state(tables, "a", 6.0) == "STARTED"


def test_equal_hashes_are_told_apart(tables: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "_hash", lambda task_id: 1)
    records.put(tables, [record("a", "SUCCESS"), record("b", "FAILURE")], 0.0)
    records.put(tables, [record("b", "STARTED")], 0.0)
    assert (state(tables, "a"), state(tables, "b"), state(tables, "c")) == ("SUCCESS", "STARTED", None)
    records.forget(tables, ["a"])
    assert (state(tables, "a"), state(tables, "b")) == (None, "STARTED")


def test_a_forgotten_newest_record_gives_its_number_to_nobody(tables: sqlite3.Connection) -> None:
    records.put(tables, [record("a", "SUCCESS")], 0.0)
    seen = records.last(tables)
    records.forget(tables, ["a"])
    records.put(tables, [record("b", "SUCCESS")], 0.0)
    assert [task_id for _, task_id in records.written_since(tables, seen)] == ["b"]


def test_sweeping_goes_in_chunks_and_leaves_nothing(
    tables: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records, "SWEEP_CHUNK", 1500)
    tables.execute("BEGIN")
    records.put(tables, [record(f"short-{number}", "SUCCESS", 5.0) for number in range(9000)], 0.0)
    records.put(tables, [record("ever", "SUCCESS", None), record("long", "SUCCESS", 100.0)], 0.0)
    assert records.sweep(tables, 4.0) == 0
    dropped = []
    while count := records.sweep(tables, 6.0):
        dropped.append(count)
    assert sum(dropped) == 9000
    assert max(dropped) <= 1500
    assert (state(tables, "ever", 6.0), state(tables, "long", 6.0)) == ("SUCCESS", "SUCCESS")
    for table in ("result", "finding"):
        assert tables.execute(f"SELECT count(*) FROM {table}").fetchone() == (2,)
    assert tables.execute("SELECT count(*) FROM bucket").fetchone() == (1,)


def test_finding_is_a_search_in_each_bucket_newest_first(tables: sqlite3.Connection) -> None:
    plan = [row[3] for row in tables.execute(f"EXPLAIN QUERY PLAN {records.SQL['find']}", (0, "a"))]
    assert len(plan) == 3
    assert plan[0] == "SCAN bucket"
    assert plan[1].startswith("SEARCH finding USING")
    assert plan[2].startswith("SEARCH result USING INTEGER PRIMARY KEY")
