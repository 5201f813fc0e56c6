"""PostgreSQL: messages that are written in the application's own transaction, whatever driver it has."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import psycopg
import pytest
import sqlalchemy

from celeriac.brokers import postgres
from celeriac.brokers.postgres.address import address
from celeriac.ports import AdapterOptions
from celeriac.testing.conformance.tools import ids, message, messages
from tests.servers import PostgresServer, eventually

_OPTIONS = AdapterOptions(owner="test")


@pytest.fixture
def url(postgres_url: str) -> str:
    """A schema that is there."""
    postgres.migrate_schema(postgres_url, _OPTIONS)
    return postgres_url


def _taken(url: str) -> list[str]:
    async def main() -> list[str]:
        broker = postgres.broker(url, _OPTIONS)
        await broker.open()
        try:
            return ids(await broker.claim(["q", "other"], limit=100, wait=0.0))
        finally:
            await broker.close()

    return asyncio.run(main())


@pytest.fixture(params=["psycopg", "sqlalchemy"])
def connection(request: pytest.FixtureRequest, postgres_server: PostgresServer) -> Iterator[Any]:
    """A connection of the application, not in autocommit."""
    bare = postgres_server.start().url()
    if request.param == "psycopg":
        with closing(psycopg.connect(bare)) as found:
            yield found
        return
    engine = sqlalchemy.create_engine(bare.replace("postgresql:", "postgresql+psycopg:"))
    with engine.connect() as outer:
        yield outer.connection
    engine.dispose()


def test_it_comes_with_the_commit(url: str, connection: Any) -> None:
    with closing(connection.cursor()) as cursor:
        cursor.execute("CREATE TEMPORARY TABLE mine (id integer)")
    postgres.publish_in(
        connection, [message("a"), message("low", priority=9), message("b", "other")], _OPTIONS, url=url
    )
    assert _taken(url) == [], "nothing before the commit"
    connection.commit()
    assert _taken(url) == ["a", "b", "low"]


def test_it_vanishes_with_the_transaction(url: str, connection: Any) -> None:
    postgres.publish_in(connection, [message("a")], _OPTIONS, url=url)
    connection.rollback()
    postgres.publish_in(connection, [message("b")], _OPTIONS, url=url)
    connection.commit()
    assert _taken(url) == ["b"]


def test_what_is_due_later_is_scheduled(url: str, connection: Any) -> None:
    postgres.publish_in(connection, [message("later", due=4e9)], _OPTIONS, url=url)
    connection.commit()
    publisher = postgres.publisher(url, _OPTIONS)
    assert publisher.depth(["q"], timeout=30.0)["q"].scheduled == 1
    publisher.close()


def test_nothing_is_written_that_cannot_be_encoded(url: str, connection: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        postgres.publish_in(connection, [message("a"), message("b", headers={"x": object()})], _OPTIONS, url=url)
    connection.commit()
    assert _taken(url) == []


def test_the_commit_wakes_who_waits(url: str, postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("celeriac.brokers.postgres.claims.LOOK_AGAIN", 60.0)  # so that only being woken helps

    async def main() -> None:
        broker = postgres.broker(url, _OPTIONS)
        await broker.open()
        waiting = asyncio.ensure_future(broker.claim(["q"], limit=5, wait=60.0))
        held = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND mode = 'ShareLock'"
        await eventually(lambda: postgres_server.execute(held) == [(1,)], 60, "it waits")
        with closing(psycopg.connect(postgres_server.url())) as connection:
            await asyncio.to_thread(postgres.publish_in, connection, messages("a", "b"), _OPTIONS, url=url)
            await asyncio.sleep(0)
            assert not waiting.done()
            await asyncio.to_thread(connection.commit)
            async with asyncio.timeout(30):
                assert ids(await waiting) == ["a", "b"]
        await broker.close()

    asyncio.run(main())


_DJANGO = """
import json, sys
import django
from django.conf import settings
given = json.loads(sys.argv[1])
settings.configure(DATABASES={"default": {"ENGINE": "django.db.backends.postgresql", "HOST": "127.0.0.1",
    "PORT": given["port"], "NAME": "postgres", "USER": "postgres"}})
django.setup()
from django.db import connection, transaction
from celeriac.brokers import postgres
from celeriac.ports import AdapterOptions
from celeriac.testing.conformance.tools import message
options = AdapterOptions()
class Stop(Exception): pass
with transaction.atomic():
    postgres.publish_in(connection, [message("kept")], options, url=given["url"])
try:
    with transaction.atomic():
        postgres.publish_in(connection, [message("dropped")], options, url=given["url"])
        raise Stop
except Stop:
    pass
with transaction.atomic():
    try:
        with transaction.atomic():
            postgres.publish_in(connection, [message("dropped, too")], options, url=given["url"])
            raise Stop
    except Stop:
        pass
    postgres.publish_in(connection, [message("kept, too")], options, url=given["url"])
"""


def test_in_the_transactions_of_django(url: str, postgres_server: PostgresServer) -> None:
    given = json.dumps({"port": postgres_server.port, "url": url})
    command = [sys.executable, "-W", "error", "-c", _DJANGO, given]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env={**os.environ}, check=False)
    assert done.returncode == 0, done.stderr
    assert _taken(url) == ["kept", "kept, too"]


def test_the_schema_is_named_by_url_or_options(
    postgres_server: PostgresServer, make_postgres: Callable[..., PostgresServer], url: str
) -> None:
    name = address(url, _OPTIONS).schema
    options = AdapterOptions(transport={"schema": name})
    with closing(psycopg.connect(postgres_server.url())) as connection:
        postgres.publish_in(connection, [message("a")], options)
        postgres.publish_in(connection, [], options)
        connection.commit()
    assert _taken(url) == ["a"]
