"""What the conformance suite cannot see of chords in a file: clocks, restarts, the cost of members, what is left."""

from __future__ import annotations

import sqlite3
from typing import Any

import pytest

from celeriac.brokers.sqlite import chords
from celeriac.brokers.sqlite.boot import Moment
from celeriac.model.chord import Closing, Gathered
from celeriac.ports import CHORD_DONE, CHORD_LOOK
from celeriac.testing.conformance.chords import chord, part, value

TABLES = ("chord", "chord_text", "part")


def at(seconds: float, *, boot: int = 7, jump: float = 0.0, wait: float = 10.0) -> Moment:
    return Moment(now=1e9 + seconds + jump, uptime=1000.0 + seconds, boot=boot, wait=wait)


def complete(tables: sqlite3.Connection, *names: str, moment: Moment, token: str = "t") -> None:
    chords.open_all(tables, [chord(1, name) for name in names], moment)
    assert chords.join(tables, [part(0, name) for name in names], token, moment) == list(names)


def looked(tables: sqlite3.Connection, moment: Moment, limit: int = 10) -> list[str]:
    return chords.look(tables, "s", limit, moment) if chords.is_due(tables, moment) else []


def rows(tables: sqlite3.Connection) -> list[int]:
    return [tables.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in TABLES]


@pytest.mark.parametrize(
    ("name", "arguments"), [("find", 1), ("parts", 1), ("text", 1), ("is_leased", 2), ("due", 3), ("due_and_over", 4)]
)
def test_nothing_is_scanned_or_sorted(tables: sqlite3.Connection, name: str, arguments: int) -> None:
    plan = tables.execute(f"EXPLAIN QUERY PLAN {chords.SQL[name]}", (0,) * arguments).fetchall()
    steps = [row[3] for row in plan if not row[3].startswith(("COMPOUND", "LEFT-MOST", "UNION"))]
    assert steps
    assert all(step.startswith("SEARCH") for step in steps), steps


def test_a_transaction_reads_and_writes_a_chord_once(tables: sqlite3.Connection) -> None:
    chords.open_all(tables, [chord(1000)], at(0))
    said: list[str] = []
    tables.set_trace_callback(said.append)
    chords.join(tables, [part(index) for index in range(100)], "t", at(1))
    tables.set_trace_callback(None)
    verbs = [statement.split()[0] for statement in said]
    assert (verbs.count("SELECT"), verbs.count("UPDATE"), verbs.count("INSERT")) == (1, 1, 100)


def test_looks_and_late_members_go_by_time(tables: sqlite3.Connection) -> None:
    complete(tables, "done", moment=at(0))
    assert chords.close(tables, Closing("done", "t"), at(0))
    chords.open_all(tables, [chord(2)], at(0))
    assert not chords.is_due(tables, at(9))
    assert looked(tables, at(10)) == []
    assert chords.join(tables, [part(0)], "t", at(11)) == []
    assert not chords.is_due(tables, at(10 + CHORD_LOOK - 1)), "an incomplete one is looked at every CHORD_LOOK seconds"
    assert looked(tables, at(10 + CHORD_LOOK)) == []
    assert chords.join(tables, [part(1)], "t", at(50)) == ["c"]
    assert looked(tables, at(59)) == []
    assert looked(tables, at(60)) == ["c"]
    late = CHORD_DONE - 1
    chords.join(tables, [part(0, "done")], "t", at(late))
    assert tables.execute("SELECT joined FROM chord WHERE id = 'done'").fetchone() == (0,)
    chords.join(tables, [part(0, "done")], "t", at(late + 2))
    assert tables.execute("SELECT joined FROM chord WHERE id = 'done'").fetchone() == (1,)


def test_a_clock_that_jumps_ends_no_token(tables: sqlite3.Connection) -> None:
    complete(tables, "c", moment=at(0))
    for jump in (3000.0, -3000.0):
        assert chords.join(tables, [part(0)], "other", at(9, jump=jump)) == []
        assert not chords.is_due(tables, at(9, jump=jump))
    assert looked(tables, at(10, jump=-3000.0)) == ["c"]


def test_after_a_restart_every_token_is_free(tables: sqlite3.Connection) -> None:
    complete(tables, "a", "b", "c", moment=at(0))
    chords.open_all(tables, [chord(2, "d")], at(0))
    early = at(-900, boot=3)
    assert not chords.close(tables, Closing("a", "t"), early), "its holder ended with the machine"
    assert chords.join(tables, [part(0, "b")], "other", early) == ["b"]
    assert sorted(looked(tables, early)) == ["a", "c"]
    assert not chords.is_due(tables, at(-895, boot=3))
    assert chords.join(tables, [part(0, "d"), part(1, "d")], "other", at(-895, boot=3)) == ["d"]


def test_texts_that_are_not_unicode_spoil_nothing(tables: sqlite3.Connection) -> None:
    odd = "x\ud800"
    chords.open_all(tables, [chord(2, odd)], at(0))
    parts = [part(0, odd, member=odd), part(0, "x\\ud800", member=odd), part(1, odd, member=odd)]
    assert chords.join(tables, parts, odd, at(0)) == [odd, "x\\ud800"]
    found = chords.lent(tables, odd, odd)
    assert found is not None
    assert list(found.parts) == [value(0), value(1)]
    assert chords.close(tables, Closing(odd, odd), at(0))


@pytest.mark.parametrize("index", [2**62, 2**64, 10**30, -1, -(10**30)])
def test_any_place_is_kept(tables: sqlite3.Connection, index: int) -> None:
    chords.open_all(tables, [chord(4)], at(0))
    chords.join(tables, [part(None), part(index), part(index), part(0), part(1)], "t", at(0))
    found = chords.lent(tables, "c", "t")
    assert found is not None
    places = sorted([0, 1, index])
    assert list(found.parts) == [*map(value, places), value(None)]


@pytest.mark.parametrize("token", ["", "nonsense", "a:b:c", "w:-1:-1", f"w:{10**30}:1", f"w:1:{10**30}"])
def test_a_token_that_is_no_lease_goes_by_its_time(tables: sqlite3.Connection, token: str) -> None:
    complete(tables, "c", moment=at(0), token=token)
    assert chords.join(tables, [part(0)], "other", at(9)) == []
    assert chords.join(tables, [part(0)], "other", at(10)) == ["c"]


def test_nothing_is_left(tables: sqlite3.Connection) -> None:
    complete(tables, "closed", moment=at(0))
    assert rows(tables) == [1, 1, 1]
    assert chords.close(tables, Closing("closed", "t"), at(0))
    assert rows(tables) == [1, 0, 0], "who is done is only remembered"
    chords.open_all(tables, [chord(2, "again", expires=50.0)], at(0))
    chords.join(tables, [part(0, "again", expires=50.0)], "t", at(0))
    chords.open_all(tables, [chord(1, "again", expires=50.0)], at(0))
    chords.grow(tables, "grown", 1, at(0))
    chords.join(tables, [part(0, "nobody's", expires=50.0), part(0, "unknown", body=b"")], "t", at(0))
    assert rows(tables) == [4, 2, 1]
    assert chords.sweep(tables, at(49)) == 0
    assert chords.sweep(tables, at(51)) == 2
    assert rows(tables) == [2, 0, 0]
    assert chords.sweep(tables, at(CHORD_DONE + 1)) == 1
    assert chords.sweep(tables, at(90_000)) == 1
    assert rows(tables) == [0, 0, 0]


def test_an_expired_chord_is_dropped_by_whoever_meets_it(tables: sqlite3.Connection) -> None:
    short: dict[str, Any] = {"expires": 5.0}
    chords.open_all(tables, [chord(3, name, **short) for name in ("joined", "looked")], at(0))
    chords.join(tables, [part(0, "joined", **short), part(0, "looked", **short)], "t", at(0))
    chords.join(tables, [part(1, "joined", **short)], "t", at(6))
    assert rows(tables) == [2, 2, 2]
    assert tables.execute("SELECT size, joined FROM chord WHERE id = 'joined'").fetchone() == (None, 1)
    assert looked(tables, at(6)) == []
    assert rows(tables) == [1, 1, 1]


def test_upkeep_goes_in_chunks(tables: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chords, "LOOK_CHUNK", 4)
    monkeypatch.setattr(chords, "DROP_CHUNK", 5)
    names = [f"c-{number}" for number in range(6)]
    chords.open_all(tables, [chord(3, name, expires=100.0) for name in names], at(0))
    chords.join(tables, [part(index, name, expires=100.0) for name in names for index in (0, 1)], "t", at(0))
    assert looked(tables, at(10)) == []
    assert chords.is_due(tables, at(10)), "two are left"
    assert looked(tables, at(10)) == []
    assert not chords.is_due(tables, at(10)), "none is left"
    assert [chords.sweep(tables, at(101)) for _ in range(4)] == [2, 2, 2, 0]
    assert rows(tables) == [0, 0, 0]


def test_who_is_not_the_holder_is_lent_nothing(tables: sqlite3.Connection) -> None:
    assert chords.lent(tables, "c", "t") is None
    complete(tables, "c", moment=at(0))
    assert chords.lent(tables, "c", "other") is None
    assert chords.lent(tables, "c", "t") == Gathered(
        chord="c", token="t", parts=[value(0)], body=chord(1).body, shape=b""
    )
    chords.grow(tables, "c", 1, at(0))
    assert chords.lent(tables, "c", "t") is None, "it is incomplete again"
    assert not chords.renew(tables, "c", "t", at(0))
