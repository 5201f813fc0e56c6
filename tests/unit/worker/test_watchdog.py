"""A broker that does not answer gets a new connection; one that waits for messages does not."""

from __future__ import annotations

import asyncio

import pytest

from celeriac import Celery
from celeriac.testing.clock import VirtualClock
from celeriac.worker.watchdog import Watchdog, patience
from tests.unit.worker.fakes import FakeBroker, until


class Bench:
    def __init__(self) -> None:
        self.clock, self.broker, self.asked = VirtualClock(), FakeBroker(), 0.0
        self.made = Watchdog(self.broker, lambda: self.asked, self.clock, limit=20.0)

    async def pass_time(self, seconds: float) -> None:
        for _ in range(int(seconds)):
            await self.clock.advance(1.0)

    def calls(self) -> list[str]:
        return [name for name, _ in self.broker.log]


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_a_call_that_takes_too_long_gets_a_new_connection(bench: Bench) -> None:
    async def main() -> None:
        running = asyncio.create_task(bench.made.run())
        await asyncio.sleep(0)
        bench.asked = bench.clock.monotonic()
        await bench.pass_time(20)
        assert bench.calls() == []
        await bench.pass_time(5)
        assert bench.calls() == ["close", "open"]
        running.cancel()

    asyncio.run(main())


def test_no_call_no_suspicion(bench: Bench) -> None:
    async def main() -> None:
        running = asyncio.create_task(bench.made.run())
        await asyncio.sleep(0)
        await bench.pass_time(100)
        assert bench.calls() == []
        running.cancel()

    asyncio.run(main())


def test_it_tries_until_the_broker_is_there(bench: Bench) -> None:
    bench.broker.faults.away("open", 3)

    async def main() -> None:
        running = asyncio.create_task(bench.made.run())
        await asyncio.sleep(0)
        bench.asked = bench.clock.monotonic()
        await bench.pass_time(30)
        await until(lambda: bench.calls() == ["close", "open", "open", "open", "open"])
        await bench.pass_time(50)
        assert len(bench.calls()) == 5
        running.cancel()

    asyncio.run(main())


@pytest.mark.parametrize(("wait", "timeout", "limit"), [(10.0, 4.0, 20.0), (1.0, 4.0, 8.0), (2.0, 60.0, 120.0)])
def test_a_locked_file_is_waited_for(wait: float, timeout: float, limit: float) -> None:
    """For as long as the adapter does: with short leases a claim waits less than that."""
    conf = Celery(broker="memory://", set_as_current=False).conf
    conf.broker_connection_timeout = timeout
    assert patience(wait, conf) == limit
