"""Turns SQLite's errors into one ``OperationalError`` line: which file, what is wrong, what to do.

Called wherever this package meets ``sqlite3.Error``; nothing of sqlite3 leaves the package.
"""

from __future__ import annotations

import os
import sqlite3

from celeriac.exceptions import OperationalError

__all__ = ["Busy", "is_busy", "locked", "refused", "replaced", "spoils"]

_BUSY = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})
#: After these the connection is of no use: the next call opens another.
_SPOILING = frozenset(
    {
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_NOTADB,
        sqlite3.SQLITE_PROTOCOL,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_SCHEMA,
    }
)
_ADVICE = {
    sqlite3.SQLITE_AUTH: ("access was denied", "check its permissions"),
    sqlite3.SQLITE_CORRUPT: ("it is damaged", "stop the workers and restore a copy, or move it away to start empty"),
    sqlite3.SQLITE_FULL: ("the disk is full", "free some space"),
    sqlite3.SQLITE_IOERR: ("reading or writing failed", "check the disk and its free space"),
    sqlite3.SQLITE_NOTADB: ("it is no SQLite database", "name another file in the URL, or move this one away"),
    sqlite3.SQLITE_PERM: ("access was denied", "check its permissions"),
    sqlite3.SQLITE_READONLY: ("it cannot be written", "check the permissions of the file and of its directory"),
    sqlite3.SQLITE_TOOBIG: ("a message or a result is too large", "lower max_message_bytes"),
}


class Busy(Exception):
    """Another connection holds the lock: to be tried again. Never leaves this package."""


def _code(error: sqlite3.Error) -> int:
    # The primary code is in the low byte; errors of the Python module itself carry none.
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def is_busy(error: sqlite3.Error) -> bool:
    """True when trying again may help."""
    return _code(error) in _BUSY


def spoils(error: sqlite3.Error) -> bool:
    """True when the connection must not be used again."""
    return _code(error) in _SPOILING


def refused(error: Exception, path: str) -> OperationalError:
    """What to raise for an error of SQLite or of the file system."""
    if isinstance(error, sqlite3.Error):
        code = _code(error)
        if code == sqlite3.SQLITE_CANTOPEN:
            return cannot_open(path)
        if code in _ADVICE:
            what, advice = _ADVICE[code]
            name = getattr(error, "sqlite_errorname", "")
            return OperationalError(f"SQLite file {path}: {what} ({name}); {advice}")
    return OperationalError(f"SQLite file {path}: {error}")


def cannot_open(path: str) -> OperationalError:
    """Why a file cannot be opened, found out by looking."""
    folder = os.path.dirname(path)
    if not os.path.isdir(folder):
        return OperationalError(f"SQLite file {path}: the directory {folder} does not exist; create it")
    if os.path.isdir(path):
        return OperationalError(f"SQLite file {path}: it is a directory; name a file in the URL")
    return OperationalError(
        f"SQLite file {path}: it cannot be opened or created; check the permissions of the file and of {folder}"
    )


def locked(path: str, seconds: float) -> OperationalError:
    """Another process did not give up the lock in time."""
    return OperationalError(
        f"SQLite file {path}: another process kept it locked for {seconds:.1f} s; look for a program that writes to it"
    )


def replaced(path: str) -> OperationalError:
    """The file at this path is not the one that was opened."""
    return OperationalError(
        f"SQLite file {path}: it was removed or replaced while in use; the next call opens the file that is there then"
    )
