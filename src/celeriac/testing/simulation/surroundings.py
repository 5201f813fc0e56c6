"""What every node of a simulation stands in: the app, the servers' addresses, the weather, the time, listeners."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING, Any

from celeriac.client import resolver
from celeriac.testing.simulation.process import Process, spawn
from celeriac.testing.simulation.timeline import Timeline
from celeriac.testing.simulation.weather import Line, Tell, Weather

if TYPE_CHECKING:
    from celeriac.app.base import Celery
    from celeriac.model.message import Delivery

__all__ = ["Surroundings"]

_names = itertools.count(1)


class Surroundings:
    """One app, and what all its simulated processes share."""

    def __init__(self, app: Celery, seed: int | str, *, apart: bool | None) -> None:
        """``apart``: messages and results are on two servers; None: as the app's settings say."""
        self.app = app
        self.seed = seed
        self.timeline = Timeline(Random(f"{seed}-steps"))
        self.weather = Weather(Random(f"{seed}-weather"))
        #: The supervisors, and whoever lets faults strike.
        self.control = spawn(self.timeline, "control")
        self.weather.network = self.network = spawn(self.timeline, "network")
        #: Those that live.
        self.nodes: list[Any] = []
        #: Children that were killed, for whatever reason.
        self.deaths = 0
        #: Hears of every call that had its effect on a server.
        self.tell: Tell | None = None
        #: Hear of every body that has begun, and of every one that has run, before anything of it is written: child
        #: and delivery.
        self.on_begun: Callable[[Any, Delivery], None] = _nothing
        self.on_ran: Callable[[Any, Delivery], None] = _nothing
        two = apart if apart is not None else app.backend_url != app.broker_url
        self.broker_url = f"memory://simulation-{next(_names)}"
        self.store_url: str | None = f"{self.broker_url}-results" if two else self.broker_url
        if app.backend_url is None:
            self.store_url = None
        #: The name of the result store in ``weather.away``.
        self.store_name = "results" if two else "broker"

    def broker_of(self, process: Process) -> Any:
        """The broker of a worker's process, through the weather."""
        options = resolver.adapter_options(self.app.conf, owner=process.name)
        return Line(resolver.broker(self.broker_url, options), "broker", self.weather, process, self.tell)

    def outside(self, action: Callable[[], None]) -> None:
        """After the present step, when no process is in the midst of anything."""
        self.timeline.outside(action)


def _nothing(child: Any, delivery: Delivery) -> None:
    """Nobody wants to know."""
