"""A completer among fakes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from celeriac.exceptions import OperationalError
from celeriac.model.message import Delivery, Message
from celeriac.model.settle import Completion, StoredResult
from celeriac.worker.completer import Completer
from tests.unit.worker.fakes import FakeBroker, FakeStore, UnifiedBroker, tokens

__all__ = ["Bench", "Showing", "on_bench", "uncertain", "unified"]


class Bench:
    """A completer between a broker and a store that write into one log."""

    def __init__(self, broker: FakeBroker | None = None, store: FakeStore | None = None) -> None:
        self.log: list[tuple[str, Any]] = []
        self.broker = broker or FakeBroker()
        self.store = store or FakeStore()
        self.broker.log = self.store.log = self.log
        self.settled: list[str] = []
        self.completer = Completer(self.broker, self.store, self._settled, rand=lambda: 0.0)  # type: ignore[arg-type]

    def _settled(self, deliveries: Sequence[Delivery]) -> None:
        self.settled += tokens(deliveries)
        self.completer.early.difference_update(tokens(deliveries))

    async def write(self, items: Sequence[Completion | StoredResult]) -> None:
        running = asyncio.create_task(self.completer.run())
        self.completer.put(items)
        await self.completer.drain()
        running.cancel()

    def names(self) -> list[str]:
        return [name for name, _ in self.log]

    def of(self, name: str) -> list[Any]:
        return [what for each, what in self.log if each == name]


def on_bench(body: Callable[[Bench], Awaitable[None]], bench: Callable[[], Bench] = Bench) -> Bench:
    async def main() -> Bench:
        made = bench()
        await body(made)
        return made

    return asyncio.run(main())


def unified() -> Bench:
    return Bench(UnifiedBroker(server="one"), FakeStore(server="one"))


class Showing(FakeBroker):
    """``shown``: what each try to publish says of its messages."""

    def __init__(self) -> None:
        super().__init__()
        self.shown: list[list[Any]] = []

    async def publish(self, messages: Sequence[Message]) -> None:
        self.shown.append([message.headers.get("redelivered") for message in messages])
        await super().publish(messages)


def uncertain() -> OperationalError:
    error = OperationalError("the answer is lost")
    error.uncertain = True
    return error
