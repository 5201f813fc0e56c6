"""Leases are renewed every third of their time; what is certain is counted from before the call."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

import pytest

from celeriac.model.message import Delivery
from celeriac.testing.clock import VirtualClock
from celeriac.worker.leases import Leases
from tests.unit.worker.fakes import FakeBroker, delivery, tokens, until


class SlowBroker(FakeBroker):
    """Its answers take ``seconds`` of the clock's time."""

    def __init__(self, clock: VirtualClock) -> None:
        super().__init__()
        self.clock = clock
        self.seconds = 0.0

    async def extend(self, deliveries: Sequence[Delivery]) -> Sequence[Delivery]:
        await self.clock.sleep(self.seconds)
        return await super().extend(deliveries)


class Bench:
    def __init__(self, lease: float = 30.0) -> None:
        self.clock = VirtualClock(1_000.0)
        self.broker = SlowBroker(self.clock)
        self.held: dict[str, Delivery] = {}
        self.lost: list[str] = []
        self.valid: list[float] = []
        self.leases = Leases(
            self.broker,  # type: ignore[arg-type]
            self.held,
            self.clock,
            lease=lease,
            lost=lambda deliveries: self.lost.extend(tokens(deliveries)),
            valid=self.valid.append,
        )

    def hold(self, *deliveries: Delivery) -> None:
        self.held.update({each.token: each for each in deliveries})

    def run(self, *seconds: float) -> None:
        async def main() -> None:
            running = asyncio.create_task(self.leases.run())
            for each in seconds:
                await self.clock.advance(each)
            assert not running.done()
            running.cancel()

        asyncio.run(main())


def test_every_third_of_the_lease() -> None:
    bench, one = Bench(30.0), delivery()
    bench.hold(one)
    bench.run(9.9, 0.2, 20.0)
    assert bench.broker.log == [("extend", [one.token])] * 3
    assert bench.valid == [1_040.0, 1_050.0, 1_060.0]


def test_nothing_held_is_certain_for_a_lease() -> None:
    bench = Bench(30.0)
    bench.run(10.0)
    assert bench.broker.log == []
    assert bench.valid == [1_040.0]


def test_counted_from_before_the_call() -> None:
    bench = Bench(30.0)
    bench.hold(delivery())
    bench.broker.seconds = 4.0
    bench.run(15.0)
    assert bench.valid == [1_040.0]


def test_those_that_are_gone() -> None:
    bench, mine, gone = Bench(), delivery(), delivery()
    bench.hold(mine, gone)
    bench.broker.gone.add(gone.token)
    bench.run(10.0)
    assert bench.lost == [gone.token]
    assert bench.valid == [1_040.0]


def test_an_outage_leaves_the_certainty_where_it_was(caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench()
    bench.hold(delivery())
    bench.broker.faults.away("extend", 2)
    with caplog.at_level(logging.WARNING):
        bench.run(30.0)
    assert bench.valid == [1_060.0]
    assert [record.getMessage() for record in caplog.records] == ["Cannot renew 1 leases: away"] * 2
    assert bench.lost == []


def test_no_answer_is_given_up_and_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    """asyncio's own timer ends the call, so the lease is short in real time."""
    bench = Bench(0.02)
    bench.hold(delivery())
    bench.broker.seconds = 1_000_000.0

    async def main() -> None:
        with pytest.raises(TimeoutError):
            await bench.leases.renew()
        running = asyncio.create_task(bench.leases.run())
        await bench.clock.advance(0.01)
        await until(lambda: caplog.records)
        assert not running.done()
        running.cancel()

    asyncio.run(main())
    assert bench.valid == []
    assert "no answer within 0.01 s" in caplog.text


def test_what_ends_meanwhile_does_not_disturb() -> None:
    bench, one, two = Bench(), delivery(), delivery()
    bench.hold(one, two)
    bench.broker.seconds = 1.0

    async def main() -> None:
        renewing = asyncio.create_task(bench.leases.renew())
        await asyncio.sleep(0)
        bench.held.clear()
        await bench.clock.advance(1.0)
        await renewing

    asyncio.run(main())
    assert bench.broker.log == [("extend", [one.token, two.token])]


def test_a_claim_is_certain_from_before_it_was_sent() -> None:
    bench = Bench(30.0)
    bench.leases.claimed(990.0)
    assert bench.valid == [1_020.0]
    bench.hold(delivery())
    bench.leases.claimed(980.0)
    bench.leases.claimed(995.0)
    assert bench.valid == [1_020.0, 1_010.0, 1_010.0]
    bench.held.clear()
    bench.leases.claimed(1_000.0)
    assert bench.valid[-1] == 1_030.0


def test_what_is_claimed_during_a_renewal_is_not_renewed_by_it() -> None:
    bench = Bench(30.0)
    bench.hold(delivery())
    bench.broker.seconds = 4.0

    async def main() -> None:
        renewing = asyncio.create_task(bench.leases.renew())
        await asyncio.sleep(0)
        bench.leases.claimed(997.0)
        bench.hold(delivery())
        await bench.clock.advance(4.0)
        await renewing
        renewing = asyncio.create_task(bench.leases.renew())
        await bench.clock.advance(4.0)
        await renewing

    asyncio.run(main())
    assert bench.valid[-2:] == [1_027.0, 1_034.0]
