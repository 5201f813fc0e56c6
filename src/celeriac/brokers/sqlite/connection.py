"""One connection to a Celeriac file: opens and creates it, runs work in transactions, notices when it is gone.

Tries once and never waits: a lock held by another process is ``Busy``, and the callers know how to wait (blocking.py,
broker_port.py). Knows no table. Not to be used by two threads at a time.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable
from typing import TypeVar

from celeriac.brokers.sqlite.address import Address
from celeriac.brokers.sqlite.errors import Busy, cannot_open, is_busy, refused, replaced, spoils
from celeriac.brokers.sqlite.forks import crossing
from celeriac.brokers.sqlite.statements import statements
from celeriac.exceptions import OperationalError

__all__ = ["Connection"]

T = TypeVar("T")

_APPLICATION = 0x43656C72  # "Celr"
_VERSION = 4
_SCHEMA = statements("schema.sql")
#: Pages of the log after which a commit copies them into the file. Workers do it earlier and aside (upkeep.py).
_CHECKPOINT_PAGES = 8000

#: Connections that a fork brought along in spite of forks.py (one from C code): not to be touched, not even closed.
_inherited: list[sqlite3.Connection] = []
#: Closing any descriptor of a file drops the locks that SQLite holds on it in this process (POSIX), so nobody may
#: connect between the creation of the file and the closing of that descriptor.
_creation = threading.Lock()


class Connection:
    """A connection that opens itself when needed. After an error that spoils it, the next call opens anew."""

    #: Here, for ``__del__``: a signal's exception may come before all of ``__init__``.
    _sqlite: sqlite3.Connection | None = None

    def __init__(self, address: Address) -> None:
        self.path = address.path
        self._synchronous = address.synchronous
        self._identity = (0, 0)
        self._pid = 0

    def write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run ``work`` in one transaction that holds the write lock. All of it is durable when this returns, or nothing
        of it happened: ``Busy`` when another connection has the lock, else ``OperationalError``."""
        return self._run(work, "BEGIN IMMEDIATE")

    def read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run ``work`` on one snapshot; errors as ``write``."""
        return self._run(work, "BEGIN")

    def bare(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run ``work`` outside of a transaction: single reads, checkpoints; errors as ``write``."""
        return self._run(work, None)

    def _run(self, work: Callable[[sqlite3.Connection], T], begin: str | None) -> T:
        ticket = object()
        try:
            crossing.enter(ticket)
            sqlite = self._current()
            if begin is None:
                return work(sqlite)
            try:
                # A signal's exception may come as soon as the transaction has begun.
                sqlite.execute(begin)
                done = work(sqlite)
                sqlite.execute("COMMIT")
            except BaseException:
                # Some errors (disk full) have rolled back already.
                if sqlite.in_transaction:
                    sqlite.execute("ROLLBACK")
                raise
            return done
        except sqlite3.Error as error:
            if is_busy(error):
                raise Busy from error
            if spoils(error):
                self.close()
            raise refused(error, self.path) from error
        except UnicodeEncodeError as error:
            raise OperationalError(f"SQLite file {self.path}: a text is not valid Unicode: {error}") from error
        finally:
            crossing.leave(ticket)

    def _current(self) -> sqlite3.Connection:
        sqlite = self._sqlite
        if sqlite is not None:
            if self._pid != os.getpid():
                _inherited.append(sqlite)
            elif sqlite.in_transaction:
                self.close()  # somebody's signal came between an error and its rollback
            elif self._identity == self._look():
                return sqlite
            else:
                # Writes would go to a file without a name and be lost with it.
                self.close()
                raise replaced(self.path)
        return self._open()

    def _look(self) -> tuple[int, int]:
        try:
            found = os.stat(self.path)
        except OSError:
            return (0, 0)
        return (found.st_dev, found.st_ino)

    def _open(self) -> sqlite3.Connection:
        with _creation:
            self._create()
            # No waiting inside SQLite: its busy handler sleeps up to 100 ms at a time, in an event loop.
            sqlite = sqlite3.connect(
                self.path, timeout=0, isolation_level=None, check_same_thread=False, cached_statements=256
            )
        try:
            for pragma in (
                f"synchronous = {self._synchronous}",
                f"wal_autocheckpoint = {_CHECKPOINT_PAGES}",
                "secure_delete = OFF",  # Debian's default zeroes what it deletes: a quarter of the rate
                "cache_size = -8000",
                "temp_store = MEMORY",
            ):
                sqlite.execute(f"PRAGMA {pragma}")
            if not self._known(sqlite):
                self._prepare(sqlite)
        except BaseException:
            sqlite.close()
            raise
        crossing.register(self)  # before it is kept: no connection may live through a fork
        self._sqlite, self._pid, self._identity = sqlite, os.getpid(), self._look()
        return sqlite

    def _create(self) -> None:
        """Create the file, readable by its owner alone; SQLite gives its other files the same mode."""
        try:
            os.close(os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600))
        except FileExistsError:
            pass
        except OSError as error:
            raise cannot_open(self.path) from error

    def _known(self, sqlite: sqlite3.Connection) -> bool:
        """True for a file with our tables, False for an empty one and for one that lacks those of later versions;
        raises for the files of others."""
        # One statement, so one moment: another process may be creating the tables.
        application, version, tables = sqlite.execute(
            "SELECT application_id, user_version, (SELECT count(*) FROM sqlite_master)"
            " FROM pragma_application_id, pragma_user_version"
        ).fetchone()
        if application == _APPLICATION and version == _VERSION:
            return True
        if application == _APPLICATION and version > _VERSION:
            raise OperationalError(
                f"SQLite file {self.path}: a newer Celeriac wrote it (format {version}, here {_VERSION}); upgrade"
            )
        if application == _APPLICATION and version > 0:
            return False
        if tables or application or version:
            raise OperationalError(
                f"SQLite file {self.path}: it holds tables of another program; give Celeriac a file of its own"
            )
        return False

    def _prepare(self, sqlite: sqlite3.Connection) -> None:
        """Create the tables that are missing, unless another process does it first."""
        sqlite.execute(_SCHEMA["auto_vacuum"])
        mode = sqlite.execute("PRAGMA journal_mode = WAL").fetchone()[0]
        if mode != "wal":
            raise OperationalError(
                f"SQLite file {self.path}: its file system has no shared memory (write-ahead log); use a local disk"
            )
        try:
            sqlite.execute("BEGIN IMMEDIATE")
            if not self._known(sqlite):
                for name, statement in _SCHEMA.items():
                    if name != "auto_vacuum":
                        sqlite.execute(statement)
                sqlite.execute(f"PRAGMA application_id = {_APPLICATION}")
                sqlite.execute(f"PRAGMA user_version = {_VERSION}")
            sqlite.execute("COMMIT")
        except BaseException:
            if sqlite.in_transaction:
                sqlite.execute("ROLLBACK")
            raise

    def close(self) -> None:
        """Close it, unless it came through a fork. Idempotent; a later call opens it again."""
        sqlite, self._sqlite = self._sqlite, None
        if sqlite is None:
            return
        if self._pid == os.getpid():
            sqlite.close()
        else:
            _inherited.append(sqlite)

    def __del__(self) -> None:
        if self._sqlite is not None:
            self.close()
