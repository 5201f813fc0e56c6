from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from celeriac.brokers.sqlite.address import Address
from celeriac.brokers.sqlite.connection import Connection


@pytest.fixture
def address(tmp_path: Path) -> Address:
    return Address(path=str(tmp_path / "a.db"))


@pytest.fixture
def connection(address: Address) -> Iterator[Connection]:
    connection = Connection(address)
    yield connection
    connection.close()


@pytest.fixture
def tables(connection: Connection) -> sqlite3.Connection:
    """The tables of a new file, outside of transactions."""
    return connection.bare(lambda sqlite: sqlite)
