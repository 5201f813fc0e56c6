"""What the conformance suite cannot know of ``memory://``: names, clocks, and loops in several threads."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Iterator

import pytest

from celeriac.brokers import memory
from celeriac.brokers.memory.waiter import Waiter
from celeriac.clock import SystemClock
from celeriac.model.settle import Accept
from celeriac.ports import AdapterOptions
from celeriac.testing.clock import VirtualClock
from celeriac.testing.conformance.tools import ids, message

_numbers = itertools.count()
OPTIONS = AdapterOptions(owner="me")


@pytest.fixture
def url() -> Iterator[str]:
    url = f"memory://sharing-{next(_numbers)}"
    yield url
    memory.drop(url)


@pytest.mark.parametrize("alike", ["{}", "{}/", "{}?visibility_timeout=5"])
def test_one_name_is_one_server(url: str, alike: str) -> None:
    assert memory.server(url) is memory.server(alike.format(url))


def test_names_are_apart_and_may_be_empty(url: str) -> None:
    assert memory.server(url) is not memory.server(f"{url}x")
    assert memory.server("memory://") is memory.server("memory:///")
    memory.drop(f"{url}x")
    memory.drop("memory://")


def test_traits_tell_names_apart_and_hide_passwords() -> None:
    url = "memory://user:secret@there"
    assert memory.broker(url, OPTIONS).traits.server == ("memory", "there")
    assert not memory.broker(url, OPTIONS).traits.durable
    memory.drop(url)


def test_a_dropped_name_starts_empty(url: str) -> None:
    publisher = memory.publisher(url, OPTIONS)
    publisher.publish([message("a")], timeout=1.0)
    memory.drop(url)
    memory.drop(url)
    assert memory.publisher(url, OPTIONS).depth(["q"], timeout=1.0)["q"].ready == 0
    assert publisher.depth(["q"], timeout=1.0)["q"].ready == 1


def test_the_clock_is_the_servers(url: str) -> None:
    assert isinstance(memory.server(url).clock, SystemClock)
    clock = VirtualClock()
    memory.broker(url, OPTIONS, clock)
    assert memory.server(url).clock is clock
    publisher = memory.publisher(url, OPTIONS)
    publisher.publish([message("a", due=clock.now() + 1)], timeout=1.0)
    assert publisher.depth(["q"], timeout=1.0)["q"].scheduled == 1


def test_a_virtual_hour_of_claims_takes_no_time(url: str) -> None:
    async def main() -> list[float]:
        clock = VirtualClock(0.0)
        broker = memory.broker(url, OPTIONS, clock)
        await broker.open()
        moments: list[float] = []

        async def work() -> None:
            while len(moments) < 60:
                for delivery in await broker.claim(["q"], limit=1, wait=10.0):
                    moments.append(clock.now())
                    await broker.settle([Accept(delivery)])

        await broker.publish([message(due=minute * 60.0) for minute in range(1, 61)])
        working = asyncio.create_task(work())
        await clock.advance(3600.0)
        await working
        return moments

    assert asyncio.run(main()) == [minute * 60.0 for minute in range(1, 61)]


def test_a_worker_in_another_thread_is_woken(url: str) -> None:
    taken: list[str] = []
    waits = threading.Event()

    async def work() -> None:
        broker = memory.broker(url, OPTIONS)
        await broker.open()
        asyncio.get_running_loop().call_later(0.05, waits.set)
        taken.extend(ids(await broker.claim(["q"], limit=1, wait=30.0)))

    worker = threading.Thread(target=asyncio.run, args=(work(),))
    worker.start()
    assert waits.wait(30)
    memory.publisher(url, OPTIONS).publish([message("a")], timeout=1.0)
    worker.join(30)
    assert taken == ["a"]


def test_a_waiter_whose_loop_is_gone_disturbs_nobody() -> None:
    async def make() -> Waiter:
        return Waiter()

    asyncio.run(make()).wake()


def test_a_waiter_that_was_woken_before_does_not_wait() -> None:
    async def main() -> None:
        waiter = Waiter()
        waiter.wake()
        waiter.wake()
        async with asyncio.timeout(5):
            await waiter.wait(1000.0, SystemClock())

    asyncio.run(main())
