"""Writes completions in batches: publish → store → settle, atomically where broker and store are one server.

Runs on the I/O loop. Nothing is dropped while a server is away: completions wait here, their deliveries stay held,
and so
the fetcher claims nothing new (back-pressure). A refused (fenced) completion is dropped: its task belongs to another.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from msgspec.structs import replace

from celeriac.exceptions import OperationalError
from celeriac.model.message import Delivery
from celeriac.model.settle import Completion, StoredResult, Verdict
from celeriac.ports import Broker, ResultStore, Unified
from celeriac.worker.backoff import Backoff

__all__ = ["Completer"]

logger = logging.getLogger("celery.worker")

#: Most completions written in one step.
_BATCH = 256
#: So many are written at once without waiting for more, and so long, in seconds, fewer wait for company.
_ENOUGH = 32
_GATHER = 0.002


class Completer:
    """Takes completions (``put``) and STARTED records (``started``), writes them in order.

    ``settled(deliveries)`` is called with the deliveries that are over; ``expected()`` says how many are held in all. A
    completion whose delivery is in ``early`` was acknowledged before its run: it has nothing to settle.
    """

    def __init__(
        self,
        broker: Broker,
        store: ResultStore | None,
        settled: Callable[[Sequence[Delivery]], None],
        *,
        rand: Any,
        expected: Callable[[], int] = lambda: 0,
    ) -> None:
        self.early: set[str] = set()
        self._broker = broker
        self._store = store
        self._settled = settled
        self._expected = expected
        self._written = 0.0
        self._queue: deque[Completion | StoredResult] = deque()
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._backoff = Backoff(rand=rand)
        unified = isinstance(broker, Unified) and (store is None or store.traits.server == broker.traits.server)
        self._unified: Unified | None = broker if unified and isinstance(broker, Unified) else None

    def __len__(self) -> int:
        return len(self._queue)

    @property
    def idle(self) -> bool:
        """Everything taken is written."""
        return self._idle.is_set()

    def put(self, items: Sequence[Completion | StoredResult]) -> None:
        """Take work; on the I/O loop."""
        self._queue.extend(items)
        self._idle.clear()
        self._wake.set()

    async def drain(self) -> None:
        """Wait until everything taken is written."""
        await self._idle.wait()

    async def run(self) -> None:
        """Write until cancelled."""
        queue = self._queue
        while True:
            if not queue:
                self._idle.set()
                self._wake.clear()
                await self._wake.wait()
            await self._gather()
            batch = [queue.popleft() for _ in range(min(len(queue), _BATCH))]
            await self._write(batch)

    async def _gather(self) -> None:
        """Let outcomes gather while others are still to come: one write of twenty costs a fifth of twenty writes.

        A lone task's outcome never waits, and none longer than _GATHER after the write before.
        """
        loop = asyncio.get_running_loop()
        pause = self._written + _GATHER - loop.time()
        if pause > 0 and len(self._queue) < _ENOUGH and self._expected() > len(self._queue):
            await asyncio.sleep(pause)
        self._written = loop.time()

    async def _write(self, batch: list[Completion | StoredResult]) -> None:
        """Write a batch, again and again while a server is away."""
        started = [item for item in batch if isinstance(item, StoredResult)]
        todo = [item for item in batch if isinstance(item, Completion)]
        steps: list[Completion] = []
        while started or todo or steps:
            try:
                if started and self._store is not None:
                    await self._store.put(started)
                started = []
                if todo:
                    steps, todo = await self._finish(todo), []
                if steps:
                    await self._step_by_step(steps)
                self._backoff.reset()
            except OperationalError as error:
                delay, left = self._backoff.next(), len(todo) + len(steps)
                logger.error("Cannot write %d finished tasks, next try in %.1f s: %s", left, delay, error)
                await asyncio.sleep(delay)

    async def _finish(self, todo: list[Completion]) -> list[Completion]:
        """Write what can be written atomically; returns what is left to be written step by step."""
        early = self.early
        if self._unified is None:
            return todo
        atomic = [c for c in todo if c.settlement.delivery.token not in early] if early else todo
        verdicts = await self._unified.finish(atomic) if atomic else ()
        self._report([c for c, verdict in zip(atomic, verdicts, strict=True) if verdict is Verdict.FENCED])
        stepwise = [c for c, verdict in zip(atomic, verdicts, strict=True) if verdict is Verdict.STEPWISE]
        if early:
            stepwise += [c for c in todo if c.settlement.delivery.token in early]
        left = {id(c) for c in stepwise}
        self._settled([c.settlement.delivery for c in todo if id(c) not in left])
        return stepwise

    async def _step_by_step(self, todo: list[Completion]) -> None:
        """The order that turns a crash into a repeat, never into a loss. Checks the leases first.

        What is done leaves ``todo``: while the store is away, follow-ups must not be published at every try.
        """
        early = self.early
        held = [c.settlement.delivery for c in todo if c.settlement.delivery.token not in early]
        lost = {delivery.token for delivery in await self._broker.extend(held)} if held else set()
        if lost:
            fenced = [c for c in todo if c.settlement.delivery.token in lost]
            todo[:] = [c for c in todo if c.settlement.delivery.token not in lost]
            self._report(fenced)
            self._settled([c.settlement.delivery for c in fenced])
        messages = [message for c in todo for message in c.publish]
        if messages:
            await self._broker.publish(messages)
            todo[:] = [replace(c, publish=()) for c in todo]
        records = [c.result for c in todo if c.result is not None]
        if records and self._store is not None:
            await self._store.put(records)
            todo[:] = [replace(c, result=None) for c in todo]
        settlements = [c.settlement for c in todo if c.settlement.delivery.token not in early]
        if settlements:
            await self._broker.settle(settlements)
        self._settled([c.settlement.delivery for c in todo])
        todo.clear()

    def _report(self, fenced: Sequence[Completion]) -> None:
        for completion in fenced:
            message = completion.settlement.delivery.message
            logger.warning(
                "Task %s[%s] lost its lease, or an earlier try finished it: its outcome here is dropped",
                message.task,
                message.id,
            )
