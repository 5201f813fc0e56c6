"""What is not to run is concluded at once, and beside the loop where a payload store has to be read."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from celeriac.codec.reference import CONTENT_TYPE
from celeriac.model import outcome as o
from celeriac.model.message import Delivery
from celeriac.model.settle import Accept, Completion, Release
from celeriac.worker.concluding import Concluder, is_far, sent_again
from tests.unit.worker.bench import FakeRunner
from tests.unit.worker.fakes import delivery, malformed, until

REVOKED = o.Revoked("revoked")


class Bench:
    def __init__(self) -> None:
        self.runner = FakeRunner()
        self.runner.payloads = object()
        self.runner.now = lambda: 100.0
        self.put: list[Completion] = []
        #: What ran beside the loop, and what it waits for.
        self.aside: list[Delivery] = []
        self.read = asyncio.Event()
        self.concluder = Concluder(self.runner, self.put.extend, self.run)  # type: ignore[arg-type]

    async def run(self, conclude: Any, delivery: Delivery, outcome: o.Outcome) -> Any:
        self.aside.append(delivery)
        await self.read.wait()
        return conclude(delivery, outcome)

    def settled(self) -> list[Delivery]:
        return [each.ending.delivery for each in self.put]


def test_what_lies_in_a_payload_store_keeps_nobody_waiting() -> None:
    async def main() -> None:
        bench = Bench()
        near, far, bad = delivery(), delivery(content_type=CONTENT_TYPE), malformed()
        at_once = bench.concluder([(far, REVOKED), (near, REVOKED), (bad, o.Repeated())])
        assert [each.ending.delivery for each in at_once] == bench.settled() == [near, bad]
        await until(lambda: bench.aside == [far])
        assert bench.settled() == [near, bad]
        bench.read.set()
        await until(lambda: bench.settled() == [near, bad, far])

    asyncio.run(main())


def test_without_a_store_nothing_is_far() -> None:
    runner: Any = FakeRunner()
    assert not is_far(runner, delivery(content_type=CONTENT_TYPE))


def test_what_cannot_be_concluded_is_offered_again(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        bench = Bench()
        bench.read.set()
        monkeypatch.setattr(bench.runner, "conclude", lambda delivery, outcome: 1 / 0)
        far = delivery(content_type=CONTENT_TYPE)
        bench.concluder([(far, REVOKED)])
        await until(lambda: bool(bench.put))
        assert [each.settlement for each in bench.put] == [Release(far, due=105.0)]

    asyncio.run(main())


def test_what_was_settled_early_is_sent_again() -> None:
    one, bad = delivery(), malformed()
    assert sent_again(one) == Completion(settlement=Accept(one), publish=(one.message,))  # type: ignore[arg-type]
    assert sent_again(bad) == Completion(settlement=Accept(bad))
