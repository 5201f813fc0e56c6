"""Asynchronous connections to the nodes of a cluster: one a node, found by slots.

A slot that has moved is followed, one that is moving is waited for; a command that may have been executed is never
repeated. What a server pushes rings the bell of the slots it is about.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from msgspec.structs import replace

from celeriac.brokers.redis.address import Address
from celeriac.brokers.redis.cluster.address import at
from celeriac.brokers.redis.cluster.slots import SlotMap, slot_of, tagged
from celeriac.brokers.redis.doorbell import Doorbell
from celeriac.brokers.redis.errors import Elsewhere
from celeriac.brokers.redis.link import Link
from celeriac.brokers.redis.scripts import Script
from celeriac.brokers.redis.sockets import Word
from celeriac.brokers.redis.wire import LostWire, Wire
from celeriac.exceptions import OperationalError

__all__ = ["Nodes", "Patience", "SlotLink"]

#: Seconds for which a command waits for a slot that is on its way, and between its tries.
PATIENCE = 5.0
_PAUSE_FIRST, _PAUSE_LAST = 0.005, 0.1


class Patience:
    """How long somebody waits for a slot."""

    def __init__(self, now: float) -> None:
        self._until = now + PATIENCE
        self._pause = 0.0

    def pause(self, failure: Elsewhere, now: float) -> float:
        """Seconds until the next try. Raises the failure when there is none."""
        if now >= self._until:
            raise failure
        pause, self._pause = self._pause, min(max(self._pause * 2, _PAUSE_FIRST), _PAUSE_LAST)
        return 0.0 if failure.word == "MOVED" and pause == 0.0 else max(pause, _PAUSE_FIRST)


class Nodes:
    """The nodes of one cluster, for one event loop."""

    def __init__(self, address: Address, *, tracking: bool = False) -> None:
        self.address = address
        #: Of slots: rung when something there has changed, or the connection is lost.
        self.bells: dict[int, Doorbell] = {}
        self._tracking = tracking
        self._links: dict[str, Link] = {}
        self._map = SlotMap()
        self._stale = True
        self._refreshing = asyncio.Lock()
        self._closed = False

    # -- life

    async def open(self) -> None:
        """Find the cluster. Raises ``OperationalError``."""
        self._closed = False
        await self._refresh(self._map.version)

    def close(self) -> None:
        """Close all connections; calls raise until it is opened again."""
        self._closed = True
        for link in self._links.values():
            link.close()
        self._links.clear()
        self._stale = True
        self.ring_all()

    def ring_all(self) -> None:
        """Wake whoever waits."""
        for bell in self.bells.values():
            bell.ring()

    def slot(self, tag: str) -> SlotLink:
        """What leads to the node of a tag, with that tag before every key."""
        return SlotLink(self, tag)

    async def masters(self) -> Sequence[Link]:
        """Links to all nodes that serve slots. Raises ``OperationalError``."""
        if self._stale:
            await self._refresh(self._map.version)
        return [self._at(place) for place in self._map.nodes]

    # -- finding

    async def link(self, slot: int) -> Link:
        """A link to the node of a slot, connected. Raises ``OperationalError``: then nothing was executed."""
        if self._stale:
            await self._refresh(self._map.version)
        seen, place = self._map.version, self._map.owner(slot)
        if place is not None:
            link = self._at(place)
            try:
                await link.wire()
            except OperationalError:
                # Another node may serve the slot by now.
                await self._refresh(seen, without=place)
                if self._map.owner(slot) in (place, None):
                    raise
            else:
                return link
        place = self._map.owner(slot)
        if place is None:
            self._stale = True
            raise OperationalError(f"no node of {self.address.masked} serves slot {slot}: see CLUSTER INFO")
        link = self._at(place)
        await link.wire()
        return link

    def connected(self, slot: int) -> Link | None:
        """The link to the node of a slot, when it is connected."""
        link = self._links.get(self._map.owner(slot) or "")
        return link if link is not None and link.connected else None

    def learn(self, slot: int, failure: Elsewhere) -> None:
        """A node does not have the slot (any more)."""
        if failure.word == "MOVED" and failure.place.rpartition(":")[0]:
            self._map = self._map.with_moved(slot, failure.place)
        elif failure.word in ("MOVED", "CLUSTERDOWN"):
            self._stale = True

    def lost(self) -> None:
        """A connection broke: a replica may take over."""
        self._stale = True

    # -- inside

    def _at(self, place: str) -> Link:
        if self._closed:
            raise OperationalError(f"the connection to Redis at {self.address.masked} was closed: open() comes first")
        link = self._links.get(place)
        if link is None:
            link = self._links[place] = Link(
                at(self.address, place),
                on_push=self._pushed,
                on_lost=lambda: self._lost_at(place),
                tracking=self._tracking,
            )
        return link

    def _lost_at(self, place: str) -> None:
        for slot, bell in list(self.bells.items()):
            if self._map.owner(slot) == place:
                bell.ring()

    def _pushed(self, push: list[Any]) -> None:
        if push[0] != b"invalidate":
            return
        if push[1] is None:  # all of its keys
            self.ring_all()
            return
        for key in push[1]:
            bell = self.bells.get(slot_of(key))
            if bell is not None:
                bell.ring()

    async def _refresh(self, seen: int, *, without: str = "") -> None:
        """Ask for the map, once for all who saw that version. Raises ``OperationalError``."""
        async with self._refreshing:
            if self._map.version != seen:
                return
            known = sorted(self._map.nodes, key=lambda place: not self._at(place).connected)
            seeds = [each.place for each in (self.address, *self.address.others)]
            failure: OperationalError | None = None
            for place in dict.fromkeys((*known, *seeds)):
                if place == without:
                    continue
                try:
                    answer = await self._at(place).call("CLUSTER", "SLOTS")
                except OperationalError as error:
                    failure = failure or error
                else:
                    self._map, self._stale = self._map.read(answer, place), False
                    return
            raise failure or OperationalError(f"no node of {self.address.masked} can be asked")


class SlotLink(Link):
    """Looks like a link to one server, and is one to whichever node has a tag's slot."""

    def __init__(self, nodes: Nodes, tag: str) -> None:
        prefix = tagged(nodes.address.key_prefix, tag)
        super().__init__(replace(nodes.address, key_prefix=prefix))
        self._nodes = nodes
        self.number = slot_of(prefix)

    async def open(self) -> None:
        """See ``Link.open``."""
        await self._nodes.link(self.number)

    async def wire(self) -> Wire:
        """See ``Link.wire``."""
        return await (await self._nodes.link(self.number)).wire()

    def close(self) -> None:
        """Nothing: the nodes are closed together."""

    @property
    def connected(self) -> bool:
        """See ``Link.connected``."""
        return self._nodes.connected(self.number) is not None

    async def call(self, *words: Word) -> Any:
        """See ``Link.call``."""
        return await self.steadily(lambda: self._call(words))

    async def script(self, script: Script, keys: Sequence[str], args: Sequence[Word], *, durable: bool = False) -> Any:
        """See ``Link.script``."""
        return await self.steadily(lambda: self._script(script, keys, args, durable))

    async def _call(self, words: tuple[Word, ...]) -> Any:
        return await (await self._nodes.link(self.number)).call(*words)

    async def _script(self, script: Script, keys: Sequence[str], args: Sequence[Word], durable: bool) -> Any:
        return await (await self._nodes.link(self.number)).script(script, keys, args, durable=durable)

    async def steadily(self, attempt: Callable[[], Awaitable[Any]]) -> Any:
        """Try until the slot is where we ask. Raises ``OperationalError``."""
        clock = asyncio.get_running_loop().time
        patience: Patience | None = None
        while True:
            try:
                return await attempt()
            except Elsewhere as failure:
                patience = patience or Patience(clock())
                pause = patience.pause(failure, clock())
                self._nodes.learn(self.number, failure)
                await asyncio.sleep(pause)
            except OperationalError:
                self._nodes.lost()
                raise

    def translated(self, wire: Wire, error: BaseException) -> BaseException:
        """See ``Link.translated``."""
        if isinstance(error, LostWire):
            self._nodes.lost()
        return super().translated(wire, error)
