"""The world of a simulation: one app, its servers in memory, its nodes, the weather between them, and the time.

``Simulation`` is what users see of it; the simulation tests build on it directly.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from random import Random
from typing import TYPE_CHECKING, Any, Self

from celeriac.client import resolver
from celeriac.testing.simulation.node import Child, Node
from celeriac.testing.simulation.patches import seeded, virtual_time
from celeriac.testing.simulation.process import ProcessClock, spawn
from celeriac.testing.simulation.producer import SimulatedPublisher, SimulatedReader
from celeriac.testing.simulation.timeline import Timeline
from celeriac.testing.simulation.weather import Tell, Weather
from celeriac.worker.options import NodeOptions

if TYPE_CHECKING:
    from celeriac.app.base import Celery
    from celeriac.model.message import Delivery

__all__ = ["World"]

_names = itertools.count(1)
#: Seconds for which all is run before time may leap over idleness: every service has had its turn.
_SETTLED = 15.0
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


class World:
    """Enter it (``with``) to begin: the app's calls go to its servers until it is left."""

    def __init__(self, app: Celery, seed: int | str = 0, *, apart: bool | None = None) -> None:
        """``apart``: messages and results are on two servers; None: as the app's settings say."""
        self.app = app
        self.seed = seed
        self.random = Random(f"{seed}-world")
        self.timeline = Timeline(Random(f"{seed}-steps"))
        self.weather = Weather(Random(f"{seed}-weather"))
        #: The supervisors, and whoever lets faults strike.
        self.control = spawn(self.timeline, "control")
        self.weather.network = self.network = spawn(self.timeline, "network")
        self.nodes: list[Node] = []
        #: Children that were killed, for whatever reason.
        self.deaths = 0
        #: Hears of every call that had its effect on a server.
        self.tell: Tell | None = None
        #: Hear of every body that has begun, and of every one that has run, before anything of it is written.
        self.on_begun: Callable[[Child, Delivery], None] = _nothing
        self.on_ran: Callable[[Child, Delivery], None] = _nothing
        has_results = app.backend_url is not None
        two = apart if apart is not None else app.backend_url != app.broker_url
        name = f"memory://simulation-{next(_names)}"
        self.broker_url = name
        self.store_url = None if not has_results else f"{name}-results" if two else name
        #: The name of the result store in ``weather.away``.
        self.store_name = "results" if self.store_url != name else "broker"
        memory: Any = resolver.adapter(name)
        self._memory = memory
        clock: Any = _ServerClock(self.timeline)
        self.server: Any = memory.server(name, clock)
        self.store_server: Any = memory.server(self.store_url, clock) if self.store_url else None
        self._left = ExitStack()
        #: Since when nobody has had anything to do; None: somebody had at the last look.
        self._idle_since: float | None = None

    # -- beginning and end -------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.enter_context(virtual_time(self.now, self.monotonic, self.sleep))
            stack.enter_context(seeded(self.seed))
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
        publisher = SimulatedPublisher(memory.publisher(self.broker_url, options), self)
        stack.enter_context(app.sender._publisher.standing_in(publisher))
        stack.enter_context(app.control._caller.standing_in(memory.caller(self.broker_url, options)))
        if self.store_url is not None and app.backend._reader is not None:
            reader = memory.reader(self.store_url, resolver.store_options(app.conf))
            stack.enter_context(app.backend._reader.standing_in(SimulatedReader(reader, self, self._watch)))

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
                following = self.next_moment()
                if following is None and seconds is None:
                    return until is not None and until()
                # As when all machines sleep: nobody has anything to do before that moment.
                timeline.time = max(timeline.time, min(end, following if following is not None else end))
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
        """Nothing is lent, nothing is ready for a living node, no chord waits for its body."""
        now = self.timeline.epoch + self.timeline.time
        queues = {queue for node in self.nodes for queue in node.options.queues}
        return (
            not self.server.queues.leases
            and not any(self.server.queues.depth(queue, now).ready for queue in queues)
            and not (self.store_server is not None and self.store_server.chords.pending())
        )

    def next_moment(self) -> float | None:
        """When something is due or strikes next, on the timeline."""
        queues = list({queue for node in self.nodes for queue in node.options.queues})
        due = self.server.queues.next_due(queues)
        moments = [due - self.timeline.epoch] if due is not None else []
        timer = self.timeline.next_timer((self.control, self.network))
        return min([*moments, *([timer] if timer is not None else [])], default=None)

    # -- nodes -------------------------------------------------------------------------------------------------

    def add_node(self, options: NodeOptions, clock: ProcessClock | None = None) -> Node:
        """Start a node."""
        node = Node(self, options, clock or ProcessClock(self.timeline))
        self.nodes.append(node)
        return node

    def outside(self, action: Callable[[], None]) -> None:
        """After the present step, when no process is in the midst of anything."""
        self.timeline.outside(action)


def _nothing(child: Child, delivery: Delivery) -> None:
    """Nobody wants to know."""
