"""The mixed fleet that the tests of compatibility share: one worker of each kind, started once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.compat.project.fleet import Fleet
from tests.servers import RedisServer


@pytest.fixture(scope="package")
def compat_redis(make_redis: Callable[..., RedisServer]) -> RedisServer:
    """A server that nobody empties meanwhile; each fleet takes a database of its own."""
    return make_redis()


@pytest.fixture(scope="package")
def fleet(compat_redis: RedisServer, celery_python: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """``ours@host`` on the queue ``ours``, ``theirs@host`` on ``theirs``, both on ``both``; JSON and pickle."""
    folder = tmp_path_factory.mktemp("fleet")
    with Fleet(compat_redis, folder, celery_python, accept_content=["json", "pickle"]) as fleet:
        workers = [
            fleet.theirs("theirs@host", "-c", "2", "-Q", "theirs,both"),
            fleet.ours("ours@host", "-c", "2", "-Q", "ours,both"),
        ]
        for worker in workers:
            worker.ready()
        fleet.wait_for_answer("theirs@host")
        yield fleet
