"""From a connection of the application to the writer for it, by the module of its type: nothing is imported that the
application has not imported itself. Called by ``app.transaction()``.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any, Protocol, cast

from celeriac.ports import OutboxWriter

__all__ = ["raw_of", "writer_of"]

#: First part of the name of a type's module → ours.
_MODULES = {
    "django": "celeriac.outbox.django",
    "sqlalchemy": "celeriac.outbox.sqlalchemy",
    "sqlite3": "celeriac.outbox.dbapi",
    "psycopg": "celeriac.outbox.dbapi",
    "psycopg2": "celeriac.outbox.dbapi",
}
_KNOWN = "psycopg 3, psycopg2 and sqlite3, Session and Connection of SQLAlchemy, and Django's"


class _Module(Protocol):
    def writer(self, connection: Any) -> OutboxWriter: ...

    def raw(self, connection: Any) -> Callable[[], Any]: ...


def writer_of(connection: Any) -> OutboxWriter:
    """The writer through a connection. Raises ``TypeError`` for what is none, or none that we know."""
    return _module(connection).writer(connection)


def raw_of(connection: Any) -> Callable[[], Any]:
    """Gives, at each send, what has the driver's ``cursor()`` in the same transaction. Raises as ``writer_of``."""
    return _module(connection).raw(connection)


def _module(connection: Any) -> _Module:
    for cls in type(connection).__mro__:
        module = _MODULES.get(cls.__module__.partition(".")[0])
        if module is not None:
            return cast("_Module", import_module(module))
    raise TypeError(f"app.transaction() takes connections of {_KNOWN}, not {type(connection).__qualname__}")
