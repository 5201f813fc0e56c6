"""SQLite: one file for each test."""

from __future__ import annotations

import asyncio
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from celeriac.brokers import sqlite
from celeriac.testing.conformance import Conformance, Harness


class SqliteHarness(Harness):
    """A file of its own. Its server is the file: there are no connections to cut, but writers can be locked out."""

    adapter = sqlite
    lease = 0.3
    password = "no URL of SQLite has one"

    def __init__(self, directory: Path) -> None:
        super().__init__()
        self.path = directory / "celeriac.db"
        self.url = f"sqlite:///{self.path}"
        self.unreachable = f"sqlite:///{directory}/missing/folder/celeriac.db"
        self._lock: sqlite3.Connection | None = None

    async def silence(self, on: bool) -> None:
        if on:
            self._lock = await asyncio.to_thread(self._locked)
        elif self._lock is not None:
            self._lock.close()
            self._lock = None

    async def inject(self, queue: str, raw: bytes) -> None:
        with self._connected() as connection:
            rows = connection.execute(
                "INSERT INTO message (queue, step, at, envelope) VALUES (?, 0, ?, ?) RETURNING id",
                (queue, self.now(), raw),
            )
            (number,) = rows.fetchone()
            connection.execute(
                "INSERT INTO ready (queue, step, position, id, alone) VALUES (?, 0, ?, ?, 0)", (queue, number, number)
            )

    async def inject_topic(self, exchange: str, raw: bytes) -> None:
        with self._connected() as connection:
            connection.execute(
                "INSERT INTO bus (exchange, routing_key, expires, headers, payload) VALUES (?, '', ?, ?, ?)",
                (exchange, self.now() + 60, b"{", raw),
            )

    async def spoil(self, queue: str) -> None:
        with self._connected() as connection:
            for table in ("message", "ready"):
                connection.execute(
                    f"CREATE TRIGGER spoil_{table} BEFORE INSERT ON {table} WHEN new.queue = '{queue}' "
                    "BEGIN SELECT raise(ABORT, 'spoilt'); END"
                )

    async def heal(self, queue: str) -> None:
        with self._connected() as connection:
            for table in ("message", "ready"):
                connection.execute(f"DROP TRIGGER spoil_{table}")

    @contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        with closing(sqlite3.connect(self.path, timeout=5.0)) as connection, connection:
            yield connection

    def _locked(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, timeout=5.0, isolation_level=None, check_same_thread=False)
        connection.execute("BEGIN EXCLUSIVE")
        return connection


class TestSqlite(Conformance):
    @pytest.fixture
    def harness(self) -> Iterator[SqliteHarness]:
        # In memory where that exists: what the suite asks does not depend on the disk, but its time does.
        shm = Path("/dev/shm")
        with tempfile.TemporaryDirectory(prefix="celeriac-", dir=shm if shm.is_dir() else None) as directory:
            yield SqliteHarness(Path(directory))
