"""The outbox on SQLite: one relay at a time, which holds a lock on a file beside the database while it publishes.

The lock ends with the process that has it. The database itself is locked for the moment of a write only, so the
application goes on while a broker is slow. Made by ``stores.py``; used by one thread at a time.
"""

from __future__ import annotations

import fcntl
import json
import os
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from celeriac.exceptions import ImproperlyConfigured, OperationalError
from celeriac.model.outbox import Fault, Row, Standing
from celeriac.outbox.errors import is_missing, missing
from celeriac.outbox.schema import ddl, statements
from celeriac.outbox.stores import row_of
from celeriac.ports import OutboxStore

__all__ = ["store"]

_SQL = statements("sqlite_relay.sql")
#: Seconds for which a write waits for the application's.
_BUSY = 10.0
#: Seconds between two looks at the files: no statement, two calls of the system.
_LOOK = 0.05
#: Nanoseconds within which two changes of a file may get one time stamp: that of the kernel's tick, doubled and more.
_GRAIN = 40_000_000


def store(url: str) -> OutboxStore:
    """Raises ``ImproperlyConfigured`` for a URL that names no file."""
    return _Store(url)


class _Store:
    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        path = unquote(parts.path)
        if parts.netloc or len(path) < 2 or path == "/:memory:":
            raise ImproperlyConfigured(
                f"outbox_url is {url!r}: write sqlite:///relative.db or sqlite:////absolute/path.db (three or four "
                "slashes); what is in memory no relay can see"
            )
        self._path = Path(os.path.realpath(path[1:]))
        self._pid = 0
        self._work: sqlite3.Connection | None = None
        #: The files' stamps at the last look.
        self._seen: tuple[tuple[int, int] | None, ...] = ()
        #: The lock file, open while rows are taken.
        self._lock: int | None = None

    # -- connection and lock

    def _connection(self) -> sqlite3.Connection:
        if self._pid != os.getpid():
            self._work, self._lock, self._pid = None, None, os.getpid()
        if self._work is None:
            if not self._path.exists():  # SQLite would make an empty one
                raise OperationalError(f"there is no database {self._path}")
            self._work = sqlite3.connect(self._path, timeout=_BUSY, isolation_level=None, check_same_thread=False)
        return self._work

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            self.close()
            if is_missing(error):
                raise missing(str(self._path)) from error
            raise OperationalError(f"{self._path}: {error}") from error
        except OSError as error:
            self.close()
            raise OperationalError(f"{self._path}: {error.strerror or error}") from error

    def _locked(self) -> bool:
        """Be the one relay of this database, if nobody is."""
        lock = os.open(f"{self._path}-relay", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            return False
        self._lock = lock
        return True

    def _unlock(self) -> None:
        lock, self._lock = self._lock, None
        if lock is not None and self._pid == os.getpid():
            os.close(lock)

    def close(self) -> None:
        """See ``OutboxStore``."""
        self._unlock()
        work, self._work = self._work, None
        if work is not None and self._pid == os.getpid():
            with suppress(sqlite3.Error):
                work.close()

    # -- relaying

    def take(self, limit: int) -> Sequence[Row]:
        """See ``OutboxStore``."""
        with self._translated():
            work = self._connection()
            stamps = self._stamps()
            # Another commit within the grain of a file's time would leave no trace: then look once more.
            fresh = time.time_ns() - _GRAIN
            self._seen = () if any(stamp is not None and stamp[0] > fresh for stamp in stamps) else stamps
            if not self._locked():
                return []
            rows = [row_of(columns) for columns in work.execute(_SQL["take"], (time.time(), limit))]
            if not rows:
                self._unlock()
            return rows

    def settle(self, done: Sequence[str], faults: Sequence[Fault]) -> None:
        """See ``OutboxStore``."""
        with self._translated():
            work = self._connection()
            work.execute("BEGIN IMMEDIATE")
            try:
                work.execute(_SQL["done"], (json.dumps(list(done)),))
                now = time.time()
                for fault in faults:
                    due = None if fault.pause is None else now + fault.pause
                    work.execute(_SQL["fault"], (due, fault.pause is None, fault.error, fault.id))
                work.execute("COMMIT")
            finally:
                if work.in_transaction:
                    work.execute("ROLLBACK")
            self._unlock()

    def put_back(self) -> None:
        """See ``OutboxStore``."""
        self._unlock()

    def wait(self, seconds: float) -> bool:
        """See ``OutboxStore``. SQLite tells nobody, but a commit changes the file or its log."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            time.sleep(min(_LOOK, left))
            if self._stamps() != self._seen:
                return True
        return False

    def _stamps(self) -> tuple[tuple[int, int] | None, ...]:
        """When the files of the database were changed last, and how long they are."""
        stamps: list[tuple[int, int] | None] = []
        for suffix in ("", "-wal"):
            try:
                status = os.stat(f"{self._path}{suffix}")
            except OSError:
                stamps.append(None)
            else:
                stamps.append((status.st_mtime_ns, status.st_size))
        return tuple(stamps)

    # -- looking after it

    def standing(self) -> Standing:
        """See ``OutboxStore``."""
        with self._translated():
            waiting, failed, oldest = self._connection().execute(_SQL["standing"], (time.time(),)).fetchone()
            return Standing(waiting=waiting, failed=failed, oldest=oldest)

    def list(self, *, failed: bool | None, limit: int) -> Sequence[Row]:
        """See ``OutboxStore``."""
        with self._translated():
            found = self._connection().execute(_SQL["list"], (time.time(), failed, limit))
            return [row_of(columns) for columns in found]

    def retry(self, ids: Sequence[str] | None) -> int:
        """See ``OutboxStore``."""
        return self._change("retry", ids)

    def drop(self, ids: Sequence[str] | None) -> int:
        """See ``OutboxStore``."""
        return self._change("drop", ids)

    def _change(self, what: str, ids: Sequence[str] | None) -> int:
        parameters: tuple[Any, ...] = () if ids is None else (json.dumps(list(ids)),)
        with self._translated():
            return self._connection().execute(_SQL[what if ids is not None else f"{what}_failed"], parameters).rowcount

    def create(self) -> None:
        """See ``OutboxStore``. Makes the file too, where there is none."""
        with self._translated():
            if not self._path.exists():
                self._path.touch()
            for statement in ddl("sqlite"):
                self._connection().execute(statement)
