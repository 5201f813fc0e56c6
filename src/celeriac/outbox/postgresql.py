"""The outbox on PostgreSQL: rows are held by row locks, which end with whoever holds them.

Two connections: one for work, one that listens. Made by ``stores.py``; used by one thread at a time.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import psycopg

from celeriac.conf.masking import mask_url
from celeriac.exceptions import ImproperlyConfigured, OperationalError
from celeriac.model.outbox import OUTBOX_TABLE, Fault, Row, Standing
from celeriac.outbox.errors import is_missing, missing
from celeriac.outbox.schema import ddl, statements
from celeriac.outbox.stores import row_of
from celeriac.ports import OutboxStore

__all__ = ["store"]

_SQL = statements("postgresql_relay.sql")
#: What the URL does not say: a server that is away is found within seconds, and a lock of ours within a minute.
_DEFAULTS = {
    "connect_timeout": "5",
    "application_name": "celeriac outbox",
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "15000",
}


def store(url: str) -> OutboxStore:
    """Raises ``ImproperlyConfigured`` for a URL that libpq does not understand."""
    return _Store(url)


class _Store:
    def __init__(self, url: str) -> None:
        self._shown = mask_url(url)
        try:
            given = psycopg.conninfo.conninfo_to_dict(url)
        except psycopg.ProgrammingError as error:
            raise ImproperlyConfigured(f"{self._shown} is no URL of PostgreSQL: {_line(error)}") from None
        self._conninfo = psycopg.conninfo.make_conninfo("", **{**_DEFAULTS, **given})
        self._pid = 0
        self._work: psycopg.Connection[Any] | None = None
        self._ears: psycopg.Connection[Any] | None = None

    # -- connections

    def _connection(self) -> psycopg.Connection[Any]:
        if self._pid != os.getpid():  # the sockets of a process that forked are its own
            self._work = self._ears = None
            self._pid = os.getpid()
        work = self._work
        if work is None or work.closed:
            work = self._work = self._connect()
        return work

    def _connect(self) -> psycopg.Connection[Any]:
        # Prepared statements would fail behind a PgBouncer that shares connections.
        return psycopg.connect(self._conninfo, autocommit=True, prepare_threshold=None)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """The driver's errors become ours; a connection that failed is not used again."""
        try:
            yield
        except psycopg.Error as error:
            if is_missing(error):
                self._rollback()
                raise missing(self._shown) from error
            self.close()
            raise OperationalError(f"{self._shown}: {_line(error)}") from error

    def _rollback(self) -> None:
        if self._work is not None:
            with suppress(psycopg.Error):
                self._work.rollback()

    def close(self) -> None:
        """See ``OutboxStore``."""
        connections = (self._work, self._ears) if self._pid == os.getpid() else ()
        self._work = self._ears = None
        for connection in connections:
            if connection is not None:
                with suppress(psycopg.Error):
                    connection.close()

    # -- relaying

    def take(self, limit: int) -> Sequence[Row]:
        """See ``OutboxStore``."""
        with self._translated():
            work = self._connection()
            if not work.execute(_SQL["look"]).fetchone()[0]:  # type: ignore[index]  # it has one row
                return []
            work.execute("BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE")  # whatever the role's default is
            rows = [row_of(columns) for columns in work.execute(_SQL["take"], (limit,))]
            if not rows:
                work.execute("ROLLBACK")
            return rows

    def settle(self, done: Sequence[str], faults: Sequence[Fault]) -> None:
        """See ``OutboxStore``."""
        with self._translated():
            work = self._connection()
            with work.pipeline():
                if done:
                    work.execute(_SQL["done"], (list(done),))
                for fault in faults:
                    # A text of PostgreSQL holds no NUL.
                    error = fault.error.replace("\0", "\N{REPLACEMENT CHARACTER}")
                    work.execute(_SQL["fault"], (fault.pause, fault.pause is None, error, fault.id))
                work.execute("COMMIT")

    def put_back(self) -> None:
        """See ``OutboxStore``."""
        self._rollback()

    def wait(self, seconds: float) -> bool:
        """See ``OutboxStore``."""
        with self._translated():
            self._connection()
            ears = self._ears
            if ears is None or ears.closed:
                ears = self._ears = self._connect()
                ears.execute(f"LISTEN {OUTBOX_TABLE}")
                return True  # what was told before nobody heard
            return any(True for _ in ears.notifies(timeout=seconds, stop_after=1))

    # -- looking after it

    def standing(self) -> Standing:
        """See ``OutboxStore``."""
        with self._translated():
            waiting, failed, oldest = self._connection().execute(_SQL["standing"]).fetchone()  # type: ignore[misc]
            return Standing(waiting=waiting, failed=failed, oldest=oldest)

    def list(self, *, failed: bool | None, limit: int) -> Sequence[Row]:
        """See ``OutboxStore``."""
        with self._translated():
            found = self._connection().execute(_SQL["list"], (failed, failed, limit))
            return [row_of(columns) for columns in found]

    def retry(self, ids: Sequence[str] | None) -> int:
        """See ``OutboxStore``."""
        return self._change("retry", ids)

    def drop(self, ids: Sequence[str] | None) -> int:
        """See ``OutboxStore``."""
        return self._change("drop", ids)

    def _change(self, what: str, ids: Sequence[str] | None) -> int:
        with self._translated():
            if ids is None:
                return self._connection().execute(_SQL[f"{what}_failed"]).rowcount
            return self._connection().execute(_SQL[what], (list(ids), list(ids))).rowcount

    def create(self) -> None:
        """See ``OutboxStore``. Two at a time wait for each other."""
        with self._translated(), self._connection().transaction():
            self._connection().execute("SELECT pg_advisory_xact_lock(hashtext(%s))", (OUTBOX_TABLE,))
            for statement in ddl("postgresql"):
                self._connection().execute(statement)


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
