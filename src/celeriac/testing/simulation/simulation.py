"""Simulations for users: an app's own tasks on the real worker, in virtual time, with crashes and outages."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from celeriac.testing.simulation.node import Child, Node
from celeriac.testing.simulation.process import Process
from celeriac.testing.simulation.world import World
from celeriac.worker.options import NodeOptions

if TYPE_CHECKING:
    from celeriac.app.base import Celery
    from celeriac.model.message import Delivery

__all__ = ["Simulation", "seconds"]

#: Seconds per unit of texts such as ``3d`` and ``1h30m``.
_UNITS = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|[dhms])")
#: Seconds that a worker is given to connect and to listen.
_START = 0.001


def seconds(time: float | str | timedelta) -> float:
    """A span as a number of seconds, from a number, a ``timedelta`` or a text: ``3d``, ``1h30m``, ``250ms``. Raises
    ``ValueError``."""
    if isinstance(time, timedelta):
        return time.total_seconds()
    if isinstance(time, str):
        text = time.replace(" ", "")
        if not text or _PART.sub("", text):
            raise ValueError(f"{time!r} is no span of time: write 90, '90s', '1h30m' or '3d'")
        return sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(text))
    return float(time)


class Simulation(World):
    """``app`` with everything around it in this thread: brokers and results in memory, workers, and the time.

    Within the ``with`` block it is the current app; ``delay()``, ``apply_async()``, ``get()``, ``control`` lead here,
    whatever its settings say, and ``time.time``, ``time.monotonic`` and ``time.sleep`` are virtual. What happens
    depends on ``seed`` alone: every seed is another order of the same events.
    """

    def __init__(self, app: Celery, seed: int | str = 0) -> None:
        super().__init__(app, seed)
        #: Tasks that are still to run before each worker dies.
        self._doomed: dict[Node, int] = {}
        self.on_ran = self._count_down

    # -- workers -----------------------------------------------------------------------------------------------

    def worker(
        self, concurrency: int = 1, queues: Sequence[str] | None = None, *, pool: str = "prefork", name: str = ""
    ) -> Node:
        """Start a worker: ``concurrency`` children, or threads with ``pool="threads"``, for ``queues`` (default: the
        app's default queue). Its leases last as long as ``worker_lease`` says. It is up when this returns."""
        conf = self.app.conf
        options = NodeOptions(
            hostname=name or f"worker{len(self.nodes) + 1}@simulation",
            queues=tuple(queues) if queues is not None else (self.app.amqp.router.default_queue,),
            pool=pool,
            concurrency=concurrency,
            async_concurrency=conf.worker_async_concurrency,
            time_limit=conf.task_time_limit,
            soft_time_limit=conf.task_soft_time_limit,
            lease=float(conf.seconds("worker_lease") or 30.0),
            park=float(conf.seconds("worker_unknown_task_park") or 0.0),
            heartbeats=False,
        )
        node = self.add_node(options)
        self.timeline.run(self.timeline.time + _START)
        return node

    def crash_worker(self, worker: Node | None = None, *, after: int = 0) -> None:
        """Kill a whole worker (default: the first), as a power cut does: nothing is cleaned up, nobody is told.

        ``after``: not now, but when it has run so many tasks more: right after the last one's body, before anything of
        it is written. That task runs again when its lease is over and there is another worker.
        """
        node = self._chosen(worker)
        if after > 0:
            self._doomed[node] = after
        else:
            node.die()

    def crash_child(self, worker: Node | None = None) -> None:
        """Kill a child of a worker (default: the first), as the OOM killer does: what it ran goes back at once, and
        the worker replaces it."""
        node = self._chosen(worker)
        if node.children:
            node.child_died(node.children[0], "signal 9 (SIGKILL)")

    def stop_worker(self, worker: Node | None = None) -> None:
        """SIGTERM: it finishes what runs and leaves."""
        self._chosen(worker).stop()

    def _chosen(self, worker: Node | None) -> Node:
        if worker is not None:
            return worker
        if not self.nodes:
            raise RuntimeError("there is no worker in this simulation: start one with sim.worker()")
        first: Node = self.nodes[0]
        return first

    def _count_down(self, child: Child, delivery: Delivery) -> None:
        node = child.node
        if node in self._doomed:
            self._doomed[node] -= 1
            if self._doomed[node] <= 0:
                del self._doomed[node]
                self.outside(node.die)

    # -- periodic tasks ----------------------------------------------------------------------------------------

    def beat(self) -> Process:
        """Start a scheduler of the app's ``beat_schedule``; any number of them sends each slot once. ``kill()``,
        ``pause()`` and ``resume()`` of what is returned do as they say. It is up when this returns."""
        process = self.add_beat()
        self.timeline.run(self.timeline.time + _START)
        self.check()
        return process

    # -- servers -----------------------------------------------------------------------------------------------

    def cut_broker(self, time: float | str | timedelta) -> None:
        """Nobody reaches the broker for so long; sending raises ``OperationalError``."""
        self._cut("broker", time)

    def cut_results(self, time: float | str | timedelta) -> None:
        """Nobody reaches the result backend for so long. With results on the broker's server: both are away."""
        self._cut(self.store_name, time)

    def _cut(self, server: str, time: float | str | timedelta) -> None:
        self.weather.away[server] = False
        self.control.call_later(seconds(time), self.weather.away.pop, server, None)

    # -- sending and time --------------------------------------------------------------------------------------

    def send(self, signature: Any, **options: Any) -> Any:
        """``signature.apply_async(**options)``; returns the result."""
        return signature.apply_async(**options)

    def advance(self, time: float | str | timedelta) -> None:
        """Let time pass: ``90`` (seconds), ``"3d"``, ``timedelta(hours=1)``. Raises what went wrong inside a worker,
        but for what tasks raise."""
        self.pass_time(seconds(time))

    def run_until_idle(self) -> None:
        """Let time pass until nothing is ready, running or due any more; schedulers are not waited for."""
        self.pass_time(None)

    @property
    def clock(self) -> datetime:
        """The time of the simulation, in UTC."""
        return datetime.fromtimestamp(self.timeline.epoch + self.timeline.time, UTC)
