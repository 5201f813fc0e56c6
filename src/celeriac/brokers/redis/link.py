"""A lasting asynchronous connection: connects when needed, replaces a broken wire, speaks our errors.

One call meets a loss and raises ``OperationalError``; the next one connects anew. It never repeats a command by itself,
for it cannot know whether the lost one was executed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import hiredis

from celeriac.brokers.redis.address import Address
from celeriac.brokers.redis.errors import lost, refused, too_few
from celeriac.brokers.redis.places import Places, Told, Visit
from celeriac.brokers.redis.scripts import Script
from celeriac.brokers.redis.sockets import Word
from celeriac.brokers.redis.watch import watch
from celeriac.brokers.redis.wire import LostWire, Wire, connect
from celeriac.exceptions import OperationalError

__all__ = ["Link"]


class Link:
    """Commands and scripts over one wire at a time."""

    def __init__(
        self,
        address: Address,
        *,
        on_push: Callable[[list[Any]], None] = lambda _message: None,
        on_lost: Callable[[], None] = lambda: None,
        tracking: bool = False,
    ) -> None:
        self.address = address
        self._places = Places(address)
        self._on_push = on_push
        self._on_lost = on_lost
        self._tracking = tracking
        self._wire: Wire | None = None
        self._connecting = asyncio.Lock()
        self._closed = False
        self._unwatch: Callable[[], None] | None = None

    async def open(self) -> None:
        """Connect. Raises ``OperationalError``."""
        self._closed = False
        await self.wire()

    async def wire(self) -> Wire:
        """The wire, connected. Raises ``OperationalError``, also when the link was closed."""
        wire = self._wire
        if wire is not None and wire.lost is None:
            return wire
        async with self._connecting:
            wire = self._wire
            if wire is not None and wire.lost is None:
                return wire
            self._refuse_closed()
            try:
                wire = await self._find()
            except hiredis.ReplyError as error:
                raise refused(self.address, error) from error
            except OSError as error:  # TimeoutError, LostWire and TLS errors are OSErrors
                raise lost(self.address, error) from error
            self._wire = wire
            self._refuse_closed()  # while it was connecting
            if self._places.move and self._unwatch is None:
                self._unwatch = watch(self.address, self._hears)
            return wire

    async def _find(self) -> Wire:
        """A wire to the server, wherever that is now. Raises ``OSError`` and ``ReplyError``."""
        search = self._places.search()
        visit = next(search)
        while True:
            wire: Wire | None = None
            try:
                wire = await self._visit(visit)
                reply = await _asked(wire, visit) if visit.words else None
            except (OSError, hiredis.ReplyError) as error:
                if wire is not None:
                    wire.abort(error)
                visit = search.throw(error)
                continue
            except BaseException as error:  # cancelled
                if wire is not None:
                    wire.abort(error)
                raise
            try:
                visit = search.send(reply)
            except StopIteration:
                return wire
            except OSError as error:
                wire.abort(error)
                raise
            wire.abort(LostWire("another server is the one"))

    async def _visit(self, visit: Visit) -> Wire:
        if visit.stays:
            return await connect(visit.address, on_push=self._on_push, on_lost=self._on_lost, tracking=self._tracking)
        return await connect(visit.address, on_push=lambda _: None, on_lost=lambda: None)

    def _hears(self, fact: Told) -> None:
        """Leave the server when another one has taken its place."""
        if self._places.hears(fact) and self._wire is not None:
            self._wire.abort(LostWire("a failover: another server is the master"))

    def _refuse_closed(self) -> None:
        if self._closed:
            if self._wire is not None:
                self._wire.close()
            raise OperationalError(f"the connection to Redis at {self.address.masked} was closed: open() comes first")

    def close(self) -> None:
        """Close the connection; calls raise until it is opened again."""
        self._closed = True
        if self._unwatch is not None:
            self._unwatch()
            self._unwatch = None
        wire, self._wire = self._wire, None
        if wire is not None:
            wire.close()

    @property
    def connected(self) -> bool:
        """Whether there is a wire that is not known to be broken."""
        return self._wire is not None and self._wire.lost is None

    async def call(self, *words: Word) -> Any:
        """Run one command. Raises ``OperationalError``."""
        wire = await self.wire()
        try:
            return await wire.send(*words)
        except (LostWire, hiredis.ReplyError) as error:
            raise self.translated(wire, error) from error

    async def script(self, script: Script, keys: Sequence[str], args: Sequence[Word], *, durable: bool = False) -> Any:
        """Run a script. Raises ``OperationalError``. ``durable``: what it writes counts when replicas have it, where
        ``wait_replicas`` asks for them."""
        wire = await self.wire()
        address = self.address
        try:
            answer = await self.run(wire, script, keys, args)
            if durable and address.replicas:
                there = await wire.send("WAIT", address.replicas, address.replicas_within)
                if there < address.replicas:
                    raise too_few(address, there)
        except (LostWire, hiredis.ReplyError) as error:
            raise self.translated(wire, error) from error
        return answer

    @staticmethod
    async def run(wire: Wire, script: Script, keys: Sequence[str], args: Sequence[Word]) -> Any:
        """Run a script on this wire. Raises ``LostWire`` and ``ReplyError``."""
        digest, text = script.source(wire.version)
        try:
            return await wire.send("EVALSHA", digest, len(keys), *keys, *args)
        except hiredis.ReplyError as error:
            if not str(error).startswith("NOSCRIPT"):
                raise
        # A new server, or one that was restarted: nothing was executed.
        return await wire.send("EVAL", text, len(keys), *keys, *args)

    def translated(self, wire: Wire, error: BaseException) -> BaseException:
        """Our error for one of the driver's; leaves a server that became a replica."""
        if isinstance(error, LostWire):
            return lost(self.address, error)
        if str(error).startswith(("READONLY", "NOAUTH", "MASTERDOWN", "NOREPLICAS")):
            wire.abort(error)
        return refused(self.address, error)


async def _asked(wire: Wire, visit: Visit) -> Any:
    """The answer to the question of a visit; an error reply as a value."""
    try:
        async with asyncio.timeout(visit.address.connect_timeout):
            return await wire.send(*visit.words)
    except hiredis.ReplyError as error:
        return error
