"""The world of a simulation: one app, its servers in memory, its nodes, the weather between them, and the time.

``Simulation`` is what users see of it; the simulation tests build on it directly.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Self

from celeriac.client import resolver
from celeriac.exceptions import TimeoutError  # noqa: A004 - Celery's name
from celeriac.testing.simulation.node import Node
from celeriac.testing.simulation.patches import current_app, seeded, virtual_time
from celeriac.testing.simulation.process import Process, ProcessClock, spawn
from celeriac.testing.simulation.producer import (
    SimulatedDeadLetters,
    SimulatedPort,
    SimulatedPublisher,
    SimulatedReader,
)
from celeriac.testing.simulation.surroundings import Surroundings
from celeriac.testing.simulation.timeline import Timeline
from celeriac.worker.fetcher import WAIT
from celeriac.worker.options import NodeOptions

if TYPE_CHECKING:
    from celeriac.app.base import Celery
    from celeriac.model.message import Message
    from celeriac.model.rules import RuleChange
    from celeriac.ports import AdapterOptions

__all__ = ["World"]

#: Seconds for which all is run before time may leap over idleness: every service has had its turn.
_SETTLED = 15.0
#: Seconds in which claims that waited while all slept come back, and others are sent.
_WAKING = WAIT + 1.0
#: Most seconds between two looks of a scheduler: each of them wakes all up.
_LOOKS = 3600.0
#: Seconds after which whoever waits without a limit gives up.
_PATIENCE = 366 * 86400.0


class _ServerClock:
    """The clock of the servers: the timeline itself."""

    def __init__(self, timeline: Timeline) -> None:
        self._clock = ProcessClock(timeline)
        self._timeline = timeline
        self.monotonic = self._clock.monotonic
        self.sleep = self._clock.sleep

    def now(self) -> float:
        """Seconds since the epoch."""
        return self._timeline.epoch + self._timeline.time


class World(Surroundings):
    """Enter it (``with``) to begin: the app's calls go to its servers until it is left."""

    def __init__(self, app: Celery, seed: int | str = 0, *, apart: bool | None = None) -> None:
        """``apart``: messages and results are on two servers; None: as the app's settings say."""
        super().__init__(app, seed, apart=apart)
        memory: Any = resolver.adapter(self.broker_url)
        self._memory = memory
        clock: Any = _ServerClock(self.timeline)
        self.server: Any = memory.server(self.broker_url, clock)
        #: The one with rules, locks and limits.
        self.ledger_server: Any = self.server
        self.store_server: Any = memory.server(self.store_url, clock) if self.store_url else None
        #: Schedulers of periodic tasks, the dead ones too.
        self.beats: list[Process] = []
        self._options = resolver.adapter_options(app.conf)
        self._left = ExitStack()
        #: Since when nobody has had anything to do; None: somebody had at the last look.
        self._idle_since: float | None = None

    # -- beginning and end -------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            # Whether it is older than the simulation or made by it: its clock is the simulated one now, and not later.
            sender = self.app.sender
            stack.callback(setattr, sender, "now", sender.now)
            sender.now = self.now
            stack.enter_context(virtual_time(self.now, self.monotonic, self.sleep))
            stack.enter_context(seeded(self.seed))
            stack.enter_context(current_app(self.app))
            self._connect(stack)
            stack.callback(self._end)
            self._left = stack.pop_all()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._left.close()

    def _connect(self, stack: ExitStack) -> None:
        """The app's connections lead here."""
        app, memory = self.app, self._memory
        options = resolver.adapter_options(app.conf)
        publisher, ledger, letters = self._blocking(options)
        stack.enter_context(app.sender._publisher.standing_in(publisher))
        stack.enter_context(app.control._caller.standing_in(memory.caller(self.broker_url, options)))
        stack.enter_context(app.task_steps._ledger.standing_in(ledger))
        stack.enter_context(app.dead_letters._port.standing_in(letters))
        if self.store_url is not None and app.backend._reader is not None:
            reader = memory.reader(self.store_url, resolver.store_options(app.conf))
            simulated = SimulatedReader(reader, self.weather, self.store_name, self._wait)
            stack.enter_context(app.backend._reader.standing_in(simulated))

    def _blocking(self, options: AdapterOptions) -> tuple[Any, Any, Any]:
        """Publisher, ledger and dead letters of the app, through the weather."""
        memory, url, weather = self._memory, self.broker_url, self.weather
        publisher = SimulatedPublisher(memory.publisher(url, options), weather, self._published, self._ruled)
        letters = SimulatedDeadLetters(memory.dead_letters(url, options), weather, self._published)
        return publisher, SimulatedPort(memory.ledger(url, options), weather), letters

    def _published(self, messages: Sequence[Message]) -> None:
        self._told("publish", messages)

    def _ruled(self, changes: Sequence[RuleChange]) -> None:
        self._told("set_rules", changes)

    def _told(self, method: str, what: Sequence[Any]) -> None:
        if self.tell is not None:
            current = self.timeline.current
            self.tell(current.name if current is not None else "producer", method, (what,), None)

    def _wait(self, ids: Sequence[str], timeout: float | None) -> str | None:
        """``Reader.wait``. Raises ``TimeoutError`` when nothing is left that could end one of the tasks."""
        if self.timeline.current is not None:
            raise RuntimeError("a simulated task cannot wait for another: nothing goes on while its body runs")
        with self._watch(ids) as watcher:
            if self.pass_time(timeout, until=watcher.event.is_set):
                found: str | None = watcher.id
                return found
        if timeout is None:
            raise TimeoutError(
                f"task {ids[0]} will not end: nothing is left to do in this simulation; is there a worker for its queue"
                " (sim.worker())?"
            )
        return None

    @contextmanager
    def _watch(self, ids: Sequence[str]) -> Iterator[Any]:
        """Watch the first of these records."""
        results = self.store_server.results
        watcher = self._memory.watcher()
        results.watch(ids, watcher, self.timeline.time)
        try:
            yield watcher
        finally:
            results.unwatch(ids, watcher)

    def _end(self) -> None:
        for process in list(self.timeline.processes):
            process.kill()
        for url in {self.broker_url, self.store_url}:
            if url is not None:
                self._memory.drop(url)

    # -- clocks ------------------------------------------------------------------------------------------------

    def now(self) -> float:
        """Seconds since the epoch, as the process believes whose step it is."""
        current = self.timeline.current
        return current.clock.now() if current is not None else self.timeline.epoch + self.timeline.time

    def monotonic(self) -> float:
        """The monotonic clock of the process whose step it is."""
        current = self.timeline.current
        return current.clock.monotonic() if current is not None else self.timeline.time

    def sleep(self, seconds: float) -> None:
        """``time.sleep``: a task's body works on; outside of tasks time passes for all."""
        current = self.timeline.current
        if current is None:
            self.pass_time(seconds)
        elif current.body is not None:
            current.clock.ahead += current.body.work(seconds)
            error = current.body.exceeded()
            if error is not None:
                raise error

    # -- time passes -------------------------------------------------------------------------------------------

    def pass_time(self, seconds: float | None, until: Callable[[], bool] | None = None) -> bool:
        """Let time pass, until ``until()`` if given; returns whether it was. ``seconds`` None: until then, or until
        nothing is left to do."""
        timeline = self.timeline
        end = timeline.time + (seconds if seconds is not None else _PATIENCE)
        while True:
            if not self.is_idle():
                self._idle_since = None
            elif self._idle_since is None:
                self._idle_since = timeline.time
            elif timeline.time - self._idle_since >= _SETTLED:
                following = self.next_moment(beats=seconds is not None)
                if following is None and seconds is None:
                    return until is not None and until()
                # As when all machines sleep: nobody has anything to do before that moment. They wake up sooner:
                # what a claim from before the sleep brings is not run, for nobody knows how old its lease is.
                following = following - _WAKING if following is not None else end
                timeline.time = max(timeline.time, min(end, following))
                if timeline.time >= end:
                    return until is not None and until()
                self._idle_since = None
            if timeline.run(min(end, timeline.time + _SETTLED), until):
                return True
            self.check()
            if timeline.time >= end:
                return False

    def check(self) -> None:
        """Raise what a process of the worker's has met and did not expect: an error in Celeriac."""
        for process in self.timeline.processes:
            if process.errors:
                error = process.errors[0]
                if isinstance(error, BaseException):
                    raise error
                raise AssertionError(f"{process.name}: {error}")

    def is_idle(self) -> bool:
        """Nothing is lent, nothing is ready for a living node or waits there for a seat, no chord waits for its
        body."""
        now = self.timeline.epoch + self.timeline.time
        queues = {queue for node in self.nodes for queue in node.options.queues}
        return (
            not self.server.queues.leases
            and not any(self.server.queues.depth(queue, now).ready for queue in queues)
            and not any(each.queue in queues for line in self.server.queues.parked.values() for each in line)
            and not (self.store_server is not None and self.store_server.chords.pending())
        )

    def next_moment(self, *, beats: bool = True) -> float | None:
        """When something is due or strikes next, on the timeline; ``beats``: or a scheduler looks."""
        queues = list({queue for node in self.nodes for queue in node.options.queues})
        due = self.server.queues.next_due(queues)
        moments = [due - self.timeline.epoch] if due is not None else []
        timer = self.timeline.next_timer((self.control, self.network, *(self.beats if beats else ())))
        return min([*moments, *([timer] if timer is not None else [])], default=None)

    # -- schedulers --------------------------------------------------------------------------------------------

    def add_beat(self) -> Process:
        """Start a scheduler of the app's periodic tasks, on a machine of its own."""
        from celeriac.beat.scheduler import SharedScheduler
        from celeriac.beat.service import BeatService
        from celeriac.beat.written import Written

        process = spawn(self.timeline, f"beat{len(self.beats) + 1}")
        ledger: Any = SimulatedPort(self._memory.ledger(self.broker_url, self._options), self.weather)

        async def aside(function: Callable[..., Any], *arguments: Any) -> Any:
            return function(*arguments)

        longest = self.app.conf.seconds("beat_max_loop_interval") or _LOOKS

        def make() -> SharedScheduler:
            book = Written(self.app, every=longest)
            return SharedScheduler(self.app, ledger=ledger, book=book, max_interval=longest)

        service = BeatService(self.app, clock=process.clock, aside=aside, make=make)
        self.beats.append(process)
        process.start(service.run())
        return process

    # -- nodes -------------------------------------------------------------------------------------------------

    def add_node(self, options: NodeOptions, clock: ProcessClock | None = None) -> Node:
        """Start a node."""
        node = Node(self, options, clock or ProcessClock(self.timeline))
        self.nodes.append(node)
        return node
