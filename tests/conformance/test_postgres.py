"""PostgreSQL: a private server, a schema that is empty for each test, behind a proxy that can cut and silence it."""

from __future__ import annotations

import asyncio
import uuid

import pytest

from celeriac.brokers import postgres
from celeriac.testing.conformance import Conformance, Harness
from tests.proxy import Proxy
from tests.servers import PostgresServer, free_port


class PostgresHarness(Harness):
    """A fresh schema, seen through the proxy."""

    adapter = postgres
    lease = 1.0
    soon = 1.0
    late = 0.7

    def __init__(self, server: PostgresServer, proxy: Proxy, schema: str, **query: str) -> None:
        super().__init__()
        self.server, self.proxy, self.schema = server, proxy, schema
        self.url = server.url(port=proxy.port, schema=schema, **query)
        self.unreachable = f"postgresql://user:{self.password}@127.0.0.1:{free_port()}/postgres"

    async def inject(self, queue: str, raw: bytes) -> None:
        await self._execute(
            f"SELECT {self.schema}.add(ARRAY[%s], ARRAY[0::smallint], ARRAY[NULL::float8], ARRAY[%s::bytea])",
            queue,
            raw,
        )

    async def inject_topic(self, exchange: str, raw: bytes) -> None:
        await self._execute(f"SELECT {self.schema}.emit(%s, '', %s, %s, false)", exchange, b"{", raw)

    async def spoil(self, queue: str) -> None:
        await self._execute(
            f"CREATE FUNCTION {self.schema}.spoil() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN RAISE EXCEPTION 'spoilt'; END $$"
        )
        for table in ("message", "ready"):
            await self._execute(
                f"CREATE TRIGGER spoil BEFORE INSERT ON {self.schema}.{table} FOR EACH ROW "
                f"WHEN (new.queue = '{queue}') EXECUTE FUNCTION {self.schema}.spoil()"
            )

    async def heal(self, queue: str) -> None:
        await self._execute(f"DROP FUNCTION {self.schema}.spoil CASCADE")

    async def cut(self) -> None:
        await asyncio.to_thread(self.proxy.cut)

    async def silence(self, on: bool) -> None:
        await asyncio.to_thread(self.proxy.blackhole, on)

    async def _execute(self, statement: str, *args: object) -> None:
        await asyncio.to_thread(self.server.execute, statement, *args)


#: Makes a schema as empty as a new one, which takes ten times as long.
_EMPTY = """
DO $$ DECLARE found text; BEGIN
    FOR found IN SELECT tablename FROM pg_tables
        WHERE schemaname = '{schema}' AND tablename NOT IN ('version', 'rule_epoch')
    LOOP EXECUTE format('DELETE FROM {schema}.%I', found); END LOOP;
    IF to_regclass('{schema}.rule_epoch') IS NOT NULL THEN UPDATE {schema}.rule_epoch SET epoch = 0, floor = 0; END IF;
END $$
"""


@pytest.fixture(scope="module")
def schema() -> str:
    return f"test_{uuid.uuid4().hex[:12]}"


class TestPostgres(Conformance):
    @pytest.fixture
    def harness(self, postgres_server: PostgresServer, postgres_proxy: Proxy, schema: str) -> PostgresHarness:
        postgres_server.execute(_EMPTY.format(schema=schema))
        return PostgresHarness(postgres_server, postgres_proxy, schema)
