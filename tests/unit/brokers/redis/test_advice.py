"""What a worker says at its start about the server."""

from __future__ import annotations

import logging

import pytest

from celeriac.brokers.redis.advice import advices

GOOD = {
    "redis_version": "7.0.15",
    "role": "master",
    "maxmemory": "0",
    "maxmemory_policy": "noeviction",
    "aof_enabled": "1",
}


@pytest.mark.parametrize(
    ("facts", "level", "part"),
    [
        ({"redis_version": "6.0.16"}, logging.WARNING, "install 6.2"),
        ({"redis_version": "?"}, logging.WARNING, "too old"),
        ({"role": "slave"}, logging.WARNING, "point broker_url at the master"),
        ({"maxmemory": "1", "maxmemory_policy": "allkeys-lru"}, logging.WARNING, "set it to noeviction"),
        ({"aof_enabled": "0"}, logging.INFO, "set appendonly to yes"),
    ],
)
def test_each_has_its_line(facts: dict[str, str], level: int, part: str) -> None:
    ((given, text),) = advices({**GOOD, **facts})
    assert given == level
    assert part in text


@pytest.mark.parametrize("facts", [GOOD, {}, {**GOOD, "maxmemory_policy": "allkeys-lru"}, {"redis_version": "10.1"}])
def test_no_reason_no_line(facts: dict[str, str]) -> None:
    assert list(advices(facts)) == []
