"""PostgreSQL behind a real PgBouncer in transaction mode: any statement may come over any of few connections."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from celeriac import Celery, chain, chord
from celeriac.brokers import postgres
from celeriac.contrib.testing.worker import start_worker
from celeriac.exceptions import OperationalError
from celeriac.ports import AdapterOptions, Publisher
from celeriac.testing.conformance.tools import ids, message
from tests.conftest import missing
from tests.servers import PgBouncerServer, PostgresServer, eventually, pgbouncer_program

_WAITERS = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND mode = 'ShareLock'"


@pytest.fixture(scope="module")
def bouncer(postgres_server: PostgresServer) -> Iterator[PgBouncerServer]:
    if pgbouncer_program() is None:
        missing("pgbouncer")
    with PgBouncerServer(postgres_server.start().port, pool_size=3) as bouncer:
        yield bouncer


def test_producers_workers_and_results_share_few_connections(
    bouncer: PgBouncerServer, postgres_server: PostgresServer
) -> None:
    url = bouncer.url(schema="behind_a_pooler", listen="false")
    with Celery("pooled", broker=url, backend=url, set_as_current=False) as app:
        tries: list[int] = []

        @app.task(name="pooled.add", shared=False)
        def add(x: int, y: int = 1) -> int:
            return x + y

        @app.task(name="pooled.total", shared=False)
        def total(values: list[int]) -> int:
            return sum(values)

        @app.task(name="pooled.again", shared=False, bind=True, max_retries=3)
        def again(self: object) -> str:
            tries.append(1)
            if len(tries) < 2:
                raise self.retry(countdown=0.05)  # type: ignore[attr-defined]
            return "done"

        with start_worker(app, concurrency=4, pool="threads", perform_ping_check=False):
            with ThreadPoolExecutor(8) as threads:  # more than it has connections, and each statement more than once
                sums = list(threads.map(lambda n: add.delay(n).get(timeout=60), range(64)))
            assert sums == list(range(1, 65))
            assert chord([add.s(n) for n in range(20)], total.s()).apply_async().get(timeout=60) == 210
            assert chain(add.s(1), add.s(2), add.s(3)).apply_async().get(timeout=60) == 7
            assert again.delay().get(timeout=60) == "done"
            assert len(app.control.ping(timeout=60.0, limit=1)) == 1, "remote control, both ways"
        (pool,) = [each for each in bouncer.show("pools") if each["database"] == "postgres"]
        assert pool["pool_mode"] == "transaction"
        servers = [each for each in bouncer.show("servers") if each["database"] == "postgres"]
        assert 1 <= len(servers) <= 3
        assert postgres_server.execute(_WAITERS) == [(0,)]
    postgres_server.execute("DROP SCHEMA behind_a_pooler CASCADE")


def test_a_producer_behind_it_wakes_a_worker_that_is_not(
    bouncer: PgBouncerServer, postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("celeriac.brokers.postgres.claims.LOOK_AGAIN", 60.0)  # so that only being woken helps

    async def main() -> None:
        broker = postgres.broker(postgres_server.url(schema="half_behind_a_pooler"), AdapterOptions())
        publisher = postgres.publisher(bouncer.url(schema="half_behind_a_pooler", listen="false"), AdapterOptions())
        await broker.open()
        waiting = asyncio.ensure_future(broker.claim(["q"], limit=1, wait=60.0))
        await eventually(lambda: postgres_server.execute(_WAITERS) == [(1,)], 60, "it waits")
        await asyncio.to_thread(publisher.publish, [message("a")], timeout=60)
        async with asyncio.timeout(60):
            assert ids(await waiting) == ["a"]
        publisher.close()
        await broker.close()

    asyncio.run(main())
    postgres_server.execute("DROP SCHEMA half_behind_a_pooler CASCADE")


def _ask(publishers: list[Publisher]) -> None:
    for publisher in publishers:
        publisher.depth(["q"], timeout=60)


def test_what_a_pooler_cannot_do_is_told(bouncer: PgBouncerServer, postgres_server: PostgresServer) -> None:
    publishers: list[Publisher] = [postgres.publisher(bouncer.url(schema="unused"), AdapterOptions()) for _ in range(2)]
    with pytest.raises(OperationalError, match="listen=false"):
        _ask(publishers)  # each prepares, and both have one connection of the server
    publishers.append(postgres.publisher(bouncer.url(options="-c jit=off", listen="false"), AdapterOptions()))
    with pytest.raises(OperationalError, match="options; leave it out of the URL"):
        _ask(publishers[-1:])
    for publisher in publishers:
        publisher.close()
    postgres_server.execute("DROP SCHEMA IF EXISTS unused CASCADE")
