"""A ledger, rules and queues in memory that do as they are told, and fail when they are told to."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from celeriac.exceptions import OperationalError
from celeriac.model.ledger import ANY, Change
from celeriac.model.message import Delivery
from celeriac.model.rules import RulesRead
from celeriac.model.settle import Release, Settlement
from celeriac.ports import Traits

__all__ = ["FakeLedger", "FakeQueues", "FakeRules"]


class FakeLedger:
    """Both sides of a ledger. ``before_change`` runs in front of each change: somebody else is faster."""

    def __init__(self) -> None:
        self.values: dict[str, bytes] = {}
        self.lives: dict[str, float | None] = {}
        self.asked = 0
        self.before_change: list[Any] = []
        #: The next calls that fail.
        self.failing: list[str] = []

    def _meet(self, call: str) -> None:
        self.asked += 1
        if self.failing and self.failing[0] == call:
            self.failing.pop(0)
            raise OperationalError("the ledger is away")

    def read(self, keys: Sequence[str], *, timeout: float) -> Sequence[bytes | None]:
        self._meet("read")
        return [self.values.get(key) for key in keys]

    def change(self, changes: Sequence[Change], *, timeout: float) -> Sequence[bool]:
        self._meet("change")
        if self.before_change:
            self.before_change.pop(0)()
        made = []
        for each in changes:
            fits = each.expected is ANY or self.values.get(each.key) == each.expected
            made.append(fits)
            if fits and each.value is None:
                self.values.pop(each.key, None)
            elif fits and each.value is not None:
                self.values[each.key] = each.value
                self.lives[each.key] = each.expires
        return made

    async def read_ledger(self, keys: Sequence[str]) -> Sequence[bytes | None]:
        return self.read(keys, timeout=1.0)

    async def change_ledger(self, changes: Sequence[Change]) -> Sequence[bool]:
        return self.change(changes, timeout=1.0)

    def close(self) -> None: ...


class FakeRules:
    """Rules with an epoch that can be set, or be away."""

    def __init__(self) -> None:
        self.now = 0
        self.away = False
        self.asked: list[int] = []
        self.hold: asyncio.Event | None = None

    async def rules(self, after: int = 0) -> RulesRead:
        self.asked.append(after)
        if self.hold is not None:
            await self.hold.wait()
        if self.away:
            raise OperationalError("the rules are away")
        return RulesRead(self.now)


class FakeQueues:
    """A broker whose claim returns what is put into ``ready``, and that remembers what comes back."""

    def __init__(self, *, requeues: bool = False) -> None:
        self.traits = Traits(durable=True, native_delay=True, server=("fake", ""), requeues=requeues)
        self.ready: list[Delivery] = []
        self.there = asyncio.Event()
        self.claims = 0
        self.released: list[str] = []

    async def claim(self, queues: Sequence[str], *, limit: int, wait: float) -> Sequence[Delivery]:
        self.claims += 1
        if not self.ready and wait > 0:
            try:
                async with asyncio.timeout(wait):
                    await self.there.wait()
            except TimeoutError:
                pass
        taken, self.ready = self.ready[:limit], self.ready[limit:]
        return taken

    async def settle(self, settlements: Sequence[Settlement]) -> Sequence[Settlement]:
        self.released += [each.delivery.token for each in settlements if isinstance(each, Release)]
        return ()
