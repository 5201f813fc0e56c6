"""Claims that tell an epoch which is kept elsewhere: nothing that is taken is lost when it cannot be told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from celeriac.beside import claims
from celeriac.beside.claims import Claims
from celeriac.exceptions import OperationalError
from tests.unit.beside.fakes import FakeQueues, FakeRules
from tests.unit.worker.fakes import delivery, until


class Bench:
    def __init__(self) -> None:
        self.queues, self.rules = FakeQueues(), FakeRules()
        self.claims = Claims(self.queues, self.rules)  # type: ignore[arg-type]

    async def claim(self, wait: float = 0.0) -> list[str]:
        return [each.token for each in await self.claims.claim(["q"], 10, wait)]


def run(test: Callable[[Bench], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        await test(Bench())

    asyncio.run(main())


def test_the_epoch_is_read_after_the_taking() -> None:
    async def test(bench: Bench) -> None:
        taken = delivery()
        bench.queues.ready, bench.rules.now = [taken], 7
        assert await bench.claim() == [taken.token]
        assert bench.claims.epoch == 7
        await bench.claim()
        assert bench.rules.asked == [0, 7], "one question a claim, for what is new"

    run(test)


def test_what_cannot_be_told_goes_back_and_nothing_is_taken_meanwhile() -> None:
    async def test(bench: Bench) -> None:
        taken = delivery()
        bench.queues.ready, bench.rules.away = [taken], True
        with pytest.raises(OperationalError):
            await bench.claim()
        await bench.claims.settled()
        assert bench.queues.released == [taken.token]
        with pytest.raises(OperationalError):
            await bench.claim()
        assert bench.queues.claims == 1, "the rules' server is asked first"
        bench.rules.away, bench.queues.ready = False, [taken]
        assert await bench.claim() == [taken.token]

    run(test)


def test_cancelled_while_the_epoch_is_read() -> None:
    async def test(bench: Bench) -> None:
        taken = delivery()
        bench.queues.ready, bench.rules.hold = [taken], asyncio.Event()
        claiming = asyncio.ensure_future(bench.claim())
        await until(lambda: bench.rules.asked)
        claiming.cancel()
        await asyncio.gather(claiming, return_exceptions=True)
        bench.rules.hold.set()
        await bench.claim()
        assert bench.queues.released == [taken.token]

    run(test)


def test_a_wait_ends_when_the_rules_change(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "_LOOK", 0.001)

    async def test(bench: Bench) -> None:
        claiming = asyncio.ensure_future(bench.claim(wait=30.0))
        await until(lambda: bench.queues.claims)
        bench.rules.now = 3
        async with asyncio.timeout(5.0):
            assert await claiming == []
        assert bench.claims.epoch == 3

    run(test)


def test_a_wait_ends_when_the_rules_are_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "_LOOK", 0.001)

    async def test(bench: Bench) -> None:
        claiming = asyncio.ensure_future(bench.claim(wait=30.0))
        await until(lambda: bench.queues.claims)
        bench.rules.away = True
        with pytest.raises(OperationalError):
            await claiming

    run(test)


def test_a_cancelled_wait_leaves_nothing_behind() -> None:
    async def test(bench: Bench) -> None:
        claiming = asyncio.ensure_future(bench.claim(wait=30.0))
        await until(lambda: bench.queues.claims)
        late = delivery()
        bench.queues.ready = [late]
        bench.queues.there.set()  # it takes it in the turn in which it is cancelled
        await asyncio.sleep(0)
        claiming.cancel()
        await asyncio.gather(claiming, return_exceptions=True)
        await asyncio.sleep(0)
        await bench.claims.settled()
        back = [each.token for each in bench.queues.ready] + bench.queues.released
        assert back == [late.token]

    run(test)
