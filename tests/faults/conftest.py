"""Where faults are tried: one private Redis for all tests that do not harm it, one SQLite file for each test."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.place import Place
from tests.servers import RedisServer


@pytest.fixture(params=["redis", "sqlite"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """An empty broker with results, on Redis and on SQLite."""
    if request.param == "sqlite":
        return Place(f"sqlite:///{tmp_path / 'celeriac.db'}", tmp_path)
    request.getfixturevalue("redis_url")
    return Place(request.getfixturevalue("redis_server").url(), tmp_path, request.getfixturevalue("redis_server"))


@pytest.fixture
def redis_place(redis_server: RedisServer, redis_url: str, tmp_path: Path) -> Place:
    """An empty Redis that this test must not harm."""
    return Place(redis_url, tmp_path, redis_server)


@pytest.fixture
def sqlite_place(sqlite_url: str, tmp_path: Path) -> Place:
    """A SQLite file of this test's own."""
    return Place(sqlite_url, tmp_path)
