"""Writes through Django's connections, on SQLite and PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from celeriac.exceptions import ImproperlyConfigured
from celeriac.model.outbox import Parcel
from celeriac.outbox.errors import autocommit, is_missing, missing
from celeriac.outbox.insert import inserts
from celeriac.outbox.schema import DIALECTS
from celeriac.ports import OutboxWriter

__all__ = ["named", "raw", "writer"]


def named(using: str) -> Any:
    """Django's connection of that name, of this thread. Raises ``ImproperlyConfigured`` where there is no Django."""
    try:
        from django.db import connections  # type: ignore[import-untyped]
    except ImportError as error:
        raise ImproperlyConfigured(f"app.transaction(using={using!r}) is for Django, which is not installed") from error
    return connections[using]


def writer(connection: Any) -> OutboxWriter:
    """Raises ``ImproperlyConfigured`` for other databases, MySQL among them."""
    return _Writer(connection)


def raw(connection: Any) -> Callable[[], Any]:
    """See ``connections.raw_of``."""
    return _Writer(connection).checked


class _Writer:
    def __init__(self, connection: Any) -> None:
        if not hasattr(connection, "vendor"):
            raise TypeError(f"app.transaction() takes a connection of Django, not {type(connection).__qualname__}")
        if connection.vendor not in DIALECTS:
            raise ImproperlyConfigured(
                f"app.transaction(): there is no outbox for {connection.vendor}, only for {' and '.join(DIALECTS)}"
            )
        self._connection = connection

    def checked(self) -> Any:
        """The connection, on which a transaction is open."""
        connection = self._connection
        if not connection.in_atomic_block and connection.get_autocommit():
            raise autocommit("write `with transaction.atomic(), app.transaction(using=…):`")
        return connection

    def write(self, parcels: Sequence[Parcel]) -> None:
        """See ``OutboxWriter``."""
        with self.checked().cursor() as cursor:
            try:
                for statement, parameters in inserts("%s", parcels):
                    cursor.execute(statement, parameters)
            except Exception as error:
                if is_missing(error):
                    raise missing() from error
                raise
