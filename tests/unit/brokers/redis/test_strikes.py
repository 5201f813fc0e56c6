"""Callers whom a signal interrupts, at every point: nobody gets an answer to another's command, no place is lost."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import hiredis
import pytest

from celeriac.brokers.redis import blocking
from celeriac.brokers.redis.blocking import Pool
from celeriac.brokers.redis.urls import parse
from celeriac.ports import AdapterOptions
from tests.strikes import STRIKES, each_strike, struck


class Socket:
    """A server that answers ECHO, and at its other end a socket on which nothing has come before it is read."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._commands = hiredis.Reader()
        self._replies: list[bytes] = []

    def fileno(self) -> int:
        return self._fd

    def settimeout(self, seconds: float) -> None: ...

    def close(self) -> None: ...

    def sendall(self, data: bytes) -> None:
        self._commands.feed(data)
        while command := self._commands.gets():
            if command[0] == b"HELLO":
                reply = b"%2\r\n+server\r\n+redis\r\n+version\r\n+7.0.0\r\n"
            elif command[0] == b"ECHO":
                reply = b"$%d\r\n%s\r\n" % (len(command[1]), command[1])
            else:
                reply = b"-ERR unknown\r\n"
            self._replies.append(reply)

    def recv(self, size: int) -> bytes:
        if not self._replies:
            raise TimeoutError("timed out")
        return self._replies.pop(0)


@pytest.fixture
def nothing() -> Iterator[int]:
    """A descriptor from which nothing is ever to be read."""
    reading, writing = os.pipe()
    yield reading
    os.close(reading)
    os.close(writing)


@pytest.mark.parametrize("error", STRIKES)
@pytest.mark.parametrize("warm", [True, False], ids=["a connection", "none yet"])
@pytest.mark.parametrize("command", ["ECHO", "WRONG"])
def test_a_caller(
    nothing: int, monkeypatch: pytest.MonkeyPatch, command: str, warm: bool, error: type[BaseException]
) -> None:
    monkeypatch.setattr(blocking, "_connected", lambda address, deadline: Socket(nothing))
    address = parse("redis://somewhere", AdapterOptions())

    def echo(pool: Pool, word: str) -> Any:
        return pool.call(("ECHO", word), 5.0)

    def run(at: int) -> str:
        pool = Pool(address, 1)
        if warm:
            assert echo(pool, "before") == b"before"
        where, raised = struck(lambda: pool.call((command, "mine"), 5.0), error, at)
        assert type(raised) is error if where else (raised is None) is (command == "ECHO"), f"{where}: {raised!r}"
        assert pool._turns.taken == 0, where
        for word in ("one", "two"):
            assert echo(pool, word) == word.encode(), where
        return where

    assert len(each_strike(run)) > 30
