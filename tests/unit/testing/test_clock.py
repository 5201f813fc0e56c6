"""The virtual clock: time passes in ``advance`` only, moment by moment."""

from __future__ import annotations

import asyncio
import threading
import time

from celeriac.testing.clock import VirtualClock


def test_sleepers_wake_in_order_each_at_its_moment() -> None:
    async def main() -> list[tuple[str, float]]:
        clock = VirtualClock(100.0)
        woken: list[tuple[str, float]] = []

        async def sleeper(name: str, seconds: float, again: float = 0.0) -> None:
            await clock.sleep(seconds)
            woken.append((name, clock.now()))
            if again:
                await sleeper(f"{name}'", again)

        tasks = [asyncio.create_task(sleeper(*each)) for each in (("c", 3.0), ("a", 1.0, 1.0), ("b", 1.5), ("d", 9.0))]
        await clock.advance(3.0)
        assert (clock.now(), clock.monotonic()) == (103.0, 103.0)
        assert not tasks[-1].done()
        await clock.advance(6.0)
        await asyncio.gather(*tasks)
        return woken

    assert asyncio.run(main()) == [("a", 101.0), ("b", 101.5), ("a'", 102.0), ("c", 103.0), ("d", 109.0)]


def test_a_day_takes_no_time() -> None:
    async def main() -> float:
        clock = VirtualClock()
        sleeping = asyncio.create_task(clock.sleep(86400.0))
        await clock.advance(86400.0)
        assert sleeping.done()
        return clock.now()

    begin = time.monotonic()
    assert asyncio.run(main()) == 1_800_000_000.0 + 86400.0
    assert time.monotonic() - begin < 60.0


def test_the_shortest_sleep_moves_time() -> None:
    async def main() -> None:
        clock = VirtualClock()
        begin = clock.now()
        sleeping = asyncio.create_task(clock.sleep(1e-12))
        await clock.advance(0.001)
        assert sleeping.done()
        assert clock.now() > begin

    asyncio.run(main())


def test_a_cancelled_sleeper_does_not_stop_time() -> None:
    async def main() -> None:
        clock = VirtualClock(0.0)
        sleeping = asyncio.create_task(clock.sleep(1.0))
        await asyncio.sleep(0)
        sleeping.cancel()
        await clock.advance(2.0)
        assert sleeping.cancelled()
        assert clock.now() == 2.0

    asyncio.run(main())


def test_sleepers_in_other_threads_wake() -> None:
    async def main() -> None:
        clock = VirtualClock(0.0)
        asleep = threading.Event()

        async def sleep() -> None:
            asyncio.get_running_loop().call_soon(asleep.set)
            await clock.sleep(1.0)

        sleeping = asyncio.create_task(asyncio.to_thread(asyncio.run, sleep()))
        await asyncio.to_thread(asleep.wait)
        await clock.advance(1.0)
        async with asyncio.timeout(30):
            await sleeping

    asyncio.run(main())
