"""What a claim costs PostgreSQL with few and with many messages waiting: its time and the pages it looks at, as the
server counts them, so that neither the driver nor the round trip is measured.

Two schemas of one server, claimed from in turns; their tables are vacuumed before, as autovacuum would have.
"""

from __future__ import annotations

import os
from statistics import median
from typing import Any

import psycopg
from psycopg.conninfo import make_conninfo

from celeriac.brokers import postgres
from celeriac.brokers.postgres.address import address
from celeriac.ports import AdapterOptions

__all__ = ["claim"]

_CHUNK = 50_000
#: Bytes of a message.
_TEXT = b"x" * 900


def claim(*, few: int, many: int, limit: int, times: int) -> dict[str, float]:
    """Milliseconds and pages of a claim of ``limit``, medians of so many."""
    small, large = _Queue("bench_few", few), _Queue("bench_many", many)
    took: dict[_Queue, list[tuple[float, int]]] = {small: [], large: []}
    for number in range(-10, times):
        for queue in (small, large) if number % 2 else (large, small):
            cost = queue.claim(limit)
            if number >= 0:
                took[queue].append(cost)
    few_ms, many_ms = (median(ms for ms, _ in took[queue]) for queue in (small, large))
    few_pages, many_pages = (median(pages for _, pages in took[queue]) for queue in (small, large))
    for queue in (small, large):
        queue.close()
    return {
        "few": few_ms,
        "many": many_ms,
        "ratio": many_ms / few_ms,
        "few_pages": few_pages,
        "many_pages": many_pages,
        "pages_ratio": many_pages / few_pages,
    }


class _Queue:
    """A queue in a schema of its own, in which always so many wait."""

    def __init__(self, schema: str, waiting: int) -> None:
        url = f"{os.environ['BENCH_BROKER']}{'&' if '?' in os.environ['BENCH_BROKER'] else '?'}schema={schema}"
        options = AdapterOptions()
        postgres.migrate_schema(url, options)
        self._schema = schema
        self._connection = psycopg.connect(make_conninfo(**address(url, options).parameters), autocommit=True)
        self._number = 0
        for at in range(0, waiting, _CHUNK):
            self._fill(min(_CHUNK, waiting - at))
        for table in ("ready", "message"):
            self._run(f"VACUUM ANALYZE {schema}.{table}")

    def claim(self, limit: int) -> tuple[float, int]:
        """Milliseconds and pages; as many come in as go."""
        self._number += 1
        asked = f"{self._schema}.claim(ARRAY['q'], {limit}, 'bench', {self._number}, 30, '{{}}', NULL)"
        (((explained,),),) = self._run(f"EXPLAIN (ANALYZE, BUFFERS, TIMING off, FORMAT json) SELECT * FROM {asked}")
        plan = explained["Plan"]
        if plan["Actual Rows"] != limit + 1:
            raise ValueError(f"{plan['Actual Rows'] - 1} deliveries of {limit}")
        gone = f"DELETE FROM {self._schema}.lease WHERE claim = {self._number} RETURNING id"
        self._run(f"WITH gone AS ({gone}) DELETE FROM {self._schema}.message WHERE id IN (SELECT id FROM gone)")
        self._fill(limit)
        return explained["Execution Time"], plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]

    def _fill(self, count: int) -> None:
        same = ", ".join(
            f"array_fill({each}, ARRAY[{count}])" for each in ("'q'::text", "0::smallint", "NULL::float8", "%s::bytea")
        )
        self._run(f"SELECT {self._schema}.add({same})", _TEXT)

    def _run(self, statement: str, *args: object) -> list[tuple[Any, ...]]:
        cursor = self._connection.execute(statement.encode(), args or None)
        return cursor.fetchall() if cursor.description is not None else []

    def close(self) -> None:
        self._run(f"DROP SCHEMA {self._schema} CASCADE")
        self._connection.close()
