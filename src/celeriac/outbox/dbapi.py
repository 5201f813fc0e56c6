"""Writes through connections of sqlite3, psycopg 3 and psycopg2. Imports none of them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

from celeriac.model.outbox import Parcel
from celeriac.outbox.errors import autocommit, is_missing, missing
from celeriac.outbox.insert import inserts
from celeriac.ports import OutboxWriter

__all__ = ["raw", "writer"]

#: ``transaction_status`` of libpq while no transaction is open.
_IDLE = 0


def writer(connection: Any) -> OutboxWriter:
    """Raises ``TypeError`` for asynchronous connections: ``delay()`` cannot wait on their loop."""
    return _Writer(connection)


def raw(connection: Any) -> Callable[[], Any]:
    """See ``connections.raw_of``."""
    return _Writer(connection).checked


class _Writer:
    def __init__(self, connection: Any) -> None:
        if hasattr(connection, "__aenter__"):
            raise TypeError(
                "app.transaction() cannot write through an asynchronous connection of psycopg: use AsyncSession of "
                "SQLAlchemy, or a synchronous connection on a thread"
            )
        self._connection = connection
        self._sqlite = any(cls.__module__ == "sqlite3" for cls in type(connection).__mro__)
        self._mark = "?" if self._sqlite else "%s"

    def checked(self) -> Any:
        """The connection, on which a transaction is open or begins by itself."""
        connection = self._connection
        if self._sqlite:
            # Python 3.12 knows `autocommit`; before, and when that is the legacy mode, `isolation_level` says it.
            by_itself = getattr(connection, "autocommit", None) is True or (
                connection.isolation_level is None and getattr(connection, "autocommit", None) is not False
            )
            if by_itself and not connection.in_transaction:
                raise autocommit("execute BEGIN first")
        elif connection.autocommit and connection.info.transaction_status == _IDLE:
            raise autocommit("open one by `with connection.transaction():`, or switch autocommit off")
        return connection

    def _cursor(self) -> Any:
        connection = self.checked()
        psycopg = sys.modules.get("psycopg")
        if psycopg is not None and isinstance(connection, psycopg.Connection):
            return psycopg.Cursor(connection)  # its own factory may want other parameters, such as $1
        return connection.cursor()

    def write(self, parcels: Sequence[Parcel]) -> None:
        """See ``OutboxWriter``."""
        cursor = self._cursor()
        try:
            for statement, parameters in inserts(self._mark, parcels):
                cursor.execute(statement, parameters)
        except Exception as error:
            if is_missing(error):
                raise missing() from error
            raise
        finally:
            cursor.close()
