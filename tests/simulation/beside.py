"""A world with three servers: queues that keep no ledger and come back by themselves, results, and the ledger."""

from __future__ import annotations

from typing import Any

from celeriac import beside
from celeriac.client import resolver
from celeriac.ports import AdapterOptions
from celeriac.testing.simulation.process import Process
from celeriac.testing.simulation.producer import SimulatedDeadLetters as _Letters
from celeriac.testing.simulation.producer import SimulatedPort, SimulatedPublisher
from celeriac.testing.simulation.weather import Line
from celeriac.testing.simulation.world import World
from tests.views import QueueOnly

__all__ = ["BesideWorld"]


class _Keeper(Line):
    """The ledger's server, seen through the weather; it has a clock of its own."""

    def __init__(self, *args: Any, now: Any) -> None:
        super().__init__(*args)
        self.now = now


class BesideWorld(World):
    """See the module."""

    def __init__(self, app: Any, seed: int | str) -> None:
        super().__init__(app, seed, apart=True)
        self._queues = QueueOnly(self._memory, requeues=True)
        self.ledger_url = f"{self.broker_url}-ledger"
        self.ledger_server = self._memory.server(self.ledger_url, self.server.clock)

    def broker_of(self, process: Process) -> Any:
        options = resolver.adapter_options(self.app.conf, owner=process.name)
        weather, tell = self.weather, self.tell
        inner: Any = Line(self._queues.broker(self.broker_url, options), "broker", weather, process, tell)
        real = self._memory.broker(self.ledger_url, options)
        keeper: Any = _Keeper(real, "ledger", weather, process, tell, now=self.server.clock.now)
        pair: Any = beside.broker(inner, keeper, options, now=process.clock.now, rand=self.timeline.random.random)
        permit = pair.permit

        async def told(asks: Any) -> Any:
            permits = await permit(asks)
            if tell is not None:
                tell(process.name, "permit", (asks,), permits)
            return permits

        pair.permit = told
        return pair

    def _blocking(self, options: AdapterOptions) -> tuple[Any, Any, Any]:
        memory, weather = self._memory, self.weather
        inner = SimulatedPublisher(
            self._queues.publisher(self.broker_url, options), weather, self._published, self._ruled
        )
        desk = SimulatedPublisher(
            memory.publisher(self.ledger_url, options), weather, self._published, self._ruled, "ledger"
        )
        ledger = SimulatedPort(memory.ledger(self.ledger_url, options), weather, "ledger")
        letters = _Letters(self._queues.dead_letters(self.broker_url, options), weather, self._published)
        return beside.publisher(inner, ledger, desk), ledger, beside.dead_letters(letters, ledger)  # type: ignore[arg-type]

    def _end(self) -> None:
        super()._end()
        self._memory.drop(self.ledger_url)
