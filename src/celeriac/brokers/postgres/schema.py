"""The schema: which version is there, how it is made and brought up to this code's version.

Migrations run in one transaction under an advisory lock, so any number of processes may start at once. Used by both
kinds of connections, by the ``migrate`` command, and by nothing else.
"""

from __future__ import annotations

from contextlib import closing

import psycopg
from psycopg import errors
from psycopg.conninfo import make_conninfo

from celeriac.brokers.postgres.address import Address
from celeriac.brokers.postgres.errors import lost, refused
from celeriac.brokers.postgres.statements import VERSION, functions, migration, quoted
from celeriac.exceptions import OperationalError

__all__ = ["bring_up", "found", "migrate", "mismatch"]

#: Seconds for one step of a migration, and for others who migrate in this moment.
_PATIENCE = 600


Connection = psycopg.Connection[tuple[object, ...]]


def found(connection: Connection, address: Address) -> int:
    """The version that is there; 0: none."""
    name = quoted(address.schema)
    if connection.execute("SELECT to_regclass(%s)", (f"{name}.version",)).fetchone() == (None,):
        return 0
    row = connection.execute(f"SELECT number FROM {name}.version".encode()).fetchone()
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


def bring_up(address: Address, *, by_force: bool = False) -> tuple[int, int]:
    """Make sure that the schema has this code's version: with ``auto_migrate``, or by force, make it so. Returns the
    version before and the one now. Connects for it. Raises ``OperationalError``."""
    try:
        with closing(_connected(address)) as connection:
            version = found(connection, address)
            if version == VERSION:
                return version, version
            if version > VERSION or not (address.auto_migrate or by_force):
                raise mismatch(address, version)
            try:
                return migrate(connection, address)
            except errors.InsufficientPrivilege as error:
                raise (refused(address, error) if by_force else mismatch(address, version)) from error
    except psycopg.OperationalError as error:
        raise lost(address, error) from error
    except psycopg.Error as error:
        raise refused(address, error) from error


def _connected(address: Address) -> Connection:
    """To the first place that answers."""
    seconds = max(2, round(address.connect_timeout))
    for parameters in address.places[:-1]:
        try:
            return psycopg.connect(make_conninfo(**parameters), autocommit=True, connect_timeout=seconds)
        except psycopg.OperationalError:
            continue
    return psycopg.connect(make_conninfo(**address.places[-1]), autocommit=True, connect_timeout=seconds)


def migrate(connection: Connection, address: Address, to: int = VERSION) -> tuple[int, int]:
    """Bring the schema up to a version; returns the one before and the one now. Raises psycopg's errors, and
    ``OperationalError`` for a schema that is newer."""
    name = quoted(address.schema)
    with connection.transaction():
        connection.execute(f"SET LOCAL statement_timeout = '{_PATIENCE}s'".encode())
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
