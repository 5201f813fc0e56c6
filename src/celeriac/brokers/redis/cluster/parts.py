"""The parts of a cluster's broker: a broker for each queue, and one for what belongs to no queue.

Each is a Redis broker whose keys share one tag, so that all its scripts run as they are on the node of that slot.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import hiredis

from celeriac.brokers.redis.claims import CACHING, LATE, Numbers, Quiet
from celeriac.brokers.redis.cluster.nodes import Nodes, SlotLink
from celeriac.brokers.redis.cluster.slots import HOME, queue_tag
from celeriac.brokers.redis.doorbell import Doorbell
from celeriac.brokers.redis.layout import Layout
from celeriac.brokers.redis.link import Link
from celeriac.brokers.redis.maintenance import scan_index
from celeriac.brokers.redis.queues import RedisBroker
from celeriac.brokers.redis.wire import LostWire
from celeriac.clock import ServerTime
from celeriac.exceptions import OperationalError
from celeriac.model.message import Delivery
from celeriac.ports import AdapterOptions

__all__ = ["BELIEVED", "Home", "QueuePart"]

#: "Nothing there" is believed for so long, in seconds: a slot without keys that moves to another node tells nobody.
BELIEVED = 1.0


class QueuePart(RedisBroker):
    """One queue, on the node of its slot."""

    def __init__(
        self, nodes: Nodes, options: AdapterOptions, queue: str, *, bell: Doorbell, numbers: Numbers, home: Home
    ) -> None:
        self.queue = queue
        #: Why it is left alone, while its node is away.
        self.away: OperationalError | None = None
        self._slot = nodes.slot(queue_tag(queue))
        own = nodes.bells.setdefault(self._slot.number, Doorbell(also=bell))
        super().__init__("", options, link=self._slot, bell=own, numbers=numbers, believed=BELIEVED)
        self._maintenance.unadvised = False
        self._ledgers = home.place
        self._maintenance.held_by = home.held_by

    async def held(self, owner: bytes) -> int:
        """How many deliveries of this queue an owner holds."""
        return len(await scan_index(self._link, self._layout, owner))

    @property
    def time(self) -> ServerTime:
        """The clock of the node, by its answers."""
        return self._claims.time

    def silent(self, seconds: float) -> OperationalError:
        """The node has not answered in time."""
        return OperationalError(f"Redis at {self._address.masked}: no answer within {seconds:g} s")

    async def reach(self) -> None:
        """Ask the node for anything. Raises ``OperationalError``."""
        await self._link.call("EXISTS", self._layout.unacked)

    async def look(self, limit: int, *, waits: bool) -> tuple[Sequence[Delivery], Quiet | None]:
        """See ``Claims.look``. Raises ``OperationalError``."""
        found: tuple[Sequence[Delivery], Quiet | None] = await self._slot.steadily(
            lambda: self._claims.look((self.queue,), limit, waits=waits)
        )
        return found


class Home(RedisBroker):
    """Rules, ledger, remote control, and the names of the queues."""

    def __init__(self, nodes: Nodes, options: AdapterOptions, *, bell: Doorbell) -> None:
        self._slot: SlotLink = nodes.slot(HOME)
        own = nodes.bells.setdefault(self._slot.number, Doorbell(also=bell))
        super().__init__("", options, link=self._slot, bell=own)
        self._maintenance.unadvised = False
        self._quiet: Quiet | None = None
        self._known = 0
        #: How many deliveries an owner holds in all queues; the broker that has the parts knows.
        self.held_by: Callable[[bytes], Awaitable[int]]

    @property
    def place(self) -> tuple[Link, Layout]:
        """What leads there, and the names of the keys."""
        return self._link, self._layout

    @property
    def time(self) -> ServerTime:
        """The clock of the node, by its answers."""
        return self._claims.time

    async def read_epoch(self) -> int:
        """The epoch of the rules at this moment. Raises ``OperationalError``."""
        self._known = int(await self._slot.call("GET", self._layout.rules[0]) or 0)
        return self._known

    async def watch_epoch(self) -> tuple[int, Quiet]:
        """The epoch, and until when it is to be believed that it is the same."""
        found: tuple[int, Quiet] = await self._slot.steadily(self._watch)
        return found

    async def _watch(self) -> tuple[int, Quiet]:
        now = asyncio.get_running_loop().time()
        wire, quiet = await self._slot.wire(), self._quiet
        if quiet is None or quiet.wire is not wire or quiet.rings != self._bell.count or now >= quiet.until:
            quiet = Quiet(wire, (), self._bell.count, now + BELIEVED + LATE)
            before = CACHING if wire.tracking else b""
            try:
                self._known = int(await wire.send("GET", self._layout.rules[0], before=before) or 0)
            except (LostWire, hiredis.ReplyError) as error:
                raise self._slot.translated(wire, error) from error
            self._quiet = quiet
        return self._known, quiet

    async def register(self, queues: Sequence[str]) -> None:
        """Remember names of queues for maintainers, and for whoever looks after dead letters."""
        await self._slot.call("SADD", self._layout.queues, *queues)

    async def registered(self) -> list[str]:
        """The names of all queues that workers have met."""
        answer: Any = await self._slot.call("SMEMBERS", self._layout.queues)
        return sorted(name.decode("utf-8", "surrogateescape") for name in answer)
