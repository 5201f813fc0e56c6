"""Random faults, as many kinds at a time as a seed wants: they strike until `heal()`, and then never again."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from celeriac.testing.simulation.node import Node
from celeriac.testing.simulation.process import Process, ProcessClock
from celeriac.testing.simulation.world import World
from celeriac.worker.options import NodeOptions
from tests.simulation.journal import Journal
from tests.simulation.tasks import LEASE

__all__ = ["KINDS", "Faults"]

#: Every kind of fault there is.
KINDS = (
    "latency", "cuts", "late requests", "child kills", "step kills", "step pauses", "node kills",
    "agent kills", "pauses", "outages", "skew", "early restores", "deploys", "duplicates",
)  # fmt: skip


class Faults:
    """Strikes a world with some kinds of faults."""

    def __init__(self, world: World, journal: Journal, random: Random, kinds: frozenset[str], pool: str) -> None:
        self.kinds = kinds
        self._world = world
        self._journal = journal
        self._random = random
        self._pool = pool
        self._nodes = 0
        self._over = False
        #: Process → until when its leases may run out, because it was cut off or frozen.
        self._cut_off: dict[str, float] = {}
        #: Until when anybody's may.
        self._all_cut_off = 0.0
        self._steps_to_go = 0
        journal.is_excused = self._is_excused  # type: ignore[method-assign]

    @property
    def is_calm(self) -> bool:
        """Nothing bad will ever happen."""
        return not self.kinds

    # -- the beginning -----------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Start nodes, and the first faults."""
        weather, random = self._world.weather, self._random
        for _ in range(random.choice((1, 2, 2, 3))):
            self.start_node()
        if "latency" in self.kinds:
            weather.latency = random.choice((0.002, 0.05, 0.5))
        if "cuts" in self.kinds:
            weather.cut = random.choice((0.01, 0.05, 0.2))
        if "late requests" in self.kinds:
            weather.cut, weather.late = max(weather.cut, 0.05), 0.5
        if "duplicates" in self.kinds:
            weather.doubled = 0.3
        strikes: dict[str, tuple[float, Callable[[], None]]] = {
            "child kills": (4.0, self._kill_child),
            "node kills": (12.0, self._kill_node),
            "agent kills": (8.0, self._kill_agent),
            "pauses": (6.0, self._pause),
            "outages": (10.0, self._outage),
            "skew": (10.0, self._jump),
            "early restores": (3.0, self._restore_early),
            "deploys": (8.0, self._deploy),
        }
        for kind in KINDS:
            if kind in self.kinds and kind in strikes:
                self._again(*strikes[kind])
        if self.kinds & {"step kills", "step pauses"}:
            self._steps_to_go = random.randrange(50, 1500)
            self._world.timeline.after_step = self._step

    def _again(self, every: float, strike: Callable[[], None]) -> None:
        """Strike now and then."""

        def struck() -> None:
            if not self._over:
                strike()
                self._again(every, strike)

        self._world.control.call_later(self._random.expovariate(1 / every), struck)

    def start_node(self) -> Node:
        """Another machine."""
        self._nodes += 1
        random, timeline = self._random, self._world.timeline
        clock = ProcessClock(timeline, boot=random.uniform(0, 1e6))
        if "skew" in self.kinds:
            clock.wall, clock.rate = random.choice((0.0, 0.3, -0.3, 5.0, -5.0)), random.uniform(0.98, 1.02)
        options = NodeOptions(
            hostname=f"n{self._nodes}",
            queues=("celery",),
            pool=self._pool,
            concurrency=random.choice((1, 2, 3)),
            async_concurrency=random.choice((1, 4)),
            lease=LEASE,
            grace=random.choice((0.5, 10.0)),
            park=random.choice((0.0, 6.0)),
            heartbeats=False,
            prefetch_limit=random.choice((None, None, 4)),
        )
        return self._world.add_node(options, clock)

    # -- the end -----------------------------------------------------------------------------------------------

    def heal(self) -> None:
        """From now on all goes well: servers answer, what was frozen goes on, there is a node that works."""
        self._over = True
        world = self._world
        self._all_cut_off = world.timeline.time + 2 * LEASE + 1
        world.weather.clear()
        world.timeline.after_step = None
        for process in list(world.timeline.processes):
            process.resume()
        if all(node.is_stopping for node in world.nodes):
            self.start_node()
        self._journal.note("all is well")

    # -- who may lose a lease ----------------------------------------------------------------------------------

    def _is_excused(self, owner: str) -> bool:
        now = self._world.timeline.time
        if now <= self._all_cut_off or self._world.weather.cut:
            return True
        living = [process.name for process in self._world.timeline.processes]
        return owner not in living or now <= self._cut_off.get(owner, -1.0)

    def _excuse(self, processes: list[Process], seconds: float) -> None:
        until = self._world.timeline.time + seconds + 2 * LEASE
        for process in processes:
            self._cut_off[process.name] = max(until, self._cut_off.get(process.name, 0.0))

    # -- strikes -----------------------------------------------------------------------------------------------

    def _node(self) -> Node | None:
        return self._random.choice(self._world.nodes) if self._world.nodes else None

    def _kill_child(self) -> None:
        node = self._node()
        if node is not None and node.children:
            child = self._random.choice(node.children)
            self._journal.note("kills", child.process.name)
            node.child_died(child, "signal 9 (SIGKILL)")

    def _step(self) -> None:
        """Between any two steps."""
        self._steps_to_go -= 1
        if self._steps_to_go <= 0:
            self._steps_to_go = self._random.randrange(50, 1500)
            if self._random.choice(sorted(self.kinds & {"step kills", "step pauses"})) == "step kills":
                self._kill_child()
            else:
                self._pause()

    def _kill_node(self) -> None:
        node = self._node()
        if node is not None:
            self._journal.note("kills node", node.options.hostname)
            node.die()
            self._world.control.call_later(self._random.uniform(0.1, 5), self.start_node)

    def _kill_agent(self) -> None:
        node = self._node()
        if node is not None:
            self._journal.note("kills agent", node.options.hostname)
            node.agent_died()

    def _pause(self) -> None:
        node = self._node()
        if node is None:
            return
        processes = node.processes()
        if not processes:
            return  # it has just been told to stop
        if self._random.random() < 0.5:
            processes = [self._random.choice(processes)]
        seconds = self._random.choice((0.5, LEASE, 3 * LEASE))
        self._excuse(processes, seconds)
        self._journal.note("pauses", [process.name for process in processes], seconds)
        for process in processes:
            process.pause()
            self._world.control.call_later(seconds, process.resume)

    def _outage(self) -> None:
        weather = self._world.weather
        servers = ("broker", "results") if self._world.store_name == "results" else ("broker",)
        servers += ("ledger",) if self._world.ledger_server is not self._world.server else ()
        server, seconds = self._random.choice(servers), self._random.choice((0.5, 4.0, 20.0))
        self._all_cut_off = max(self._all_cut_off, self._world.timeline.time + seconds + 2 * LEASE + 6)
        self._journal.note("takes away", server, seconds)
        weather.away[server] = self._random.random() < 0.3
        self._world.control.call_later(seconds, weather.away.pop, server, None)

    def _jump(self) -> None:
        node = self._node()
        if node is not None:
            seconds = self._random.choice((-3600.0, -2.0, 2.0, 3600.0))
            self._journal.note("sets the clock of", node.options.hostname, seconds)
            node.clock.jump(seconds)

    def _restore_early(self) -> None:
        """The broker believes that somebody's lease is over."""
        leases = self._world.server.queues.leases
        if leases:
            token = self._random.choice(list(leases))
            self._journal.excused.add(leases[token].owner)
            leases[token].until = -1.0

    def _deploy(self) -> None:
        node = self._node()
        if node is not None and not node.is_stopping:
            self._journal.note("stops node", node.options.hostname)
            node.stop()
            self._world.control.call_later(self._random.uniform(0, 2), self.start_node)
