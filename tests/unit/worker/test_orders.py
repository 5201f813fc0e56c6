"""A child and its supervisor talk by words in the slot and bells: nothing said is missed, whoever is early."""

from __future__ import annotations

import asyncio
import mmap
import os
from collections.abc import Iterator

import pytest

from celeriac.worker.orders import Orders
from celeriac.worker.slot import GO, RETIRE, SLOT_SIZE, STANDBY, Slot
from tests.unit.worker.fakes import until


class Wire:
    """Both ends."""

    def __init__(self) -> None:
        self.slot = Slot(mmap.mmap(-1, SLOT_SIZE), 0)
        self.bell = os.eventfd(0, os.EFD_NONBLOCK)
        self.kicks = 0
        self.orders = Orders(self.slot, self.bell, self._kick)

    def _kick(self) -> None:
        self.kicks += 1

    def order(self, order: int) -> None:
        self.slot.order = order
        os.eventfd_write(self.bell, 1)


@pytest.fixture
def wire() -> Iterator[Wire]:
    made = Wire()
    yield made
    os.close(made.bell)


def test_a_successor_stands_by_and_goes(wire: Wire) -> None:
    async def main() -> bool:
        await wire.orders.listen()
        waiting = asyncio.create_task(wire.orders.may_begin(asyncio.Event()))
        await until(lambda: wire.slot.state == STANDBY)
        assert wire.slot.pid == os.getpid()
        assert wire.kicks >= 1
        wire.order(GO)
        return await waiting

    assert asyncio.run(main())


def test_one_that_may_go_from_the_start_does_not_stand_by(wire: Wire) -> None:
    wire.order(GO)

    async def main() -> bool:
        await wire.orders.listen()
        return await wire.orders.may_begin(asyncio.Event())

    assert asyncio.run(main())
    assert wire.kicks == 0


def test_nobody_needs_it_after_all(wire: Wire) -> None:
    async def main() -> bool:
        await wire.orders.listen()
        waiting = asyncio.create_task(wire.orders.may_begin(asyncio.Event()))
        await until(lambda: wire.slot.state == STANDBY)
        wire.order(RETIRE)
        return await waiting

    assert not asyncio.run(main())


def test_a_shutdown_while_it_stands_by(wire: Wire) -> None:
    async def main() -> bool:
        stop = asyncio.Event()
        await wire.orders.listen()
        waiting = asyncio.create_task(wire.orders.may_begin(stop))
        await until(lambda: wire.slot.state == STANDBY)
        stop.set()
        return await waiting

    assert not asyncio.run(main())


def test_it_retires_when_told(wire: Wire) -> None:
    async def main() -> None:
        wire.order(GO)
        await wire.orders.listen()
        assert await wire.orders.may_begin(asyncio.Event())
        told = asyncio.create_task(wire.orders.retired())
        for _ in range(10):
            await asyncio.sleep(0)
        assert not told.done()
        wire.order(RETIRE)
        await told

    asyncio.run(main())


def test_a_bell_that_a_task_has_taken_is_no_busy_loop(wire: Wire) -> None:
    async def main() -> None:
        reading, writing = os.pipe()
        os.set_blocking(reading, False)
        os.write(writing, b"x")  # no eventfd, and always readable
        orders = Orders(wire.slot, reading, wire._kick)
        await orders.listen()
        rings = 0
        ring = orders._ring

        def counted() -> None:
            nonlocal rings
            rings += 1
            ring()

        asyncio.get_running_loop().add_reader(reading, counted)
        for _ in range(50):
            await asyncio.sleep(0)
        assert rings <= 1
        os.close(reading)
        os.close(writing)

    asyncio.run(main())
