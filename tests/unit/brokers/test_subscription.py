"""A subscription that outlives connections."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from celeriac.brokers import subscription
from celeriac.brokers.subscription import Subscription
from celeriac.exceptions import OperationalError
from tests.servers import eventually


class Radio(Subscription[int]):
    """Fails as often as told, then stands."""

    def __init__(self, failures: int = 0) -> None:
        super().__init__("news")
        self.failures, self.tries = failures, 0

    async def _subscribe(self) -> None:
        self.tries += 1
        if self.tries <= self.failures:
            raise OperationalError("away")
        self._stands.set()

    def hear(self, *numbers: int) -> None:
        for number in numbers:
            self._hear(number)

    def lose(self) -> None:
        self._lost.set()


def run(main: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(main, 10))


def test_it_tries_until_it_stands_and_again_when_lost() -> None:
    async def main() -> None:
        radio = Radio(failures=1)
        await radio.subscribed()
        assert radio.tries == 2
        radio.lose()
        await eventually(lambda: radio.tries == 3)
        radio.close()

    run(main())


def test_what_was_heard_comes_in_order_until_the_end() -> None:
    async def main() -> None:
        radio = Radio()
        radio.hear(1, 2)
        radio.close()
        assert [number async for number in radio.messages()] == [1, 2]

    run(main())


def test_a_slow_listener_loses_the_oldest(monkeypatch: Any) -> None:
    monkeypatch.setattr(subscription, "_BACKLOG", 2)

    async def main() -> None:
        radio = Radio()
        radio.hear(1, 2, 3)
        radio.close()
        assert [number async for number in radio.messages()] == [2, 3]

    run(main())


def test_nobody_waits_for_one_that_cannot_stand(monkeypatch: Any) -> None:
    monkeypatch.setattr(subscription, "_SUBSCRIBING", 0.01)

    async def main() -> None:
        radio = Radio(failures=1_000)
        await radio.subscribed()
        radio.close()

    run(main())
