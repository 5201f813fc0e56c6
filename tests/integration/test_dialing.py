"""A host's name with several addresses: each gets its share of the time, in every adapter."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Iterator

import pytest

from celeriac.brokers import dialing
from tests.servers.lame import lame_host


@pytest.fixture
def server() -> Iterator[socket.socket]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(5)
        yield listener


@pytest.fixture
def lame(server: socket.socket, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, int]]:
    port = server.getsockname()[1]
    with lame_host(port, monkeypatch) as host:
        yield host, port


def test_a_silent_address_gets_no_more_than_its_share(lame: tuple[str, int]) -> None:
    began = time.monotonic()
    with dialing.dial(*lame, began + 2.0) as sock:
        assert sock.getpeername()[0] == "127.0.0.1"
    assert time.monotonic() - began >= 0.9, "the first was tried"


def test_so_on_a_loop(lame: tuple[str, int]) -> None:
    async def main() -> str:
        with await dialing.dialed(*lame, 2.0) as sock:
            assert not sock.getblocking()
            return str(sock.getpeername()[0])

    began = time.monotonic()
    assert asyncio.run(main()) == "127.0.0.1"
    assert time.monotonic() - began >= 0.9


def test_when_none_answers_the_first_error_is_told(lame: tuple[str, int], server: socket.socket) -> None:
    server.close()

    async def main() -> None:
        await dialing.dialed(*lame, 0.2)

    with pytest.raises(TimeoutError):
        dialing.dial(*lame, time.monotonic() + 0.2)
    with pytest.raises(TimeoutError):
        asyncio.run(main())


def test_nobody_has_the_name() -> None:
    async def main() -> None:
        await dialing.dialed("nobody.invalid", 1, 0.2)

    with pytest.raises(socket.gaierror):
        dialing.dial("nobody.invalid", 1, time.monotonic() + 0.2)
    with pytest.raises(socket.gaierror):
        asyncio.run(main())


def test_what_is_left_of_a_share_is_for_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(dialing, "monotonic", lambda: now[0])
    ends = dialing.shares(4, 104.0)
    assert next(ends) == 101.0
    assert next(ends) == pytest.approx(100 + 4 / 3), "the first was refused at once"
    now[0] = 102.0
    assert [next(ends), next(ends)] == [103.0, 104.0]
