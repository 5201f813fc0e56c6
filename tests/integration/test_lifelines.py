"""Connections that outlive their children, until the agent lets go of them."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager

import pytest

from celeriac.brokers.rabbitmq.sockets import hang_up
from celeriac.worker import lifelines as module
from celeriac.worker.lifelines import Lifeline, Lifelines
from tests.servers import eventually

NAME = f"test-{os.getpid()}"


class Connection:
    """One end is a child's, the other the server's."""

    def __init__(self) -> None:
        self.child, self.server = socket.socketpair()
        self.server.setblocking(False)

    def dies(self) -> None:
        self.child.close()

    @property
    def is_open(self) -> bool:
        try:
            return self.server.recv(1) != b""
        except BlockingIOError:
            return True


Connect = Callable[[], Connection]
Make = Callable[[str], Lifeline]


@pytest.fixture
def connect() -> Iterator[Callable[[], Connection]]:
    made: list[Connection] = []

    def make() -> Connection:
        made.append(Connection())
        return made[-1]

    yield make
    for each in made:
        each.child.close()
        each.server.close()


@pytest.fixture
def child() -> Iterator[Callable[[str], Lifeline]]:
    made: list[Lifeline] = []

    def make(owner: str) -> Lifeline:
        made.append(Lifeline(NAME, owner))
        return made[-1]

    yield make
    for each in made:
        each.close()


@asynccontextmanager
async def agent() -> AsyncIterator[Lifelines]:
    """An agent, which is there when the first child comes."""
    lifelines = Lifelines(NAME)
    serving = asyncio.ensure_future(lifelines.serve())
    await asyncio.sleep(0)
    try:
        yield lifelines
    finally:
        serving.cancel()
        await asyncio.wait({serving})


def test_a_connection_ends_when_the_agent_lets_go(connect: Connect, child: Make) -> None:
    async def main() -> None:
        one, other = connect(), connect()
        async with agent() as lifelines:
            await child("one").hold(one.child.fileno)
            await child("other").hold(other.child.fileno)
            one.dies()
            other.dies()
            assert one.is_open
            lifelines.cut("one")
            lifelines.cut("one")
            assert not one.is_open
            assert other.is_open
        assert not other.is_open, "an agent that ends keeps nothing"

    asyncio.run(main())


def test_a_new_connection_takes_the_place_of_the_one_before(connect: Connect, child: Make) -> None:
    async def main() -> None:
        before, after = connect(), connect()
        async with agent() as lifelines:
            lifeline = child("me")
            await lifeline.hold(before.child.fileno)
            before.dies()
            await lifeline.hold(after.child.fileno)
            assert not before.is_open
            assert lifelines.kept == 1

    asyncio.run(main())


@pytest.mark.parametrize("told", [True, False], ids=["told of it", "not told"])
def test_a_new_agent(connect: Connect, child: Make, told: bool) -> None:
    async def main() -> None:
        one = connect()
        lifeline = child("me")
        await lifeline.hold(one.child.fileno)  # nobody is there
        async with agent():
            await lifeline.renew()
        async with agent():
            await (lifeline.renew() if told else lifeline.hold(one.child.fileno))
            one.dies()
            assert one.is_open
        assert not one.is_open

    asyncio.run(main())


def test_what_was_closed_is_not_handed_over(connect: Connect, child: Make) -> None:
    async def main() -> None:
        async with agent() as lifelines:
            lifeline = child("me")
            await lifeline.hold(lambda: -1)
            await lifeline.renew()
            assert lifelines.kept == 0

    asyncio.run(main())


def test_of_a_death_that_nobody_tells_nothing_stays(
    connect: Connect, child: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_UNTOLD", 0.0)

    async def main() -> None:
        one = connect()
        async with agent() as lifelines:
            lifeline = child("me")
            await lifeline.hold(one.child.fileno)
            await lifeline.renew()  # the stream of before is gone, the child is not
            assert lifelines.kept == 1
            lifeline.close()
            await eventually(lambda: not lifelines.kept)

    asyncio.run(main())


def test_strangers_are_turned_away(connect: Connect, child: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "is_of_this_node", lambda sock: False)

    async def main() -> None:
        one = connect()
        async with agent() as lifelines:
            await child("me").hold(one.child.fileno)
            with module._unix_socket() as stranger:
                stranger.connect(module._address(NAME))
                await module._readable(stranger)
                assert stranger.recv(1) == b""
            assert lifelines.kept == 0

    asyncio.run(main())


def test_a_connection_that_is_hung_up_ends_whoever_has_a_copy(connect: Connect) -> None:
    one = connect()
    copy = one.child.dup()
    hang_up(one.child)
    assert not one.is_open
    copy.close()
    one.dies()
    hang_up(one.child)
