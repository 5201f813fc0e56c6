"""What goes wrong in the application's database, in words that help. Looks at errors of any driver, imports none."""

from __future__ import annotations

from collections.abc import Iterator

from celeriac.exceptions import ImproperlyConfigured
from celeriac.model.outbox import OUTBOX_TABLE

__all__ = ["autocommit", "is_missing", "missing"]

_UNDEFINED_TABLE = "42P01"


def is_missing(error: BaseException) -> bool:
    """The driver, or what is wrapped around it, says that the table is not there."""
    return any(
        getattr(each, "sqlstate", None) == _UNDEFINED_TABLE
        or getattr(each, "pgcode", None) == _UNDEFINED_TABLE
        or f"no such table: {OUTBOX_TABLE}" in str(each)
        for each in _chain(error)
    )


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error, and those that it wraps: SQLAlchemy's ``orig``, Django's cause."""
    seen: BaseException | None = error
    for _ in range(5):
        if seen is None:
            return
        yield seen
        orig = getattr(seen, "orig", None)
        seen = orig if isinstance(orig, BaseException) else seen.__cause__


def missing(where: str = "this database") -> ImproperlyConfigured:
    """The error for a database without the table."""
    return ImproperlyConfigured(
        f"{where} has no table {OUTBOX_TABLE}: run `celeriac outbox migrate URL`, or with Django add "
        "'celeriac.contrib.django' to INSTALLED_APPS and run `manage.py migrate`"
    )


def autocommit(how: str) -> ImproperlyConfigured:
    """The error for a connection on which each statement is a transaction of its own."""
    return ImproperlyConfigured(
        f"app.transaction(): no transaction is open, and the connection commits each statement by itself; {how}"
    )
