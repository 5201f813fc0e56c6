"""Blocking connections to the nodes of a cluster: a pool for each node, found by slots.

Safe in threads and after forks, as pools are. A slot that has moved is followed, one that is moving is waited for; a
command that may have been executed is never repeated.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from typing import Any

from msgspec.structs import replace

from celeriac.brokers.redis.address import Address
from celeriac.brokers.redis.blocking import Connection, Pool, monotonic
from celeriac.brokers.redis.cluster.address import at
from celeriac.brokers.redis.cluster.slots import SlotMap, slot_of, tagged
from celeriac.brokers.redis.errors import Elsewhere
from celeriac.brokers.turns import Turns
from celeriac.exceptions import OperationalError

__all__ = ["NodePools", "SlotPool"]

#: Most seconds for one node's answer about the slots: others can be asked.
_ASKING = 1.5
#: Seconds between two tries.
_PAUSE_FIRST, _PAUSE_LAST = 0.005, 0.1


class NodePools:
    """The pools of one cluster. What it knows of slots is replaced as a whole."""

    def __init__(self, address: Address, limit: int) -> None:
        self.address = address
        self._limit = limit
        self._pools: dict[str, Pool] = {}
        self._map = SlotMap()
        self._stale = True
        self._refreshing = Turns(1)
        self._pid = os.getpid()

    def slot(self, tag: str) -> SlotPool:
        """What leads to the node of a tag, with that tag before every key."""
        return SlotPool(self, tag)

    def close(self) -> None:
        """Close what is idle; a later call opens anew."""
        for pool in list(self._pools.values()):
            pool.close()

    def pool(self, slot: int, deadline: float) -> Pool:
        """The pool of the node of a slot. Raises ``OperationalError``."""
        if self._stale:
            self.refresh(self._map.version, deadline)
        place = self._map.owner(slot)
        if place is None:
            self._stale = True
            raise OperationalError(f"no node of {self.address.masked} serves slot {slot}: see CLUSTER INFO")
        return self._at(place)

    def masters(self, deadline: float) -> Sequence[Pool]:
        """The pools of all nodes that serve slots. Raises ``OperationalError``."""
        if self._stale:
            self.refresh(self._map.version, deadline)
        return [self._at(place) for place in self._map.nodes]

    def learn(self, slot: int, failure: Elsewhere) -> None:
        """A node does not have the slot (any more)."""
        if failure.word == "MOVED" and failure.place.rpartition(":")[0]:
            self._map = self._map.with_moved(slot, failure.place)
        elif failure.word in ("MOVED", "CLUSTERDOWN"):
            self._stale = True

    def moved_from(self, pool: Pool, slot: int, deadline: float) -> bool:
        """Whether another node than this one serves the slot by now; the node could not be reached."""
        try:
            self.refresh(self._map.version, deadline, without=pool.address.place)
        except OperationalError:
            return False
        return self._map.owner(slot) not in (pool.address.place, None)

    def refresh(self, seen: int, deadline: float, *, without: str = "") -> None:
        """Ask for the map, once for all who saw that version. Raises ``OperationalError``."""
        if self._pid != os.getpid():  # a thread of the parent may have held it at the fork
            self._pid, self._refreshing = os.getpid(), Turns(1)
        turns, me = self._refreshing, object()
        try:
            if not turns.take(me, deadline):
                raise OperationalError(f"no node of {self.address.masked} has told who serves what")
            if self._map.version != seen:
                return
            seeds = [each.place for each in (self.address, *self.address.others)]
            failure: OperationalError | None = None
            for place in dict.fromkeys((*self._map.nodes, *seeds)):
                left = deadline - monotonic()
                if place == without or left <= 0:
                    continue
                try:
                    answer = self._at(place).call(("CLUSTER", "SLOTS"), min(left, _ASKING), repeat=True)
                except OperationalError as error:
                    failure = failure or error
                else:
                    self._map, self._stale = self._map.read(answer, place), False
                    return
            raise failure or OperationalError(f"no node of {self.address.masked} can be asked")
        finally:
            try:
                turns.end(me)
            except BaseException:
                turns.end(me)  # somebody's signal came in between
                raise

    def _at(self, place: str) -> Pool:
        pool = self._pools.get(place)
        if pool is None:
            # Two threads may make one each: setdefault lets the first count.
            pool = self._pools.setdefault(place, Pool(at(self.address, place), self._limit))
        return pool


class SlotPool(Pool):
    """Looks like the pool of one server, and is that of whichever node has a tag's slot."""

    def __init__(self, nodes: NodePools, tag: str) -> None:
        prefix = tagged(nodes.address.key_prefix, tag)
        super().__init__(replace(nodes.address, key_prefix=prefix), 0)
        self._nodes = nodes
        self._number = slot_of(prefix)

    def close(self) -> None:
        """Close what is idle, of all slots together."""
        self._nodes.close()

    def connection_address(self, deadline: float) -> Address:
        """That of the node, for a connection of its own. Raises ``OperationalError``."""
        return self._nodes.pool(self._number, deadline).address

    def _with(
        self, run: Callable[[Connection, float], Any], timeout: float, repeat: bool, durable: bool = False
    ) -> Any:
        deadline = monotonic() + timeout
        pause = 0.0
        while True:
            pool = self._nodes.pool(self._number, deadline)
            try:
                return pool._with(run, max(deadline - monotonic(), 0.001), repeat, durable)
            except Elsewhere as failure:
                self._nodes.learn(self._number, failure)
                if monotonic() + pause >= deadline:
                    raise
                time.sleep(pause if pause or failure.word == "MOVED" else _PAUSE_FIRST)
                pause = min(max(pause * 2, _PAUSE_FIRST), _PAUSE_LAST)
            except OperationalError as failure:
                # A refusal has a reply as its cause, and is the last word.
                if failure.uncertain or not isinstance(failure.__cause__, OSError):
                    raise
                if not self._nodes.moved_from(pool, self._number, deadline):
                    raise
