"""Applications with a database, one for each way to have a transaction: what `test_transactions.py` runs through all.

Each has a table `orders` and the outbox. `begin()` is a transaction that commits unless something is raised, and yields
what `app.transaction()` takes; `savepoint()` is one inside it; `order(name)` writes inside it; `orders()` reads what
was committed, on a connection of its own.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

import psycopg
from sqlalchemy import create_engine, text
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool

from celeriac.outbox.stores import store_of

__all__ = ["KINDS", "Application", "make_application"]

KINDS = (
    "sqlite3", "psycopg", "session on sqlite", "session on postgresql", "connection on sqlite",
    "connection on postgresql", "django on sqlite", "django on postgresql",
)  # fmt: skip
_TABLE = "CREATE TABLE IF NOT EXISTS orders (name VARCHAR(40))"


class Application(Protocol):
    """See the module."""

    url: str

    def begin(self) -> AbstractContextManager[Any]: ...

    def savepoint(self) -> AbstractContextManager[Any]: ...

    def order(self, name: str) -> None: ...

    def by_itself(self) -> Any:
        """A connection without a transaction, on which each statement commits."""
        ...

    def close(self) -> None: ...


class Reading:
    """What all of them share: the table, and a look at what was committed."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.run(_TABLE)
        self.run("DELETE FROM orders")
        store = store_of(url)
        store.create()
        store.close()
        self.run("DELETE FROM celeriac_outbox")

    def run(self, statement: str) -> list[Any]:
        if self.url.startswith("sqlite"):
            connection: Any = sqlite3.connect(self.url[len("sqlite:///") :], isolation_level=None)
        else:
            connection = psycopg.connect(self.url, autocommit=True)
        try:
            cursor = connection.execute(statement)
            return list(cursor) if cursor.description else []
        finally:
            connection.close()

    def orders(self) -> list[str]:
        return [row[0] for row in self.run("SELECT name FROM orders ORDER BY name")]

    def waiting(self) -> int:
        return int(self.run("SELECT count(*) FROM celeriac_outbox")[0][0])


class Sqlite3(Reading):
    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.connection = sqlite3.connect(url[len("sqlite:///") :])

    @contextmanager
    def begin(self) -> Iterator[Any]:
        with self.connection:
            yield self.connection

    @contextmanager
    def savepoint(self) -> Iterator[None]:
        self.connection.execute("SAVEPOINT s")
        try:
            yield
        except BaseException:
            self.connection.execute("ROLLBACK TO s")
            raise
        finally:
            self.connection.execute("RELEASE s")

    def order(self, name: str) -> None:
        self.connection.execute("INSERT INTO orders VALUES (?)", (name,))

    def by_itself(self) -> Any:
        self.connection.isolation_level = None
        return self.connection

    def close(self) -> None:
        self.connection.close()


class Psycopg(Reading):
    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.connection = psycopg.connect(url, autocommit=True)

    @contextmanager
    def begin(self) -> Iterator[Any]:
        with self.connection.transaction():
            yield self.connection

    savepoint = begin

    def order(self, name: str) -> None:
        self.connection.execute("INSERT INTO orders VALUES (%s)", (name,))

    def by_itself(self) -> Any:
        return self.connection

    def close(self) -> None:
        self.connection.close()


class Alchemy(Reading):
    """A Session, or a Connection; pysqlite begins late by itself, so SQLAlchemy's recipe for savepoints is not needed:
    each transaction here writes before its savepoint."""

    def __init__(self, url: str, *, session: bool) -> None:
        super().__init__(url)
        self._session = session
        self._url = url.replace("postgresql://", "postgresql+psycopg://")
        self.engine = create_engine(self._url, poolclass=NullPool)
        self.used: Any = None
        self._open: list[Any] = []

    @contextmanager
    def begin(self) -> Iterator[Any]:
        if self._session:
            with Session(self.engine) as session, session.begin():
                self.used = session
                yield session
        else:
            with self.engine.begin() as connection:
                self.used = connection
                yield connection

    @contextmanager
    def savepoint(self) -> Iterator[None]:
        with self.used.begin_nested():
            yield

    def order(self, name: str) -> None:
        self.used.execute(text("INSERT INTO orders VALUES (:name)"), {"name": name})

    def by_itself(self) -> Any:
        engine = create_engine(self._url, poolclass=NullPool, isolation_level="AUTOCOMMIT")
        if self._session:
            return Session(engine)
        self._open.append(engine.connect())
        return self._open[-1]

    def close(self) -> None:
        for connection in self._open:
            connection.close()


class Django(Reading):
    """One of Django's databases, set up for this process: `default` is the SQLite file."""

    def __init__(self, url: str, using: str) -> None:
        super().__init__(url)
        from django.db import connections

        self.connection = connections[using]
        self._using = using

    @contextmanager
    def begin(self) -> Iterator[Any]:
        from django.db import transaction

        with transaction.atomic(using=self._using):
            yield self.connection

    savepoint = begin

    def order(self, name: str) -> None:
        with self.connection.cursor() as cursor:
            cursor.execute("INSERT INTO orders VALUES (%s)", [name])

    def by_itself(self) -> Any:
        return self.connection

    def close(self) -> None:
        self.connection.close()


def make_application(kind: str, url: str) -> Any:
    """The application of that kind on that database."""
    match kind.split():
        case ["sqlite3"]:
            return Sqlite3(url)
        case ["psycopg"]:
            return Psycopg(url)
        case ["django", "on", database]:
            using = "default" if database == "sqlite" else "postgresql"
            set_up_django(using, url)
            return Django(url, using)
        case [what, "on", _]:
            return Alchemy(url, session=what == "session")
    raise ValueError(kind)


def set_up_django(using: str, url: str) -> None:
    """Let Django's database of this name be the one at ``url``: a process has one Django."""
    import django
    from django.conf import settings
    from django.db import connections

    if not settings.configured:
        nowhere = {"ENGINE": "django.db.backends.sqlite3", "NAME": "/nowhere/at-all"}
        settings.configure(
            DATABASES={"default": dict(nowhere), "postgresql": dict(nowhere)},
            INSTALLED_APPS=["celeriac.contrib.django"],
            USE_TZ=True,
        )
        django.setup()
    chosen = connections.settings[using]
    if url.startswith("sqlite"):
        chosen.update(ENGINE="django.db.backends.sqlite3", NAME=url[len("sqlite:///") :])
    else:
        parts = psycopg.conninfo.conninfo_to_dict(url)
        chosen.update(
            ENGINE="django.db.backends.postgresql",
            NAME=parts["dbname"],
            USER=parts["user"],
            HOST=parts["host"],
            PORT=parts["port"],
        )
    if hasattr(connections._connections, using):
        delattr(connections._connections, using)
