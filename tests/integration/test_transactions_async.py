"""``app.transaction()`` with SQLAlchemy's AsyncSession: ``delay()`` adds an object, and waits for nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest

from celeriac import Celery
from celeriac.outbox.stores import store_of
from tests.databases import empty_database
from tests.servers import PostgresServer

pytest.importorskip("greenlet")  # without it SQLAlchemy has no AsyncSession

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, async_scoped_session, async_sessionmaker, create_async_engine


@pytest.fixture
def app(postgres_server: PostgresServer) -> Iterator[Celery]:
    url = empty_database(postgres_server, "asynchronous")
    store = store_of(url)
    store.create()
    store.close()
    with Celery("shop", broker="memory://asynchronous", outbox_url=url) as app:
        app.task(name="add", shared=False)(lambda a, b=0: a + b)
        yield app


def waiting(app: Celery) -> int:
    store = store_of(app.conf.outbox_url)
    try:
        return store.standing().waiting
    finally:
        store.close()


def run(app: Celery, work: Callable[[Any], Coroutine[Any, Any, None]]) -> None:
    """Run a coroutine function with an engine."""

    async def main() -> None:
        engine = create_async_engine(app.conf.outbox_url.replace("postgresql:", "postgresql+psycopg:"))
        try:
            await work(engine)
        finally:
            await engine.dispose()

    asyncio.run(main())


def test_commit_rollback_and_savepoints(app: Celery) -> None:
    add = app.tasks["add"]

    async def fail(session: AsyncSession) -> None:
        async with session.begin_nested():
            add.delay(3)
            raise KeyError

    async def work(engine: Any) -> None:
        async with AsyncSession(engine) as session, session.begin():
            with app.transaction(session):
                await session.execute(text("SELECT 1"))
                add.delay(1)
                await add.adelay(2)
                with pytest.raises(KeyError):
                    await fail(session)
                async with session.begin_nested():
                    add.delay(4)
        assert waiting(app) == 3
        async with AsyncSession(engine) as session:
            with app.transaction(session):
                add.delay(5)
                await session.flush()
                await session.rollback()
        assert waiting(app) == 3

    run(app, work)


def test_a_scoped_session(app: Celery) -> None:
    async def work(engine: Any) -> None:
        scoped = async_scoped_session(async_sessionmaker(engine), asyncio.current_task)
        with app.transaction(scoped):
            app.tasks["add"].delay(1)
        await scoped.commit()
        await scoped.remove()
        assert waiting(app) == 1

    run(app, work)


def test_asynchronous_connections_are_refused(app: Celery) -> None:
    async def work(engine: Any) -> None:
        async with engine.connect() as connection:
            with pytest.raises(TypeError, match="not AsyncConnection"):
                app.transaction(connection)

    run(app, work)
