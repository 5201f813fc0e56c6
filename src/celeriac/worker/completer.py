"""Writes completions in batches: publish → store → free → join → settle, atomically where broker and store are one
server.

Runs on the I/O loop. Nothing is dropped while a server is away: completions wait here, their deliveries stay held, and
so the fetcher claims nothing new (back-pressure). A refused (fenced) completion is dropped: its task belongs to
another.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from celeriac.app.starts import Starts
from celeriac.clock import SYSTEM
from celeriac.codec.envelope import new_id
from celeriac.codec.escape import one_line
from celeriac.exceptions import OperationalError
from celeriac.model.chord import Gathered
from celeriac.model.ledger import Change, Lock, queued_key
from celeriac.model.message import Delivery
from celeriac.model.settle import Accept, Completion, Hold, Settlement, StoredResult, Verdict
from celeriac.ports import Broker, Clock, Ledger, ResultStore, Unified
from celeriac.worker.closer import Aside, Closer, once_more
from celeriac.worker.locks import renewals
from celeriac.worker.outage import About, Outage, Word

__all__ = ["Completer", "unified"]

logger = logging.getLogger("celery.worker")

#: Most completions written in one step.
_BATCH = 256
#: So many are written at once without waiting for more, and so long, in seconds, fewer wait for company.
_ENOUGH = 32
_GATHER = 0.002


def unified(broker: Broker, store: ResultStore | None) -> Unified | None:
    """The broker, where it writes results in the step that settles; None where these are two steps."""
    together = store is None or store.traits.server == broker.traits.server
    return broker if together and isinstance(broker, Unified) else None


class _Completing(Struct, frozen=True):
    """A delivery that made chords complete: it is settled when their bodies are sent."""

    settlement: Settlement
    token: str
    chords: Sequence[str]


class _Left:
    """What of a batch is still to be written, and how."""

    def __init__(self, todo: list[Completion]) -> None:
        self.todo = todo
        self.steps: list[Completion] = []
        self.completing: list[_Completing] = []

    def __len__(self) -> int:
        return len(self.todo) + len(self.steps) + len(self.completing)


class Completer:
    """Takes completions (``put``) and STARTED records (``started``), writes them in order.

    ``settled(deliveries)`` is called with the deliveries that are over; ``expected()`` says how many are held in all;
    ``join`` concludes complete chords (``Joiner.conclude``), run by ``aside``; ``ended(deliveries)`` hears of those
    that were accepted under their lease: nobody will ask for their messages again, ``written(deliveries)`` of all that
    were settled under it; ``now()`` is what due times count by. A completion whose delivery is in ``early`` was
    acknowledged before its run: it has nothing to settle. STARTED records are written while ``certain()`` only: of a
    task whose lease may be lost another may have stored the end. ``starts``: what tasks store meanwhile. One process of
    those that share ``word`` tells of an outage.
    """

    def __init__(
        self,
        broker: Broker,
        store: ResultStore | None,
        settled: Callable[[Sequence[Delivery]], None],
        *,
        rand: Any,
        expected: Callable[[], int] = lambda: 0,
        join: Callable[[Gathered, Hold], Completion | None] | None = None,
        aside: Aside = asyncio.to_thread,
        ended: Callable[[Sequence[Delivery]], None] | None = None,
        written: Callable[[Sequence[Delivery]], None] | None = None,
        clock: Clock = SYSTEM,
        now: Callable[[], float] | None = None,
        certain: Callable[[], bool] = lambda: True,
        starts: Starts | None = None,
        word: Word | None = None,
    ) -> None:
        self.early: set[str] = set()
        self._broker = broker
        self._store = store
        self._settled = settled
        self._expected = expected
        self._ended = ended
        self._hears = written
        self._clock = clock
        self._now = now or clock.now
        self._certain = certain
        self._starts = starts or Starts()
        self._written = 0.0
        #: Size of the batch that is being written.
        self._writing = 0
        self._queue: deque[Completion | StoredResult] = deque()
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._backoff = Outage(About.WRITING, rand=rand, word=word)
        self._unified = unified(broker, store)
        #: None where nothing is stored: there are no chords then.
        self.closer: Closer | None = None
        if store is not None and join is not None:
            self.closer = Closer(broker, store, self._unified, join, aside)

    def __len__(self) -> int:
        return len(self._queue)

    @property
    def finishing(self) -> int:
        """How many will be over as soon as a server answers; 0 while one is away, so that nothing new is claimed."""
        return 0 if self._backoff.failures else len(self._queue) + self._writing

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
            self._writing = len(batch)
            await self.write(batch)
            self._writing = 0

    async def _gather(self) -> None:
        """Let outcomes gather while others are still to come: one write of twenty costs a fifth of twenty writes.

        A lone task's outcome never waits, and none longer than _GATHER after the write before.
        """
        monotonic = self._clock.monotonic
        pause = self._written + _GATHER - monotonic()
        if pause > 0 and len(self._queue) < _ENOUGH and self._expected() > len(self._queue):
            await self._clock.sleep(pause)
        self._written = monotonic()

    async def write(self, batch: list[Completion | StoredResult]) -> None:
        """Write a batch, again and again while a server is away."""
        started = self._starts.wanted([item for item in batch if isinstance(item, StoredResult)])
        left = _Left([item for item in batch if isinstance(item, Completion)])
        renewed = renewals(left.todo, self._now())
        while started or left:
            try:
                while started and self._store is not None and self._certain():
                    await self._store.put(started)
                    started = self._starts.newer(started)
                if started:  # not to be written
                    self._starts.forget(started)
                    started = []
                if renewed and isinstance(self._broker, Ledger):
                    # Before what it is for: a lock that outlives a lost write is freed by the task all the same.
                    await self._broker.change_ledger(renewed)
                renewed = []
                if left.todo:
                    await self._finish(left)
                if left.steps:
                    await self._step_by_step(left)
                if left.completing:
                    await self._close_chords(left)
                self._backoff.over(logger, "Finished tasks are written again, after %d failed tries")
            except OperationalError as error:
                delay = self._backoff.next()
                self._backoff.tell(
                    logger, "Cannot write %d finished tasks, next try in %.1f s: %s", len(left), delay, error
                )
                await self._clock.sleep(delay)

    async def _finish(self, left: _Left) -> None:
        """Write what can be written atomically."""
        early, todo = self.early, left.todo
        if self._unified is None:
            left.steps, left.todo = todo, []
            return
        atomic = [c for c in todo if c.ending.delivery.token not in early] if early else todo
        verdicts = await self._unified.finish(atomic) if atomic else ()
        left.todo = []
        if early:
            left.steps = [c for c in todo if c.ending.delivery.token in early]
        fenced, over, done = [], [], []
        for completion, verdict in zip(atomic, verdicts, strict=True):
            if verdict is Verdict.STEPWISE:
                left.steps.append(completion)
            elif verdict is Verdict.COMPLETES:
                token = completion.ending.delivery.token
                left.completing.append(_Completing(completion.ending, token, [p.chord for p in completion.parts]))
            else:
                over.append(completion.ending.delivery)
                if verdict is Verdict.FENCED:
                    fenced.append(completion)
                else:
                    done.append(completion.ending)
        self._report(fenced)
        if self._ended is not None:
            self._ended([each.delivery for each in done if type(each) is Accept])
        if self._hears is not None:
            self._hears([each.delivery for each in done])
        self._settled(over)

    async def _step_by_step(self, left: _Left) -> None:
        """The order that turns a crash into a repeat, never into a loss. Checks the leases first.

        What is done leaves ``left.steps``: while the store is away, follow-ups must not be published at every try.
        """
        early, todo = self.early, left.steps
        held = [c.ending.delivery for c in todo if c.ending.delivery.token not in early]
        lost = {delivery.token for delivery in await self._broker.extend(held)} if held else set()
        if lost:
            fenced = [c for c in todo if c.ending.delivery.token in lost]
            todo[:] = [c for c in todo if c.ending.delivery.token not in lost]
            self._report(fenced)
            self._settled([c.ending.delivery for c in fenced])
        store = self._store
        chords = [chord for c in todo for chord in c.opens]
        if chords and store is not None:
            await store.open_chords(chords)
        messages = [message for c in todo for message in c.publish]
        if messages:
            try:
                await self._broker.publish(messages)
            except OperationalError as error:
                if error.uncertain:
                    todo[:] = [replace(c, publish=once_more(c.publish)) for c in todo]
                raise
            todo[:] = [replace(c, publish=(), opens=()) for c in todo]
        if store is not None:
            records = [record for c in todo for record in (c.result, *c.others) if record is not None]
            if records:
                await store.put(records)
                todo[:] = [replace(c, result=None, others=()) for c in todo]
        await self._free([lock for c in todo for lock in c.frees])
        if store is not None:
            # One after the other, each under its own token: the last one of a chord completes it.
            for completion in [c for c in todo if c.parts]:
                token = self._token_of(completion.ending.delivery)
                complete = await store.join(completion.parts, token=token)
                if complete:
                    todo.remove(completion)
                    left.completing.append(_Completing(completion.ending, token, complete))
        await self._settle([c.ending for c in todo])
        todo.clear()

    async def _free(self, locks: Sequence[Lock]) -> None:
        """Free the locks of tasks whose end is stored. Again after an outage: what is free by then stays so."""
        if locks and isinstance(self._broker, Ledger):
            notes = [Change(queued_key(lock.holder), None) for lock in locks]
            await self._broker.change_ledger([*(change for lock in locks for change in lock.ends()), *notes])

    def _token_of(self, delivery: Delivery) -> str:
        """A chord is held under the token of a delivery only as long as that one is leased."""
        return new_id() if delivery.token in self.early else delivery.token

    async def _close_chords(self, left: _Left) -> None:
        """Send the bodies of chords that are complete now, then settle the deliveries that completed them."""
        while left.completing:
            last = left.completing[0]
            delivery = last.settlement.delivery
            if self.closer is not None:
                held = None if delivery.token in self.early else delivery
                await self.closer.close(last.chords, token=last.token, delivery=held)
            await self._settle([last.settlement])
            left.completing.pop(0)

    async def _settle(self, settlements: Sequence[Settlement]) -> None:
        """End deliveries after all else is written."""
        early = self.early
        held = [each for each in settlements if each.delivery.token not in early]
        if held:
            refused = {each.delivery.token for each in await self._broker.settle(held)}
            if self._ended is not None:
                self._ended([e.delivery for e in held if type(e) is Accept and e.delivery.token not in refused])
            if self._hears is not None:
                self._hears([e.delivery for e in held if e.delivery.token not in refused])
        self._settled([each.delivery for each in settlements])

    def _report(self, fenced: Sequence[Completion]) -> None:
        for completion in fenced:
            message = completion.ending.delivery.message
            logger.warning(
                "Task %s lost its lease, or an earlier try finished it: its outcome here is dropped",
                one_line(f"{message.task}[{message.id}]"),
            )
