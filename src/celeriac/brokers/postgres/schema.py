"""The schema: which version is there, how it is made and brought up to this code's version.

Migrations run in one transaction under an advisory lock, so any number of processes may start at once. Used by both
kinds of connections, by the ``migrate`` command, and by nothing else.
"""

from __future__ import annotations

import psycopg
from psycopg import errors

from celeriac.brokers.postgres.address import Address
from celeriac.brokers.postgres.statements import VERSION, calls, functions, migration, quoted
from celeriac.exceptions import OperationalError

__all__ = ["found", "migrate", "mismatch", "prepare"]

_MISSING = (errors.UndefinedTable, errors.InvalidSchemaName)


def found(connection: psycopg.Connection[tuple[object, ...]], address: Address) -> int:
    """The version that is there; 0: none. In a transaction of its own."""
    try:
        row = connection.execute(calls(address.schema)["version"]).fetchone()
    except _MISSING:
        return 0
    return int(str(row[0])) if row is not None else 0


def mismatch(address: Address, version: int) -> OperationalError:
    """What to say when the versions differ and nothing can be done here."""
    where = f"the schema {address.schema!r} of PostgreSQL at {address.masked}"
    if version > VERSION:
        return OperationalError(
            f"{where} has version {version}, this Celeriac knows {VERSION}: upgrade Celeriac in this process"
        )
    state = f"has version {version}, this Celeriac needs {VERSION}" if version else "does not exist"
    return OperationalError(f"{where} {state}: run `celeriac -A proj migrate` as a role that may create it")


def prepare(connection: psycopg.Connection[tuple[object, ...]], address: Address) -> None:
    """Make sure that the schema has this code's version; with ``auto_migrate`` make it so. Raises
    ``OperationalError``."""
    version = found(connection, address)
    if version == VERSION:
        return
    if version > VERSION or not address.auto_migrate:
        raise mismatch(address, version)
    try:
        migrate(connection, address)
    except errors.InsufficientPrivilege as error:
        raise mismatch(address, version) from error


def migrate(connection: psycopg.Connection[tuple[object, ...]], address: Address, to: int = VERSION) -> tuple[int, int]:
    """Bring the schema up to a version; returns the one before and the one now. Raises psycopg's errors, and
    ``OperationalError`` for a schema that is newer."""
    name = quoted(address.schema)
    with connection.transaction():
        connection.execute(
            "SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", (f"celeriac migrate {address.schema}",)
        )
        if connection.execute("SELECT to_regnamespace(%s)", (name,)).fetchone() == (None,):
            connection.execute(f"CREATE SCHEMA {name}".encode())
        table = connection.execute("SELECT to_regclass(%s)", (f"{name}.version",)).fetchone()
        version = 0
        if table == (None,):
            connection.execute(f"CREATE TABLE {name}.version (number integer NOT NULL)".encode())
            connection.execute(f"INSERT INTO {name}.version VALUES (0)".encode())
        else:
            row = connection.execute(f"SELECT number FROM {name}.version FOR UPDATE".encode()).fetchone()
            version = int(str(row[0])) if row is not None else 0
        if version > to:
            raise mismatch(address, version)
        if version < to:
            for number in range(version + 1, to + 1):
                connection.execute(migration(number, address.schema))
            connection.execute(functions(address.schema))
            connection.execute(f"UPDATE {name}.version SET number = %s".encode(), (to,))
    return version, to
