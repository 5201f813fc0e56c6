"""PostgreSQL: how the schema is made and renewed, who may, and what is said when it does not fit."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import psycopg
import pytest

from celeriac.brokers import postgres
from celeriac.brokers.postgres import schema, statements
from celeriac.brokers.postgres.address import address
from celeriac.exceptions import OperationalError
from celeriac.ports import AdapterOptions
from celeriac.testing.conformance.tools import ids, message
from tests.servers import PostgresServer


def _options(**transport: object) -> AdapterOptions:
    return AdapterOptions(owner="test", transport=transport)


async def _round(url: str, name: str, options: AdapterOptions) -> list[str]:
    """Publish one message and take all that is there."""
    broker = postgres.broker(url, options)
    await broker.open()
    try:
        await broker.publish([message(name)])
        return ids(await broker.claim(["q"], limit=10, wait=0.0))
    finally:
        await broker.close()


def _publish(url: str, options: AdapterOptions, name: str = "a") -> None:
    publisher = postgres.publisher(url, options)
    try:
        publisher.publish([message(name)], timeout=60)
    finally:
        publisher.close()


def test_the_first_connection_makes_it(postgres_url: str) -> None:
    _publish(postgres_url, _options())
    assert asyncio.run(_round(postgres_url, "b", _options())) == ["a", "b"]


def test_many_may_make_it_at_once(postgres_server: PostgresServer, postgres_url: str) -> None:
    errors: list[BaseException] = []

    def publish(number: int) -> None:
        try:
            _publish(postgres_url, _options(), f"id-{number}")
        except BaseException as error:  # noqa: BLE001 - told below
            errors.append(error)

    threads = [threading.Thread(target=publish, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert len(asyncio.run(_round(postgres_url, "last", _options()))) == 9


def test_without_auto_migrate_a_missing_schema_is_told(postgres_server: PostgresServer, postgres_url: str) -> None:
    options = _options(auto_migrate=False)
    with pytest.raises(OperationalError, match=r"does not exist: run `celeriac -A proj migrate`"):
        _publish(postgres_url, options)
    with pytest.raises(OperationalError, match=r"does not exist: run `celeriac -A proj migrate`"):
        asyncio.run(_round(postgres_url, "a", options))
    assert postgres.migrate_schema(postgres_url, options) == (0, statements.VERSION)
    assert postgres.migrate_schema(postgres_url, options) == (statements.VERSION, statements.VERSION)
    _publish(postgres_url, options)
    assert asyncio.run(_round(postgres_url, "b", options)) == ["a", "b"]


def test_a_newer_schema_is_told(postgres_server: PostgresServer, postgres_url: str) -> None:
    _publish(postgres_url, _options())
    name = address(postgres_url, _options()).schema
    postgres_server.execute(f"UPDATE {name}.version SET number = {statements.VERSION + 1}")
    known = statements.VERSION
    expected = rf"has version {known + 1}, this Celeriac knows {known}: upgrade Celeriac"
    with pytest.raises(OperationalError, match=expected) as caught:
        _publish(postgres_url, _options())
    assert "\n" not in str(caught.value)
    with pytest.raises(OperationalError, match=expected):
        asyncio.run(_round(postgres_url, "a", _options()))
    with pytest.raises(OperationalError, match=expected):
        postgres.migrate_schema(postgres_url, _options())


@pytest.fixture
def next_version(monkeypatch: pytest.MonkeyPatch) -> int:
    """This code with one migration more than it has."""
    number = statements.VERSION + 1
    step = "ALTER TABLE {schema}.message ADD COLUMN note text NOT NULL DEFAULT 'new'"
    real = statements.migration

    def migration(wanted: int, name: str) -> bytes:
        if wanted == number:
            return step.replace("{schema}", statements.quoted(name)).encode()
        return real(wanted, name)

    monkeypatch.setattr(schema, "migration", migration)
    return number


def test_it_is_brought_up_with_all_that_is_in_it(
    postgres_server: PostgresServer, postgres_url: str, next_version: int
) -> None:
    """From each version that there ever was, messages, results and all."""
    where = address(postgres_url, _options())
    for first in range(1, next_version):
        with postgres_server.connect() as connection:
            connection.execute(f"DROP SCHEMA IF EXISTS {statements.quoted(where.schema)} CASCADE".encode())
            assert schema.migrate(connection, where, first) == (0, first)
            if first == statements.VERSION:
                _publish(postgres_url, _options(), "old")
            assert schema.migrate(connection, where, next_version) == (first, next_version)
            notes = connection.execute(f"SELECT note FROM {where.schema}.message".encode()).fetchall()
            assert notes == ([("new",)] if first == statements.VERSION else [])
            assert schema.found(connection, where) == next_version


def test_a_migration_that_fails_changes_nothing(
    postgres_server: PostgresServer, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    where = address(postgres_url, _options())
    _publish(postgres_url, _options(), "old")
    monkeypatch.setattr(schema, "migration", lambda number, name: b"CREATE TABLE nowhere.x (id integer)")
    with postgres_server.connect() as connection:
        with pytest.raises(psycopg.Error):
            schema.migrate(connection, where, statements.VERSION + 1)
        assert schema.found(connection, where) == statements.VERSION
    assert asyncio.run(_round(postgres_url, "b", _options())) == ["old", "b"]


def test_two_schemas_know_nothing_of_each_other(postgres_server: PostgresServer, postgres_url: str) -> None:
    other = f"{address(postgres_url, _options()).schema}_2"
    bare = postgres_url.partition("?")[0]
    _publish(postgres_url, _options(), "one")
    _publish(bare, _options(schema=other), "two")

    async def main() -> None:
        first, second = postgres.broker(postgres_url, _options()), postgres.broker(bare, _options(schema=other))
        await first.open()
        await second.open()
        assert first.traits.server != second.traits.server
        waiting = asyncio.ensure_future(first.claim(["empty"], limit=1, wait=0.6))
        assert ids(await second.claim(["q"], limit=10, wait=0.0)) == ["two"]
        await second.publish([message("three", "empty")])
        assert list(await waiting) == []
        assert ids(await first.claim(["q"], limit=10, wait=0.0)) == ["one"]
        await first.close()
        await second.close()

    asyncio.run(main())


@pytest.fixture
def worker_role(postgres_server: PostgresServer) -> Iterator[str]:
    """A role that may use what is there, and create nothing."""
    name = "celeriac_worker"
    with postgres_server.connect() as connection:
        connection.execute(f"CREATE ROLE {name} LOGIN".encode())
        yield name
        connection.execute(f"DROP OWNED BY {name}".encode())
        connection.execute(f"DROP ROLE {name}".encode())


def test_a_role_that_may_not_create(
    postgres_server: PostgresServer, postgres_url: str, worker_role: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("celeriac.brokers.postgres.marks._SLOW", -1.0)  # that it looks for marks too
    name = address(postgres_url, _options()).schema
    url = postgres_server.url(user=worker_role, schema=name)
    with pytest.raises(OperationalError, match=r"does not exist: run `celeriac -A proj migrate` as a role that may"):
        _publish(url, _options())
    postgres.migrate_schema(postgres_url, _options())
    with pytest.raises(OperationalError, match="permission denied"):
        _publish(url, _options())
    with postgres_server.connect() as connection:
        for grant in (
            f"GRANT USAGE ON SCHEMA {name} TO {worker_role}",
            f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {name} TO {worker_role}",
            f"GRANT USAGE ON ALL SEQUENCES IN SCHEMA {name} TO {worker_role}",
        ):
            connection.execute(grant.encode())
    _publish(url, _options(), "mine")

    async def main() -> None:
        broker, store = postgres.broker(url, _options()), postgres.store(url, _options())
        await broker.open()
        await store.open()
        await broker.publish([message("too"), message("last")])
        for name in ("mine", "too", "last"):
            assert ids(await broker.claim(["q"], limit=1, wait=0.0)) == [name]
        assert await broker.maintain() > 0
        assert await store.sweep() == 0
        await broker.close()
        await store.close()

    asyncio.run(main())
