"""Writes through SQLAlchemy: a Session gets objects, which it inserts when it flushes; a Connection a statement.

Objects obey what the session obeys: a savepoint that is rolled back takes them along, and an AsyncSession inserts them
on its own loop, where ``delay()`` could not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any
from weakref import WeakSet

from sqlalchemy import LargeBinary, Text, event
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from celeriac.exceptions import ImproperlyConfigured
from celeriac.model.outbox import OUTBOX_TABLE, Parcel
from celeriac.outbox.errors import autocommit, is_missing, missing
from celeriac.outbox.insert import COLUMNS, values
from celeriac.outbox.schema import DIALECTS
from celeriac.ports import OutboxWriter

__all__ = ["raw", "writer"]


class _Base(DeclarativeBase):
    """Its own: the table belongs to no metadata of the application."""


class OutboxRow(_Base):
    """A row as it is written; the other columns have defaults."""

    __tablename__ = OUTBOX_TABLE

    id: Mapped[str] = mapped_column(Text, primary_key=True)
    kind: Mapped[str] = mapped_column(Text)
    task: Mapped[str] = mapped_column(Text)
    task_id: Mapped[str] = mapped_column(Text)
    queue: Mapped[str] = mapped_column(Text)
    body: Mapped[bytes] = mapped_column(LargeBinary)


def writer(connection: Any) -> OutboxWriter:
    """Raises ``TypeError`` for what is neither session nor connection, and for connections of asyncio."""
    connection = _plain(connection)
    return _Sessions(connection) if isinstance(connection, Session) else _Connections(connection)


def raw(connection: Any) -> Callable[[], Any]:
    """See ``connections.raw_of``: the driver's connection that the transaction is on."""
    if hasattr(_unscoped(connection), "sync_session"):
        raise TypeError(
            "app.transaction(): tasks go straight into the broker's tables here, which an AsyncSession cannot do; send "
            "inside `await session.run_sync(…)`, or set outbox_url"
        )
    connection = _plain(connection)

    def driver() -> Any:
        used = connection.connection() if isinstance(connection, Session) else connection
        _check(used)
        return used.connection

    return driver


def _plain(connection: Any) -> Session | Connection:
    """The session or connection that is meant."""
    connection = _unscoped(connection)
    connection = getattr(connection, "sync_session", connection)  # an AsyncSession's, which needs greenlet
    if isinstance(connection, (Session, Connection)):
        return connection
    raise TypeError(
        "app.transaction() takes a Session, an AsyncSession or a Connection of SQLAlchemy, not "
        f"{type(connection).__qualname__}"
    )


def _unscoped(connection: Any) -> Any:
    """The session of a ``scoped_session`` or an ``async_scoped_session``."""
    return connection() if hasattr(connection, "session_factory") else connection


def _check(bind: Engine | Connection) -> None:
    """Raises ``ImproperlyConfigured`` for other databases, and where each statement is a transaction of its own."""
    dialect = bind.dialect
    if dialect.name not in DIALECTS:
        raise ImproperlyConfigured(
            f"app.transaction(): there is no outbox for {dialect.name}, only for {' and '.join(DIALECTS)}"
        )
    level = bind.get_execution_options().get("isolation_level") or getattr(dialect, "_on_connect_isolation_level", None)
    if level == "AUTOCOMMIT":
        raise autocommit("its isolation level is AUTOCOMMIT: use an engine with another one")


class _Connections:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def write(self, parcels: Sequence[Parcel]) -> None:
        """See ``OutboxWriter``."""
        _check(self._connection)
        rows = [dict(zip(COLUMNS, values(parcel), strict=True)) for parcel in parcels]
        try:
            self._connection.execute(OutboxRow.__table__.insert(), rows)  # type: ignore[attr-defined]
        except Exception as error:
            if is_missing(error):
                raise missing() from error
            raise


class _Sessions:
    def __init__(self, session: Session) -> None:
        self._session = session

    def write(self, parcels: Sequence[Parcel]) -> None:
        """See ``OutboxWriter``. That the table is missing comes out when the session flushes."""
        bind = self._session.get_bind(OutboxRow)
        _check(bind)
        _explain(bind.engine)
        self._session.add_all([OutboxRow(**dict(zip(COLUMNS, values(parcel), strict=True))) for parcel in parcels])


#: Engines whose errors are explained.
_explained: WeakSet[Engine] = WeakSet()


def _explain(engine: Engine) -> None:
    """Let a flush say which table is missing, and what to do."""
    if engine in _explained:
        return
    _explained.add(engine)

    @event.listens_for(engine, "handle_error")
    def tell(context: Any) -> None:
        if OUTBOX_TABLE in (context.statement or "") and is_missing(context.original_exception):
            raise missing() from context.original_exception
