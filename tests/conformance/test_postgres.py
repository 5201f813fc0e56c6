"""PostgreSQL: a private server, a schema that is empty for each test, behind a proxy that can cut and silence it."""

from __future__ import annotations

import asyncio
import time
import uuid

import pytest

from celeriac.brokers import postgres
from celeriac.brokers.postgres.address import address
from celeriac.brokers.postgres.schema import bring_up
from celeriac.ports import AdapterOptions
from celeriac.testing.conformance import Conformance, Harness
from tests.proxy import Proxy
from tests.servers import PostgresServer, free_port


class PostgresHarness(Harness):
    """A fresh schema, seen through the proxy. Its clock can be turned: so nothing that runs out is waited for, and it
    takes longer than the busiest machine makes anything last."""

    adapter = postgres
    lease = 30.0
    soon = 10.0
    late = 0.7

    def __init__(self, server: PostgresServer, proxy: Proxy, schema: str, **query: str) -> None:
        super().__init__()
        self.server, self.proxy, self.schema = server, proxy, schema
        self.ahead = 0.0
        self.url = server.url(port=proxy.port, schema=schema, **query)
        self.unreachable = f"postgresql://user:{self.password}@127.0.0.1:{free_port()}/postgres"

    def now(self) -> float:
        return time.time() + self.ahead

    async def lapse(self, seconds: float) -> None:
        self.ahead += seconds
        await self._execute(f"UPDATE public.{self.schema}_clock SET ahead = %s", self.ahead)

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


#: Makes a schema as empty as a new one, which takes ten times as long. Truncated: what is deleted stays in the way, and
#: what the planner learns of an empty table makes it search a full one row by row.
_EMPTY = """
DO $$ DECLARE found text; full_ones text[]; one boolean; BEGIN
    FOR found IN SELECT tablename FROM pg_tables
        WHERE schemaname = '{schema}' AND tablename NOT IN ('version', 'rule_epoch')
    LOOP
        EXECUTE format('SELECT EXISTS (SELECT FROM {schema}.%I)', found) INTO one;
        IF one THEN full_ones := full_ones || format('{schema}.%I', found); END IF;
    END LOOP;
    IF full_ones IS NOT NULL THEN EXECUTE 'TRUNCATE ' || array_to_string(full_ones, ', '); END IF;
    UPDATE {schema}.rule_epoch SET epoch = 0, floor = 0;
    UPDATE public.{schema}_clock SET ahead = 0;
END $$
"""
#: The server's clock, and by how many seconds it was turned.
_CLOCK = """
CREATE TABLE public.{schema}_clock AS SELECT 0::float8 AS ahead;
CREATE OR REPLACE FUNCTION {schema}.moment() RETURNS float8 LANGUAGE sql VOLATILE AS
$$ SELECT extract(epoch FROM clock_timestamp())::float8 + (SELECT ahead FROM public.{schema}_clock) $$
"""


@pytest.fixture(scope="module")
def schema(postgres_server: PostgresServer) -> str:
    name = f"test_{uuid.uuid4().hex[:12]}"
    bring_up(address(postgres_server.url(schema=name), AdapterOptions()))
    postgres_server.execute(_CLOCK.format(schema=name))
    return name


class TestPostgres(Conformance):
    @pytest.fixture
    def harness(self, postgres_server: PostgresServer, postgres_proxy: Proxy, schema: str) -> PostgresHarness:
        postgres_server.execute(_EMPTY.format(schema=schema))
        return PostgresHarness(postgres_server, postgres_proxy, schema)
