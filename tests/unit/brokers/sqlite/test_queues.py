from __future__ import annotations

import sqlite3
import time
from datetime import UTC

import pytest

from celeriac.brokers.sqlite import queues, upkeep
from celeriac.brokers.sqlite.queues import Claim


def claim(number: int = 1) -> Claim:
    return Claim(number=number, owner="w", until=100.0, boot=7)


def fill(tables: sqlite3.Connection, *texts: str, queue: str = "q", step: int = 0, due: float | None = None) -> None:
    queues.add(tables, [(queue, step, due, text.encode()) for text in texts], 10.0)


def taken(tables: sqlite3.Connection, *names: str, limit: int = 100, now: float = 10.0) -> list[str]:
    rows, _ = queues.take(tables, names or ("q",), limit, claim(), now)
    return [text.decode() for _, _, text in rows]


@pytest.mark.parametrize(("priority", "step"), [(0, 0), (2, 0), (3, 3), (8, 6), (9, 9), (10, 9), (255, 9), (-1, 0)])
def test_priorities_are_rounded_down_to_steps(priority: int, step: int) -> None:
    assert queues.step(priority) == step


def test_due_ones_go_first_the_earliest_first(tables: sqlite3.Connection) -> None:
    fill(tables, "a")
    fill(tables, "late", due=12.0)
    fill(tables, "early", due=11.0)
    assert queues.glance(tables, ["q"]) == (True, 11.0, 0)
    assert taken(tables, limit=1, now=11.5) == ["early"]
    assert taken(tables, now=13.0) == ["late", "a"]


def test_a_claim_with_gaps_keeps_its_order(tables: sqlite3.Connection) -> None:
    for text, step in (("a", 3), ("b", 0), ("c", 3), ("d", 0)):
        fill(tables, text, step=step)
    assert taken(tables) == ["b", "d", "a", "c"]


def test_take_says_whether_there_is_more(tables: sqlite3.Connection) -> None:
    fill(tables, "a", "b", "c")
    assert queues.take(tables, ["q"], 2, claim(1), 10.0)[1]
    assert not queues.take(tables, ["q"], 1, claim(2), 10.0)[1]


def test_a_suspect_is_lent_alone(tables: sqlite3.Connection) -> None:
    fill(tables, "a", "b", "c")
    tables.execute("UPDATE ready SET alone = 1 WHERE id = 2")
    assert [taken(tables) for _ in range(4)] == [["a"], ["b"], ["c"], []]


def test_a_suspect_in_another_queue_is_lent_alone(tables: sqlite3.Connection) -> None:
    fill(tables, "a1", queue="a")
    fill(tables, "b1", "b2", queue="b")
    tables.execute("UPDATE ready SET alone = 1 WHERE id = 2")
    assert [taken(tables, "a", "b") for _ in range(4)] == [["a1"], ["b1"], ["b2"], []]


def test_claims_are_searches_not_scans(tables: sqlite3.Connection) -> None:
    for name, arguments in (("ready", 2), ("ready_step", 3), ("glance", 1), ("due", 3), ("envelopes_between", 2)):
        plan = tables.execute(f"EXPLAIN QUERY PLAN {queues.SQL[name]}", (0,) * arguments).fetchall()
        steps = [row[3] for row in plan]
        assert not any(
            step.startswith(("SCAN ready", "SCAN message", "SCAN schedule", "USE TEMP")) for step in steps
        ), (
            name,
            steps,
        )


@pytest.mark.parametrize("token", ["", "nonsense", "a:b:c", "w:1", "w:-1:-1", "celeriac:x:1"])
def test_a_foreign_token_is_nobodys(tables: sqlite3.Connection, token: str) -> None:
    assert queues.held(tables, [queues.unpack(token)]) == {queues.unpack(token)[0]: set()}


@pytest.mark.parametrize("owner", ["w", "a:b:c", "w1@host/é", ""])
def test_a_token_survives_any_owner(owner: str) -> None:
    assert queues.unpack(queues.token(owner, 2**56, 3)) == (2**56, 3)


def test_leases_of_an_earlier_boot_are_over(tables: sqlite3.Connection) -> None:
    fill(tables, "not an envelope")
    taken(tables)
    assert upkeep.restore(tables, boot=7, uptime=99.0, zone=UTC) == []
    assert upkeep.restore(tables, boot=8, uptime=1.0, zone=UTC) == ["q"]


def test_many_leases_are_restored_in_time(tables: sqlite3.Connection) -> None:
    tables.execute("BEGIN")
    fill(tables, *(f"{number}" for number in range(5000)))
    for number in range(500):
        queues.take(tables, ["q"], 10, Claim(number=number, owner=f"w{number % 7}", until=100.0, boot=7), 10.0)
    start = time.process_time()
    assert len(upkeep.restore(tables, boot=7, uptime=101.0, zone=UTC)) == upkeep.RESTORE_CHUNK
    assert time.process_time() - start < 0.5


def test_free_pages_are_given_back(tables: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upkeep, "_SPARE_PAGES", 10)
    monkeypatch.setattr(upkeep, "_SHRINK_PAGES", 50)
    fill(tables, *("x" * 4000 for _ in range(200)))
    upkeep.purge(tables, "q")

    def pages() -> int:
        return int(tables.execute("PRAGMA page_count").fetchone()[0])

    before = pages()
    upkeep.shrink(tables)
    assert before - 60 <= pages() <= before - 50


def test_purge_goes_in_chunks(tables: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upkeep, "PURGE_CHUNK", 2)
    fill(tables, "a", "b", "c")
    fill(tables, "d", due=99.0)
    fill(tables, "other", queue="o")
    assert [upkeep.purge(tables, "q") for _ in range(4)] == [2, 1, 1, 0]
    assert taken(tables, "o") == ["other"]
    assert tables.execute("SELECT count(*) FROM message").fetchone() == (1,)
