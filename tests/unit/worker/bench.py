"""A fetcher among fakes: broker, store, executors and a runner that knows a few names."""

from __future__ import annotations

import time
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from celeriac.model import outcome as o
from celeriac.model.message import Delivery
from celeriac.model.options import TaskOptions
from celeriac.model.plan import plan
from celeriac.model.settle import Completion
from celeriac.worker.fetcher import Fetcher
from celeriac.worker.limits import Limits
from celeriac.worker.options import NodeOptions
from celeriac.worker.rules import RuleBook
from tests.unit.worker.fakes import FakeBroker, FakeExecutor, FakeStore

#: Names the runner knows: whether they are coroutines, and whether they are acknowledged late.
KNOWN = {"t": (False, True), "co": (True, True), "early": (False, False), "early_co": (True, False)}


class FakeRunner:
    """Knows KNOWN; decides by the real plan, and keeps the outcomes."""

    def __init__(self) -> None:
        self.runtimes: dict[str, float] = {}
        self.count = 0
        self.signer: Any = None
        self.payloads: Any = None
        self.valid_until = float("inf")
        self.now = time.time
        self.outcomes: list[tuple[str, o.Outcome]] = []
        self.app = SimpleNamespace(tasks={}, conf=SimpleNamespace(accept_content=["json"], max_message_bytes=10_000))

    def entry(self, name: str) -> Any:
        if name not in KNOWN:
            return None
        is_async, late = KNOWN[name]
        return SimpleNamespace(
            tracer=SimpleNamespace(is_async=is_async), options=TaskOptions(name=name, acks_late=late)
        )

    def conclude(self, delivery: Delivery, outcome: o.Outcome) -> Completion:
        self.outcomes.append((delivery.token, outcome))
        decided = plan(delivery, outcome, TaskOptions(name=delivery.message.task), 1_000.0, 0.5)
        return Completion(settlement=decided.settlement)


class FetcherBench:
    """``bench.fetcher`` and all it talks to; ``bench.concluded`` are completions, in order."""

    def __init__(
        self,
        *,
        store: bool = True,
        sync: int = 1,
        coroutines: int = 100,
        broker: FakeBroker | None = None,
        **options: Any,
    ) -> None:
        self.broker = broker or FakeBroker()
        self.store = FakeStore() if store else None
        self.runner = FakeRunner()
        self.sync = FakeExecutor(sync)
        self.coroutines = FakeExecutor(coroutines)
        self.concluded: list[Completion] = []
        self.early: set[str] = set()
        #: When the claims were sent that brought something.
        self.claimed: list[float] = []
        self.limits = Limits(self.broker, self.runner)  # type: ignore[arg-type]
        self.rules = RuleBook()
        node = NodeOptions(**{"hostname": "w@h", "queues": ("celery",), **options})
        self.fetcher = Fetcher(
            self.broker,  # type: ignore[arg-type]
            self.store,
            self.runner,  # type: ignore[arg-type]
            node,
            sync=self.sync,
            coroutines=lambda: self.coroutines,
            conclude=self.concluded.extend,
            early=self.early,
            limits=self.limits,
            rules=self.rules,
            rand=lambda: 0.0,
            claimed=self.claimed.append,
        )

    def settled(self, deliveries: Sequence[Delivery]) -> None:
        """As the child does when something is written."""
        for each in deliveries:
            self.fetcher.held.pop(each.token, None)
        self.fetcher.changed()

    def outcome(self, delivery: Delivery) -> o.Outcome | None:
        return dict(self.runner.outcomes).get(delivery.token)
