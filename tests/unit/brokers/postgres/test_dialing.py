"""Which addresses libpq is given, one at a time."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest

from celeriac.brokers.postgres.dialing import attempts, attempts_on_loop

ADDRESSES = {"one": ["10.0.0.1"], "two": ["::1", "10.0.0.2"]}


@pytest.fixture(autouse=True)
def names(monkeypatch: pytest.MonkeyPatch) -> None:
    def getaddrinfo(host: str, *args: Any, **kwargs: Any) -> list[Any]:
        if host not in ADDRESSES or kwargs.get("flags"):
            raise socket.gaierror(socket.EAI_NONAME, "unknown")
        return [(0, socket.SOCK_STREAM, 6, "", (each, 0)) for each in ADDRESSES[host]]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


@pytest.mark.parametrize(
    ("given", "tries"),
    [
        ({}, [{}]),
        ({"host": "one", "port": "1"}, [{"host": "one", "port": "1"}]),
        ({"host": "two"}, [{"host": "two", "hostaddr": "::1"}, {"host": "two", "hostaddr": "10.0.0.2"}]),
        ({"host": "nobody"}, [{"host": "nobody"}]),
        ({"host": "/run"}, [{"host": "/run"}]),
        ({"host": "two", "hostaddr": "9.9.9.9"}, [{"host": "two", "hostaddr": "9.9.9.9"}]),
        (
            {"host": "one,two", "port": "1"},
            [
                {"host": "one", "port": "1"},
                {"host": "two", "port": "1", "hostaddr": "::1"},
                {"host": "two", "port": "1", "hostaddr": "10.0.0.2"},
            ],
        ),
        ({"host": "one,nobody", "port": "1,2"}, [{"host": "one", "port": "1"}, {"host": "nobody", "port": "2"}]),
        ({"host": "one,nobody", "port": ","}, [{"host": "one"}, {"host": "nobody"}]),
        ({"host": "one,two", "port": "1,2,3"}, [{"host": "one,two", "port": "1,2,3"}]),
        (
            {"host": "one,two", "target_session_attrs": "prefer-standby"},
            [{"host": "one,two", "target_session_attrs": "prefer-standby"}],
        ),
    ],
)
def test_one_address_at_a_time(given: dict[str, str], tries: list[dict[str, str]]) -> None:
    assert attempts(given) == tries
    assert asyncio.run(attempts_on_loop(given)) == tries
