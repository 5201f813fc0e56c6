"""A place of its own beside a SQLite file: another file in the same directory. For ``celeriac broker test``."""

from __future__ import annotations

import os
import shutil
import sqlite3
import time
from collections.abc import Mapping
from contextlib import closing
from typing import Any
from urllib.parse import quote

from celeriac.brokers.sqlite.address import address
from celeriac.ports import AdapterOptions

__all__ = ["SqliteScratch"]


class SqliteScratch:
    """See ``celeriac.ports.Scratch``. The file system is what is put to the test."""

    publisher_schedules = True
    one_server = True

    def __init__(self, url: str, options: AdapterOptions, name: str) -> None:
        self._path = f"{address(url, options).path}.{name}"
        query = url.partition("?")[2]
        self.url = f"sqlite:///{quote(self._path)}" + (f"?{query}" if query else "")
        self.options: Mapping[str, Any] = {}
        self.what = f"files {self._path}*"
        self.unreachable = f"sqlite:///{quote(self._path)}/missing/folder.db"

    def exempt(self, beside: bool) -> Mapping[str, str]:
        """See ``Scratch.exempt``."""
        return {}

    def inject(self, queue: str, raw: bytes) -> None:
        """See ``Scratch.inject``."""
        with closing(sqlite3.connect(self._path, timeout=5.0)) as file, file:
            rows = file.execute(
                "INSERT INTO message (queue, step, at, envelope) VALUES (?, 0, ?, ?) RETURNING id",
                (queue, time.time(), raw),
            )
            (number,) = rows.fetchone()
            file.execute(
                "INSERT INTO ready (queue, step, position, id, alone) VALUES (?, 0, ?, ?, 0)", (queue, number, number)
            )

    def clear(self) -> None:
        """See ``Scratch.clear``."""
        for tail in ("", "-wal", "-shm", "-journal"):
            if os.path.exists(self._path + tail):
                os.unlink(self._path + tail)
        shutil.rmtree(f"{self._path}-bells", ignore_errors=True)
