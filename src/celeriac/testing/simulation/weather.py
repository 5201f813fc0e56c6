"""What lies between a simulated process and its servers: latency, broken connections, lost answers, outages.

``Line`` wraps an adapter; how bad the weather is changes during a run. An answer can be lost after its effect, and a
request whose sender has given it up can still arrive later.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from random import Random
from typing import Any

from celeriac.exceptions import OperationalError
from celeriac.model.settle import Release
from celeriac.testing.simulation.process import Process

__all__ = ["Line", "Tell", "Weather"]

#: ``tell(process name, method, arguments, answer)``: a call has had its effect on a server.
Tell = Callable[[str, str, tuple[Any, ...], Any], None]

_BROKER_CALLS = ("declare", "publish", "settle", "finish", "extend", "orphans", "maintain", "depth", "purge", "dead")
_STORE_CALLS = (
    "put", "get", "forget", "sweep", "open_chords", "join", "gather", "close_chord", "grow_chord", "overdue",
)  # fmt: skip
_BUS_CALLS = ("emit", "reply")
_MORE_CALLS = ("rules", "set_rules", "withdraw", "permit", "freed", "read_ledger", "change_ledger")
#: Calls that do not arrive late: nobody would hear their answer, or (``put``) no server could tell the order: a late
#: STARTED or RETRY replaces a FAILURE or REVOKED, in one of 400 simulations of such networks. A SUCCESS is guarded.
_NO_GHOSTS = frozenset(
    {"claim", "withdraw", "get", "gather", "orphans", "overdue", "join", "put", "rules", "read_ledger"}
)
#: Seconds after which an adapter gives up a server that says nothing, and within which a late request arrives.
_SILENCE = 5.0
_LATE = 3.0
#: Seconds that the answer to a cancelled claim waits for the next claim (``Broker.claim``).
_LEFT = 0.1


class Weather:
    """Faults of all connections of a simulation."""

    def __init__(self, random: Random) -> None:
        self.random = random.random
        #: Most seconds that a request, and its answer, take.
        self.latency = 0.0
        #: Chance that a connection breaks during a call: before its effect or after it.
        self.cut = 0.0
        #: Share of the requests cut before their effect that arrive late all the same.
        self.late = 0.0
        #: Chance that a producer sends its messages twice, as who tries again after a lost answer does.
        self.doubled = 0.0
        #: Servers that are away: name → whether they keep silent instead of refusing.
        self.away: dict[str, bool] = {}
        #: The process that delivers late requests.
        self.network: Process | None = None

    @property
    def is_calm(self) -> bool:
        """Nothing can happen to a call."""
        return not (self.latency or self.cut or self.away)

    def clear(self) -> None:
        """From now on all is well."""
        self.latency = self.cut = self.late = self.doubled = 0.0
        self.away.clear()

    def check(self, server: str) -> None:
        """A blocking call begins. Raises ``OperationalError``: nothing was sent."""
        if server in self.away or self.random() * 2 < self.cut:
            raise _broken(server)

    def check_answer(self, server: str) -> None:
        """A blocking call had its effect. Raises ``OperationalError``: nobody knows."""
        if self.random() * 2 < self.cut:
            error = _broken(server)
            error.uncertain = True
            raise error


class Line:
    """An adapter, a broker's or a store's, as it is seen through the weather."""

    def __init__(self, adapter: Any, server: str, weather: Weather, process: Process, tell: Tell | None) -> None:
        self.adapter = adapter
        self.traits = adapter.traits
        self._server = server
        self._weather = weather
        self._process = process
        self._tell = tell
        #: Deliveries whose claim was cancelled while its answer was on its way: they come with the next.
        self._claimed: list[Any] = []
        self.settle: Any
        self.close = adapter.close
        calls = ("open", *_BROKER_CALLS, *_STORE_CALLS, *_BUS_CALLS, *_MORE_CALLS)
        for name in calls:
            if hasattr(adapter, name):
                setattr(self, name, self._call(name))
        if hasattr(adapter, "claim"):
            self.claim = self._claim
            self.listen = adapter.listen
            #: What the last answer to a claim told of the rules (``Rules.epoch``).
            self.epoch = 0

    def _call(self, name: str) -> Any:
        real, weather, process = getattr(self.adapter, name), self._weather, self._process

        async def call(*args: Any, **kwargs: Any) -> Any:
            if weather.is_calm:
                answer = await real(*args, **kwargs)
                if self._tell is not None:
                    self._tell(process.name, name, args, answer)
                return answer
            await self._send(name, args, kwargs)
            answer = await real(*args, **kwargs)
            if self._tell is not None:
                self._tell(process.name, name, args, answer)
            await self._receive()
            return answer

        return call

    async def _claim(self, queues: Any, *, limit: int, wait: float) -> Any:
        early, self._claimed = self._claimed, []
        if early:
            return early
        if not self._weather.is_calm:
            await self._send("claim", (), {})
        self.adapter.epoch = self.epoch  # an answer that was lost told nothing
        answer = await self.adapter.claim(queues, limit=limit, wait=wait)
        epoch = self.adapter.epoch
        if self._tell is not None:
            self._tell(self._process.name, "claim", (queues,), answer)
        if not self._weather.is_calm:
            try:
                await self._receive()
            except asyncio.CancelledError:
                self._claimed, self.epoch = list(answer), epoch
                self._process.call_later(_LEFT, self._give_back)
                raise
        self.epoch = epoch
        return answer

    def _give_back(self) -> None:
        left, self._claimed = self._claimed, []
        if left:
            self._process.start(self._release(left))

    async def _release(self, deliveries: list[Any]) -> None:
        try:
            await self.settle([Release(delivery) for delivery in reversed(deliveries)])
        except OperationalError:
            pass  # their leases expire

    async def _send(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """The way there."""
        weather, random = self._weather, self._weather.random
        if weather.latency:
            await asyncio.sleep(random() * weather.latency)
        silent = weather.away.get(self._server)
        if silent is not None:
            if silent:
                await asyncio.sleep(_SILENCE)
            raise _broken(self._server)
        if random() * 2 < weather.cut:
            if name not in _NO_GHOSTS and random() < weather.late and weather.network is not None:
                weather.network.start(self._later(name, args, kwargs, random() * _LATE))
            raise _broken(self._server)

    async def _later(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], seconds: float) -> None:
        """A request whose sender thinks that it was lost."""
        await asyncio.sleep(seconds)
        try:
            answer = await getattr(self.adapter, name)(*args, **kwargs)
        except OperationalError:
            return  # its connection was closed meanwhile
        if self._tell is not None:
            self._tell(self._process.name, name, args, answer)

    async def _receive(self) -> None:
        """The way back."""
        weather = self._weather
        if weather.latency:
            await asyncio.sleep(weather.random() * weather.latency)
        if self._server in weather.away or weather.random() * 2 < weather.cut:
            raise _broken(self._server)


def _broken(server: str) -> OperationalError:
    return OperationalError(f"{server}: the connection is broken (simulated)")
