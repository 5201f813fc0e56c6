"""The reference adapter, on a virtual clock."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from celeriac.brokers import memory
from celeriac.testing.clock import VirtualClock
from celeriac.testing.conformance import Conformance, Harness

_numbers = itertools.count()


class MemoryHarness(Harness):
    """A name of its own; time passes in ``elapse`` only."""

    adapter = memory
    between_processes = False
    lease = 30.0
    leaps = True
    examples = 150
    shrinks = True
    unit = 1.0

    def __init__(self) -> None:
        super().__init__()
        self.url = f"memory://conformance-{next(_numbers)}"
        self.clock = VirtualClock()
        self.server = memory.server(self.url, self.clock)

    def now(self) -> float:
        return self.clock.now()

    async def elapse(self, seconds: float) -> None:
        await self.clock.advance(seconds)

    async def inject(self, queue: str, raw: bytes) -> None:
        with self.server.lock:
            self.server.queues.add(queue, raw, step=0, due=None, now=self.now())

    async def inject_topic(self, exchange: str, raw: bytes) -> None:
        with self.server.lock:
            self.server.topics.emit(exchange, (raw, b"null"))

    def close(self) -> None:
        memory.drop(self.url)


class TestMemory(Conformance):
    @pytest.fixture
    def harness(self) -> Iterator[MemoryHarness]:
        harness = MemoryHarness()
        yield harness
        harness.close()
