"""PostgreSQL: a claim costs the same with a thousand waiting as with a million, and with the rows of a
million that are gone; it reads no table from end to end."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from celeriac.brokers import postgres
from celeriac.brokers.postgres.address import address
from celeriac.ports import AdapterOptions
from tests.servers import PostgresServer

_CHUNK = 50_000


class Claimer:
    """Claims on one connection, by the function alone."""

    def __init__(self, connection: psycopg.Connection[tuple[Any, ...]], schema: str) -> None:
        self.connection, self.schema = connection, schema
        self.waiting = 0
        self._call = f"{schema}.claim(ARRAY['q'], %s, 'owner', %s, 30, '{{}}', %s::bigint[])"
        self._number = 0

    def fill(self, count: int) -> None:
        """As many wait as that, each with a text of 900 bytes."""
        while self.waiting < count:
            some = min(_CHUNK, count - self.waiting)
            self.connection.execute(
                f"SELECT {self.schema}.add(array_fill('q'::text, ARRAY[%s]), array_fill(0::smallint, ARRAY[%s]), "
                "array_fill(NULL::float8, ARRAY[%s]), array_fill(%s::bytea, ARRAY[%s]))".encode(),
                (some, some, some, b"x" * 900, some),
            )
            self.waiting += some

    def claim(self, limit: int, marks: list[int] | None = None) -> list[int]:
        """The marks that it left."""
        self._number += 1
        *rows, (_, left) = self.connection.execute(
            f"SELECT id, marks FROM {self._call}".encode(),
            (limit, self._number, marks),
        ).fetchall()
        assert len(rows) == limit
        self.waiting -= limit
        return left or []

    def pages(self, limit: int, marks: list[int] | None = None) -> int:
        """Pages that the server looks at for one claim: its work, whatever else the machine does."""
        self._number += 1
        row = self.connection.execute(
            f"EXPLAIN (ANALYZE, BUFFERS, TIMING off, FORMAT json) SELECT * FROM {self._call}".encode(),
            (limit, self._number, marks),
        ).fetchone()
        assert row is not None
        self.waiting -= limit
        plan = row[0][0]["Plan"]
        assert plan["Actual Rows"] == limit + 1
        return int(plan["Shared Hit Blocks"]) + int(plan["Shared Read Blocks"])


@pytest.fixture
def claimer(postgres_server: PostgresServer, postgres_url: str) -> Iterator[Claimer]:
    options = AdapterOptions()
    postgres.migrate_schema(postgres_url, options)
    with postgres_server.connect() as connection:
        yield Claimer(connection, address(postgres_url, options).schema)
        connection.execute(f"DROP SCHEMA {address(postgres_url, options).schema} CASCADE".encode())


def _median_pages(claimer: Claimer, waiting: int) -> float:
    claimer.fill(waiting)
    for table in ("ready", "message"):
        claimer.connection.execute(f"VACUUM {claimer.schema}.{table}".encode())
    claimer.claim(10)
    return statistics.median(claimer.pages(100) for _ in range(9))


@pytest.mark.parametrize("many", [40_000, pytest.param(1_000_000, marks=[pytest.mark.slow, pytest.mark.extended])])
def test_a_claim_costs_the_same_whatever_waits(claimer: Claimer, many: int) -> None:
    few = _median_pages(claimer, 1_100)
    assert _median_pages(claimer, many) <= 1.2 * few


def test_what_cannot_be_vacuumed_is_read_over_now_and_then_only(
    claimer: Claimer, postgres_server: PostgresServer
) -> None:
    """A transaction that stays open keeps all that claims take meanwhile."""
    claimer.fill(30_000)
    with postgres_server.connect() as open_for_long:
        open_for_long.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        open_for_long.execute("SELECT count(*) FROM pg_class")
        claimer.claim(10, claimer.claim(10, [-(2**63)] * 8))  # the first calls of a connection look at catalogs too
        claimer.claim(10)
        fresh = claimer.pages(10)
        for _ in range(20):
            claimer.claim(1_000)
        assert claimer.pages(10) > 2 * fresh
        marks = claimer.claim(10, [-(2**63)] * 8)
        assert claimer.pages(10, marks) < 2 * fresh


@pytest.mark.parametrize("cut", [1, 3, 100])
def test_marks_change_no_order(claimer: Claimer, cut: int) -> None:
    """What is in front, what was due, and what arrived, by priority; whatever marks were left by looks before."""
    add = (
        f"INSERT INTO {claimer.schema}.ready (queue, step, position, id, alone) "
        f"SELECT 'q', step, position, nextval('{claimer.schema}.message_number'), false FROM (VALUES "
        f"(0, {claimer.schema}.front()), (0, {claimer.schema}.ripe(1.8e9)), (0, 5000), (0, 5001), "
        f"(3, {claimer.schema}.ripe(1.7e9)), (3, {claimer.schema}.ripe(1.75e9)), (9, 4000), (9, 6000)) "
        "AS t (step, position)"
    )
    connection = claimer.connection
    connection.execute(add.encode())
    order = sorted(_positions(claimer), key=_positions(claimer).__getitem__)
    marks, taken = [-(2**63)] * 8, list[int]()
    for number in range(100):
        before = _positions(claimer)
        query = f"SELECT p_marks FROM {claimer.schema}.take(ARRAY['q'], %s, 'owner', %s, 0, %s)"
        row = connection.execute(query.encode(), (cut, 1_000 + number, marks)).fetchone()
        assert row is not None
        marks = row[0]
        gone = sorted(before.keys() - _positions(claimer).keys(), key=lambda each: before[each])
        taken += gone
        if not gone:
            break
    assert taken == order


def _positions(claimer: Claimer) -> dict[int, tuple[int, int]]:
    rows = claimer.connection.execute(f"SELECT position, step FROM {claimer.schema}.ready".encode())
    return {position: (step, position) for position, step in rows}


def _scans(plan: Any) -> list[tuple[str, str]]:
    """Kind and table of each scan in a plan."""
    found = [(plan["Node Type"], plan["Relation Name"])] if "Relation Name" in plan else []
    return found + [scan for child in plan.get("Plans", ()) for scan in _scans(child)]


def test_no_statement_reads_a_table_from_end_to_end(claimer: Claimer) -> None:
    """Each statement inside of the functions on the hot path, as the server says that it ran it."""
    claimer.fill(3_000)
    connection = claimer.connection
    plans: list[Any] = []

    def heard(notice: psycopg.errors.Diagnostic) -> None:
        text = notice.message_primary or ""
        if text.startswith("duration:"):
            plans.append(json.loads(text.partition("plan:\n")[2])["Plan"])

    connection.add_notice_handler(heard)
    for setting in (
        "LOAD 'auto_explain'",
        "SET auto_explain.log_min_duration = 0",
        "SET auto_explain.log_nested_statements = on",
        "SET auto_explain.log_format = json",
        "SET client_min_messages = log",
    ):
        connection.execute(setting.encode())
    claimer.claim(5)
    rows = connection.execute(f"SELECT claim, id FROM {claimer.schema}.lease".encode()).fetchall()
    plans.clear()
    claimer.claim(5)
    claimer.claim(5, claimer.claim(5, [-(2**63)] * 8))
    claims, keys = [claim for claim, _ in rows], [key for _, key in rows]
    connection.execute(f"SELECT {claimer.schema}.extend(%s::bigint[], %s::bigint[], 30)".encode(), (claims, keys))
    connection.execute(
        f"SELECT {claimer.schema}.accept(%s::bigint[], %s::bigint[], %s::text[], %s::bytea[], %s::boolean[], "
        "%s::boolean[], %s::float8[], '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}')".encode(),
        (claims, keys, [str(key) for key in keys], [b"{}"] * len(keys), *[[True] * len(keys)] * 2, [60.0] * len(keys)),
    )
    scans = [scan for plan in plans for scan in _scans(plan)]
    assert {table for _, table in scans} >= {"ready", "message", "lease", "schedule"}
    assert [scan for scan in scans if scan[0] == "Seq Scan"] == []
