"""One child: the I/O loop with fetcher, completer and leases, and the executors it feeds.

A child fetches for itself. ``serve`` blocks the calling thread and runs synchronous tasks there; the I/O loop lives in
a thread of its own. The same child runs as a forked process of a node, in the main process (``solo``) and in any thread
of a test. It knows its slot, but neither supervisor nor agent.

Shutdown, in this order and for these reasons: stop claiming (nothing new) → recall what has not started and give it
back (others can start it at once) → wait for what runs, up to the grace → give back the rest → write everything →
close.
"""

from __future__ import annotations

import asyncio
import logging
import random
import threading
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any

from celeriac.app import trace
from celeriac.clock import SystemClock
from celeriac.exceptions import OperationalError
from celeriac.executors import Executor
from celeriac.executors.coroutines import CoroutinesExecutor
from celeriac.executors.inline import InlineExecutor
from celeriac.executors.limits import SoftLimit, block_in_this_thread
from celeriac.executors.threads import ThreadsExecutor
from celeriac.model.message import Delivery
from celeriac.model.outcome import TimedOut
from celeriac.model.settle import Completion, Release, StoredResult
from celeriac.ports import Broker, ResultStore, Timekeeper
from celeriac.worker.completer import Completer
from celeriac.worker.connect import connected
from celeriac.worker.fetcher import Fetcher
from celeriac.worker.leases import Leases
from celeriac.worker.loop import new_loop, run
from celeriac.worker.options import NodeOptions
from celeriac.worker.report import Report
from celeriac.worker.revoked import Revoked
from celeriac.worker.runner import Runner
from celeriac.worker.slot import Slot

if TYPE_CHECKING:
    from celeriac.app.base import Celery

__all__ = ["Child"]

logger = logging.getLogger("celery.worker")

#: Seconds between two looks at limits and stalls while something runs, and at idle.
_TICK = 0.05
_IDLE_TICK = 1.0
#: So few outcomes wait so long, in seconds, for company.
_FEW = 16
_GATHER = 0.004
#: Seconds that coroutines have to clean up when they are cancelled at the end.
_CANCEL_LIMIT = 1.0


class Child:
    """Fetches and runs tasks of ``app``. ``open_broker`` and ``open_store`` make the adapters, on the I/O loop.

    ``extras`` are further services (coroutine functions of the child) on the same loop: the agent's, in one process.
    ``connecting()`` is called once the loop runs, ``ready()`` once the servers answered; ``abandon()`` when everything
    is given back and tasks still run, which no thread can end: a process leaves there.
    """

    def __init__(
        self,
        app: Celery,
        options: NodeOptions,
        *,
        open_broker: Callable[[], Broker],
        open_store: Callable[[], ResultStore | None],
        slot: Slot | None = None,
        extras: Sequence[Callable[[Child], Coroutine[Any, Any, None]]] = (),
        connecting: Callable[[], None] | None = None,
        ready: Callable[[], None] | None = None,
        abandon: Callable[[], None] | None = None,
    ) -> None:
        self.app = app
        self.options = options
        self.slot = slot
        self.revoked = Revoked()
        self.report = Report(log_arguments=options.log_arguments, log_results=options.log_results)
        self.report.events = options.events
        self.report.emit = self._emit
        #: Set when ``serve`` may be left: read by whoever runs the child.
        self.stopped = threading.Event()
        self.exit_reason = ""
        self.broker: Broker
        self.store: ResultStore | None = None
        self.fetcher: Fetcher
        self.completer: Completer
        self.loop: asyncio.AbstractEventLoop | None = None
        self._open_broker = open_broker
        self._open_store = open_store
        self._extras = extras
        self._connecting = connecting
        self._ready = ready
        self._abandon = abandon
        self._outbox: list[Completion | Delivery | StoredResult] = []
        self._events: list[dict[str, Any]] = []
        self._flushing = False
        self._outbox_lock = threading.Lock()
        self._notified = False
        self._coroutines: CoroutinesExecutor | None = None
        self._stop_requested: asyncio.Event
        self._stop_wanted = False
        self._grace = options.grace
        self._failed: BaseException | None = None
        results = app.backend_url is not None
        # Threads would write over each other in the one slot; their limits are enforced here (``_end_overdue``).
        own = slot if options.pool != "threads" else None
        self.runner = Runner(app, options, slot=own, report=self.report, results=results)
        self.runner.started = self._record_started
        self.runner.leave = self.stop
        self.runner.after = self._after_task
        self._memory_checked = 0.0
        self.soft = SoftLimit()
        self.sync = self._sync_executor()

    def _sync_executor(self) -> InlineExecutor | ThreadsExecutor:
        runner = self.runner
        if self.options.pool == "threads":
            count = self.options.concurrency
            return ThreadsExecutor(runner.run, self._done, count, runner.soft_limit, runner.limited)
        soft = self.soft
        return InlineExecutor(
            lambda delivery: runner.run(delivery, soft),
            self._done,
            runner.expect,
            soft=soft,
            trampoline=trace.run_body,
        )

    # -- any thread --------------------------------------------------------------------------------------------

    @property
    def failed(self) -> bool:
        """The I/O loop ended by an error of ours, which is logged."""
        return self._failed is not None

    def serve(self) -> None:
        """Run until stopped; synchronous tasks run on the calling thread. Raises what made the I/O loop fail."""
        thread = threading.Thread(target=self._io_thread, name="io", daemon=True)
        thread.start()
        try:
            self.sync.serve()
        finally:
            self.stop(grace=0.0 if not self.stopped.is_set() else None)
            thread.join()
            if self._coroutines is not None:
                self._coroutines.close(_CANCEL_LIMIT)
        if self._failed is not None:
            raise self._failed

    def stop(self, *, grace: float | None = None) -> None:
        """Begin the shutdown; ``grace`` in seconds (default: the node's). From any thread or signal handler.
        Idempotent."""
        if grace is not None:
            self._grace = min(self._grace, grace)
        self._stop_wanted = True  # read by the loop when it comes up: before that there is nothing to wake
        loop = self.loop
        if loop is not None and not loop.is_closed():
            try:
                loop.call_soon_threadsafe(self._stop_requested.set)
            except RuntimeError:
                pass  # the loop ended meanwhile

    def _done(self, finished: Sequence[Any]) -> None:
        """Take finished work from a task thread; wakes the loop once per batch."""
        with self._outbox_lock:
            self._outbox.extend(finished)
            if self._notified:
                return
            self._notified = True
        self._call_loop(self._drain_soon)

    def _record_started(self, record: StoredResult) -> None:
        self._done((record,))

    def _emit(self, kind: str, fields: dict[str, Any]) -> None:
        self._events.append({**fields, "type": kind, "timestamp": time.time()})
        if kind == "task-retried":
            # At once: monitors should hear of it before another child tells that the next attempt runs.
            self._call_loop(self._flush_events)
        # Not the length, which another thread may have changed meanwhile: then nobody would ever flush.
        if not self._flushing:
            self._flushing = True
            self._call_loop(self._flush_events_soon)

    def _call_loop(self, callback: Callable[[], object]) -> None:
        loop = self.loop
        if loop is not None:
            try:
                loop.call_soon_threadsafe(callback)
            except RuntimeError:
                pass  # the loop is closed: the child is stopped, its leases say the rest

    def _after_task(self) -> None:
        """Limits of the child, on the task's thread."""
        options, runner = self.options, self.runner
        if options.max_tasks_per_child is not None and runner.count == options.max_tasks_per_child:
            self.exit_reason = f"it ran {runner.count} tasks"
            self.stop()
        elif options.max_memory_per_child is not None:
            now = time.monotonic()
            if now - self._memory_checked > 0.1:
                self._memory_checked = now
                used = _resident_kib()
                if used > options.max_memory_per_child and not self.exit_reason:
                    self.exit_reason = f"it uses {used} KiB of memory"
                    self.stop()

    def running(self) -> list[tuple[Delivery, float]]:
        """What runs now, with its start in monotonic seconds."""
        return self.sync.active() + (self._coroutines.active() if self._coroutines else [])

    def cancel(self, token: str) -> bool:
        """End a running task where its executor can."""
        return self.sync.cancel(token) or (self._coroutines is not None and self._coroutines.cancel(token))

    # -- the I/O loop ------------------------------------------------------------------------------------------

    def _io_thread(self) -> None:
        block_in_this_thread()
        try:
            run(self._main())
        except BaseException as error:
            self._failed = error
            logger.critical("The I/O loop of this child failed, it is replaced: %s", cause_of(error), exc_info=error)
        finally:
            # Looked at before the executor is told: what tells its threads is in its inbox.
            busy = self._busy()
            self.stopped.set()
            self.sync.stop()
            if self._abandon is not None and busy:
                self._abandon()

    async def _main(self) -> None:
        self._stop_requested = asyncio.Event()
        self.loop = asyncio.get_running_loop()
        if self._stop_wanted:
            self._stop_requested.set()
        self.broker = self._open_broker()
        self.store = self._open_store()
        if isinstance(self.broker, Timekeeper):
            # Also for what tasks send with a countdown, and for retries.
            self.runner.now = self.runner.app.sender.now = self.broker.now
        rand = random.random
        self.completer = Completer(
            self.broker,
            self.store,
            self._settled,
            rand=rand,
            expected=self._held,
            join=self.runner.joiner.conclude,
        )
        self.fetcher = Fetcher(
            self.broker,
            self.store,
            self.runner,
            self.options,
            sync=self.sync,
            coroutines=self._start_coroutines,
            conclude=self.completer.put,
            early=self.completer.early,
            revoked=self.revoked,
            rand=rand,
            finishing=lambda: self.completer.finishing,
        )
        self._leases = leases = Leases(
            self.broker,
            self.fetcher.held,
            SystemClock(),
            lease=self.options.lease,
            lost=self._lost,
            valid=self._valid,
        )
        try:
            if self._connecting is not None:
                self._connecting()
            if await connected(self.broker, self.store, self.options.queues, self._stop_requested):
                async with asyncio.TaskGroup() as group:
                    services = [self.completer.run(), self.fetcher.run(), leases.run(), self._tick()]
                    services += [extra(self) for extra in self._extras]
                    running = [group.create_task(service) for service in services]
                    if self._ready is not None:
                        self._ready()
                    await self._stop_requested.wait()
                    await self._shut_down(running[1])
                    for task in running:
                        task.cancel()
        finally:
            self.runner.app.sender.now = time.time
            await self.broker.close()
            if self.store is not None:
                await self.store.close()

    async def _shut_down(self, fetching: asyncio.Task[None]) -> None:
        """See the module's docstring for the order."""
        fetcher, held = self.fetcher, self.fetcher.held
        fetcher.stop()
        await asyncio.wait({fetching})
        fetcher.recall_all()
        began = time.monotonic()
        # A second request may have shortened the grace meanwhile.
        while (self._busy() or self._on_its_way()) and time.monotonic() - began < self._grace:  # noqa: ASYNC110 - threads
            await asyncio.sleep(0.01)
        self._drain()
        left = self._grace - (time.monotonic() - began)
        await self._within(self.completer.drain(), min(max(left, 1.0), 5.0))
        rest = [delivery for delivery in held.values() if delivery.token not in self.completer.early]
        if rest:
            still = "%d tasks are not finished after %.0f s of grace: they go back to their queues"
            logger.warning(still, len(rest), self._grace)
            # Not through the completer, which may be waiting for a result store that is away.
            await self._within(self._release(rest), 2.0)
        self._flush_events()
        if self.slot is not None:
            self.slot.pulse(time.monotonic(), self.runner.count)

    async def _release(self, deliveries: Sequence[Delivery]) -> None:
        try:
            await self.broker.settle([Release(delivery) for delivery in deliveries])
        except OperationalError as error:
            logger.warning("Cannot give back %d tasks, their leases will: %s", len(deliveries), error)

    def _busy(self) -> bool:
        executors: list[Executor] = [self.sync, *([self._coroutines] if self._coroutines else [])]
        return bool(self._outbox) or any(executor.active() or executor.waiting() for executor in executors)

    def _on_its_way(self) -> bool:
        """Something is held and nobody has its completion: a thread is just putting it down, or taking it up."""
        return bool(self.fetcher.held) and self.completer.idle

    @staticmethod
    async def _within(work: Coroutine[Any, Any, None], seconds: float) -> None:
        """Do not wait for ever for a server that is away: the leases give the work back."""
        try:
            async with asyncio.timeout(seconds):
                await work
        except TimeoutError:
            logger.warning("Cannot write the last outcomes: their tasks go back when their leases expire")

    async def _tick(self) -> None:
        """Limits, stalls, and the pulse in the slot."""
        pulse, fetcher, loop = self.slot, self.fetcher, asyncio.get_running_loop()
        while True:
            if not fetcher.held:
                fetcher.admitted.clear()
                idle = loop.call_later(_IDLE_TICK, fetcher.admitted.set)
                await fetcher.admitted.wait()
                idle.cancel()
            if fetcher.held:
                await asyncio.sleep(_TICK)
            now = time.monotonic()
            if pulse is not None:
                pulse.pulse(now, self.runner.count)
            if fetcher.held:
                self.sync.tick(now)
                fetcher.relieve(now)
                if self.options.pool == "threads":
                    self._end_overdue(now)

    def _end_overdue(self, now: float) -> None:
        """Hard limits of tasks in threads, which nothing can end but the end of their process: the overdue one has
        failed, the others go back uncounted, and the child is replaced."""
        for delivery, started in self.sync.active():
            limit = self.runner.hard_limit(delivery)
            if limit is not None and now > started + limit and delivery.token in self.fetcher.held:
                self.exit_reason = f"a task ran longer than its time limit of {limit:g} s"
                self.completer.put([self.runner.conclude(delivery, TimedOut(limit))])
                self.stop(grace=0.0)

    def _start_coroutines(self) -> Executor:
        if self._coroutines is None:
            limit = self.options.async_concurrency
            self._coroutines = CoroutinesExecutor(self.runner.arun, self._done, limit, new_loop=new_loop())
        return self._coroutines

    def _drain_soon(self) -> None:
        """Drain at once; but where many run at a time and more wait, when some have gathered: each turn of this loop
        takes the interpreter from the tasks."""
        gathered = len(self._outbox)
        if self.fetcher.backlog and gathered < _FEW and len(self.fetcher.held) > 2 * _FEW:
            assert self.loop is not None
            self.loop.call_later(_GATHER, self._drain)
        else:
            self._drain()

    def _drain(self) -> None:
        """Pass finished work to the completer; a bare delivery did not run because its lease was not certain."""
        with self._outbox_lock:
            batch, self._outbox = self._outbox, []
            self._notified = False
        stale = [item for item in batch if isinstance(item, Delivery)]
        if stale:
            self.fetcher.give_back(stale)
            self._leases.hurry()
            batch = [item for item in batch if not isinstance(item, Delivery)]
        if batch:
            self.completer.put(batch)  # type: ignore[arg-type]
            self.fetcher.changed()

    def _held(self) -> int:
        return len(self.fetcher.held)

    def _settled(self, deliveries: Sequence[Delivery]) -> None:
        held, early = self.fetcher.held, self.completer.early
        for delivery in deliveries:
            held.pop(delivery.token, None)
        if early:
            early.difference_update(delivery.token for delivery in deliveries)
        self.fetcher.changed()

    def _lost(self, deliveries: Sequence[Delivery]) -> None:
        """Leases that are gone: what runs goes on and will be refused; it is no longer renewed."""
        early = self.completer.early
        for delivery in deliveries:
            # One that was settled while the renewal was under way is no longer held, and nothing is wrong.
            if delivery.token not in early and self.fetcher.held.pop(delivery.token, None) is not None:
                message = delivery.message
                logger.warning("The lease of task %s[%s] is gone", message.task, message.id)
        self.fetcher.drop_unheld()
        self.fetcher.changed()

    def _valid(self, until: float) -> None:
        self.runner.valid_until = until

    # -- events ------------------------------------------------------------------------------------------------

    def _flush_events_soon(self) -> None:
        assert self.loop is not None
        self.loop.call_later(0.1, self._flush_events)

    def _flush_events(self) -> None:
        self._flushing = False
        events, self._events = self._events, []
        if events and self.loop is not None:
            self._sending = self.loop.create_task(self._send_events(events))

    async def _send_events(self, events: list[dict[str, Any]]) -> None:
        from celeriac.worker.events import send

        await send(self.broker, self.options.hostname, "task.multi", events)


def cause_of(error: BaseException) -> str:
    """The first of a group, on one line."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return " ".join(f"{type(error).__name__}: {error}".split())


def _resident_kib() -> int:
    """Resident memory of this process now (not its peak), in KiB."""
    with open("/proc/self/statm", "rb") as statm:
        return int(statm.read().split()[1]) * 4
