"""Which connections `app.transaction()` takes, and what it says to others."""

from __future__ import annotations

import contextvars
import sqlite3
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from celeriac import Celery
from celeriac.client.transactions import outlet_of, relayed
from celeriac.exceptions import ImproperlyConfigured
from celeriac.outbox.connections import raw_of, writer_of
from celeriac.outbox.errors import is_missing
from celeriac.outbox.stores import store_of


@pytest.fixture
def app(tmp_path: Path) -> Any:
    url = f"sqlite:///{tmp_path / 'a.db'}"
    store = store_of(url)
    store.create()
    store.close()
    with Celery("shop", broker="memory://connections", outbox_url=url) as made:
        yield made


def test_a_stranger_is_named() -> None:
    with pytest.raises(TypeError, match=r"takes connections of psycopg 3, .* not dict"):
        writer_of({})


def test_an_engine_is_no_connection(tmp_path: Path) -> None:
    engine = sqlalchemy.create_engine(f"sqlite:///{tmp_path / 'a.db'}")
    with pytest.raises(TypeError, match="a Session, an AsyncSession or a Connection of SQLAlchemy, not Engine"):
        writer_of(engine)


def test_asynchronous_connections_are_refused() -> None:
    class AsyncConnection:
        __module__ = "psycopg"
        __aenter__ = None

    with pytest.raises(TypeError, match="asynchronous connection of psycopg: use AsyncSession"):
        writer_of(AsyncConnection())


def test_other_databases_are_refused() -> None:
    class Wrapper:
        __module__ = "django.db.backends.mysql.base"
        vendor = "mysql"

    with pytest.raises(ImproperlyConfigured, match="no outbox for mysql, only for postgresql and sqlite"):
        writer_of(Wrapper())


def test_what_a_scoped_session_stands_for(app: Celery) -> None:
    engine = sqlalchemy.create_engine(app.conf.outbox_url)
    scoped = scoped_session(sessionmaker(engine))
    with app.transaction(scoped):
        app.send_task("a")
    assert len(scoped().new) == 1
    scoped.commit()
    scoped.remove()
    engine.dispose()
    connection = sqlite3.connect(app.conf.outbox_url[len("sqlite:///") :])
    assert connection.execute("SELECT task FROM celeriac_outbox").fetchall() == [("a",)]
    connection.close()


def test_a_subclass_is_as_good(app: Celery) -> None:
    class Mine(sqlite3.Connection):
        pass

    connection = sqlite3.connect(app.conf.outbox_url[len("sqlite:///") :], factory=Mine)
    with connection, app.transaction(connection):
        app.send_task("a")
    assert connection.execute("SELECT count(*) FROM celeriac_outbox").fetchone() == (1,)
    assert raw_of(connection)() is connection
    connection.close()


def test_begin_by_hand_is_a_transaction(app: Celery) -> None:
    connection = sqlite3.connect(app.conf.outbox_url[len("sqlite:///") :], isolation_level=None)
    with app.transaction(connection):
        with pytest.raises(ImproperlyConfigured, match="execute BEGIN first"):
            app.send_task("a")
        connection.execute("BEGIN")
        app.send_task("a")
        connection.execute("ROLLBACK")
    assert connection.execute("SELECT count(*) FROM celeriac_outbox").fetchone() == (0,)
    connection.close()


def test_a_session_of_the_driver(app: Celery) -> None:
    engine = sqlalchemy.create_engine(app.conf.outbox_url)
    with Session(engine) as session:
        assert hasattr(raw_of(session)(), "cursor")
    engine.dispose()


def test_no_outbox_and_a_broker_elsewhere() -> None:
    with Celery("shop", broker="memory://connections") as app:
        connection = sqlite3.connect(":memory:")
        with pytest.raises(ImproperlyConfigured, match="needs the setting outbox_url"):
            app.transaction(connection)
        connection.close()


def test_the_arguments(app: Celery) -> None:
    with pytest.raises(TypeError, match="needs the connection"):
        app.transaction()
    with pytest.raises(TypeError, match="not both"):
        app.transaction(object(), using="default")


def test_a_block_ends_with_what_is_raised(app: Celery) -> None:
    connection = sqlite3.connect(app.conf.outbox_url[len("sqlite:///") :])

    def work() -> None:
        with app.transaction(connection):
            assert relayed(app.conf)
            raise KeyError

    with pytest.raises(KeyError):
        work()
    assert outlet_of(app.conf) is None
    connection.close()


def test_who_copied_the_context_sends_as_ever_when_the_block_is_over(app: Celery) -> None:
    connection = sqlite3.connect(app.conf.outbox_url[len("sqlite:///") :])
    with connection, app.transaction(connection):
        context = contextvars.copy_context()
        context.run(app.send_task, "inside")
    context.run(app.send_task, "behind")
    assert connection.execute("SELECT task FROM celeriac_outbox").fetchall() == [("inside",)]
    assert app.sender.publisher.depth(["celery"], timeout=1.0)["celery"].ready == 1
    app.sender.publisher.purge("celery", timeout=1.0)
    connection.close()


def test_what_says_that_the_table_is_missing() -> None:
    class Undefined(Exception):
        sqlstate = "42P01"

    class Wrapped(Exception):
        orig = Undefined()

    outer = Exception("outer")
    outer.__cause__ = Wrapped()
    assert is_missing(outer)
    assert is_missing(sqlite3.OperationalError("no such table: celeriac_outbox"))
    assert not is_missing(sqlite3.OperationalError("no such table: orders"))
