"""SQLite: one file for each test."""

from __future__ import annotations

import asyncio
import sqlite3
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

    def _locked(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, timeout=5.0, isolation_level=None, check_same_thread=False)
        connection.execute("BEGIN EXCLUSIVE")
        return connection


class TestSqlite(Conformance):
    @pytest.fixture
    def harness(self, tmp_path: Path) -> SqliteHarness:
        return SqliteHarness(tmp_path)
