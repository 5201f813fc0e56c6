"""Taking messages under leases, and waiting for them without polling.

An empty claim of a caller that waits has its reads tracked (``CLIENT TRACKING``): the server pushes a line when one of
those lists or schedules changes, and the claim asks again. While nothing was pushed a further claim of the same queues
sends nothing at all. See docs/adr/0002-waiting-on-redis.md.

A claim whose answer got lost has taken messages that nobody knows of. Its tokens are known, so the next claim looks
them up and delivers them; a cancelled claim leaves its answer to the next one.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import hiredis

from celeriac.brokers.redis.doorbell import Doorbell
from celeriac.brokers.redis.layout import Layout, envelope_of
from celeriac.brokers.redis.link import Link
from celeriac.brokers.redis.scripts import CLAIM, RECLAIM
from celeriac.brokers.redis.sockets import Word, pack
from celeriac.brokers.redis.wire import LostWire, Wire
from celeriac.clock import ServerTime
from celeriac.codec import envelope
from celeriac.model.message import Delivery

__all__ = ["BELIEVED", "CACHING", "LATE", "Claims", "Numbers", "Quiet", "Read", "reader_of"]

logger = logging.getLogger("celeriac.brokers.redis")

#: Turns stored text into a delivery: ``read(raw, token, queue)``.
Read = Callable[[bytes, str, str], Delivery]

CACHING = pack(("CLIENT", "CACHING", "YES"))
#: Fewest due messages that a claim moves to ready beside those that it takes itself.
_DUE = 64
#: Most messages one script takes: it blocks the server for about a millisecond.
_LIMIT = 1000
#: An answer "nothing there" is believed for so long, in seconds, though nothing was pushed.
BELIEVED = 30.0
#: Waiting for a due message ends so much later, in seconds: asking too early costs a second question.
LATE = 0.0005
#: Without tracking: shortest and longest pause between two looks, in seconds.
_POLL_FIRST, _POLL_LAST = 0.005, 0.5


class Numbers:
    """Where the tokens of an owner get their numbers from, each once."""

    def __init__(self) -> None:
        self._next = 1

    def take(self, count: int) -> int:
        """The first of ``count`` that nobody else has."""
        first, self._next = self._next, self._next + count
        return first


class _Plan:
    """What the claim script wants to know of some queues, put together once."""

    def __init__(self, layout: Layout, queues: tuple[str, ...]) -> None:
        self.queues = queues
        ranks = range(len(layout.steps))
        self.keys = [
            layout.unacked,
            layout.index,
            *(layout.schedule(queue) for queue in queues),
            *(layout.lists(queue)[rank] for rank in ranks for queue in queues),
            layout.rules[0],
        ]
        self.args: list[Word] = [len(queues), *(layout.tail(queue) for queue in queues), *layout.steps]


#: Seconds that the answer to a cancelled claim waits for the next claim.
_LEFT = 0.1


class Quiet:
    """The server said that there is nothing, and would push when that changes."""

    def __init__(self, wire: Wire, queues: tuple[str, ...], rings: int, until: float) -> None:
        self.wire, self.queues, self.rings, self.until = wire, queues, rings, until


class Claims:
    """The claiming side of one broker instance; the owner's tokens are made here."""

    def __init__(
        self,
        link: Link,
        layout: Layout,
        owner: str,
        bell: Doorbell,
        read: Read,
        *,
        numbers: Numbers | None = None,
        believed: float = BELIEVED,
    ) -> None:
        self._link = link
        self._numbers = numbers or Numbers()
        self._believed = believed
        self._layout = layout
        self._tokens = layout.token_form(owner)
        self._bell = bell
        self._read = read
        #: The server's clock, by its answers to claims.
        self.time = ServerTime()
        #: That of the rules at the last claim.
        self.epoch = 0
        self._plans: dict[tuple[str, ...], _Plan] = {}
        #: Answers that came after their claim was cancelled.
        self._stash: list[Delivery] = []
        #: Called when nobody may have come for them: their leases are not renewed, and others could have them.
        self.left: Callable[[], None] | None = None
        #: Token ranges of claims whose answer got lost.
        self._doubtful: list[range] = []
        self._quiet: Quiet | None = None
        self._hungry = True
        self._warned = False

    async def claim(self, queues: Sequence[str], limit: int, wait: float) -> Sequence[Delivery]:
        """See ``Broker.claim``."""
        if not queues or limit < 1:
            return ()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + wait
        poll, known = _POLL_FIRST, self.epoch
        while True:
            taken, quiet = await self.look(queues, limit, waits=wait > 0)
            if taken or quiet is None or self.epoch != known:
                return taken
            pause = min(deadline, quiet.until) - loop.time()
            if not quiet.wire.tracking:
                pause, poll = min(pause, poll), min(poll * 1.5, _POLL_LAST)
                self._warn()
            await self._bell.wait(quiet.rings, pause)
            if loop.time() >= deadline and self._bell.count == quiet.rings and loop.time() < quiet.until:
                return ()
            wait = max(deadline - loop.time(), 0.0)

    async def look(self, queues: Sequence[str], limit: int, *, waits: bool) -> tuple[Sequence[Delivery], Quiet | None]:
        """What is there now. When that is nothing, and the caller ``waits``: how long it is to be believed."""
        limit, plan = min(limit, _LIMIT), self._plan(tuple(queues))
        loop = asyncio.get_running_loop()
        while True:
            wire = await self._link.wire()
            if self._doubtful:
                await self._look_up_doubtful(wire)
            if self._stash:
                taken = self._from_stash(plan.queues, limit)
                if taken:
                    return taken, None
            quiet = self._still_quiet(wire, plan, loop.time()) if waits else None
            if quiet is not None:
                return (), quiet
            rings = self._bell.count
            listen = wire.tracking and waits and self._hungry
            deliveries, due = await self._take(wire, plan, limit, listen)
            self._hungry = len(deliveries) < limit
            if deliveries or not waits:
                return deliveries, None
            until = loop.time() + (self._believed if due is None else min(due + LATE, self._believed))
            quiet = Quiet(wire, plan.queues, rings, until)
            if listen:
                self._quiet = quiet
            elif wire.tracking:
                continue  # nothing there after all: ask again, listening
            return (), quiet

    def give_back(self) -> list[Delivery]:
        """Deliveries that nobody came for; the caller releases them."""
        stash, self._stash = self._stash, []
        return stash

    def reserve(self, count: int) -> tuple[str, int]:
        """The form of our tokens, and the first number of ``count`` that nobody else uses."""
        return self._tokens, self._numbers.take(count)

    # -- inside

    def _plan(self, queues: tuple[str, ...]) -> _Plan:
        plan = self._plans.get(queues)
        if plan is None:
            if len(self._plans) > 64:  # callers rotate a few orders
                self._plans.clear()
            plan = self._plans[queues] = _Plan(self._layout, queues)
        return plan

    def _still_quiet(self, wire: Wire, plan: _Plan, now: float) -> Quiet | None:
        quiet = self._quiet
        if quiet is None or quiet.wire is not wire or quiet.rings != self._bell.count or now >= quiet.until:
            return None
        return quiet if set(quiet.queues) == set(plan.queues) else None

    async def _take(self, wire: Wire, plan: _Plan, limit: int, listen: bool) -> tuple[list[Delivery], float | None]:
        """One run of the script: deliveries, and the seconds until the next message is due."""
        first = self._numbers.take(limit)
        args: list[Word] = [
            self._tokens,
            first,
            limit,
            max(limit, _DUE),
            self._layout.lease_shift,
            int(listen),
            *plan.args,
        ]
        orphan = partial(self._keep, plan, first, limit)
        before = CACHING if listen else b""
        digest, text = CLAIM.source(wire.version)
        words: tuple[Word, ...] = ("EVALSHA", digest, len(plan.keys), *plan.keys, *args)
        while True:
            answer = wire.send(*words, before=before, orphan=orphan)
            try:
                reply = await answer
            except asyncio.CancelledError:
                if not answer.cancelled():  # it came in the very turn of the loop in which we were cancelled
                    orphan(answer.exception() or answer.result())
                raise
            except LostWire as error:
                self._doubtful.append(range(first, first + limit))
                raise self._link.translated(wire, error) from error
            except hiredis.ReplyError as error:
                if words[0] == "EVALSHA" and str(error).startswith("NOSCRIPT"):
                    words = ("EVAL", text, *words[2:])
                    continue
                raise self._link.translated(wire, error) from error
            self.time.heard(float(reply[1]))
            due = reply[0][0]
            return self._deliveries(reply, plan, first), float(due) if due else None

    def _deliveries(self, reply: Sequence[Any], plan: _Plan, first: int) -> list[Delivery]:
        read, tokens, queues = self._read, self._tokens, plan.queues
        self.epoch = int(reply[0][1] or 0)
        found: list[Delivery] = []
        number = first
        for place, envelopes in reply[2:]:
            queue = queues[place % len(queues)]
            for raw in envelopes:
                found.append(read(raw, tokens % number, queue))
                number += 1
        return found

    def _keep(self, plan: _Plan, first: int, limit: int, answer: Any) -> None:
        """The answer to a claim that was cancelled."""
        if isinstance(answer, LostWire):
            self._doubtful.append(range(first, first + limit))
        elif not isinstance(answer, Exception):
            self._stash += self._deliveries(answer, plan, first)
            if self._stash:
                self._bell.ring()
                if self.left is not None:
                    asyncio.get_running_loop().call_later(_LEFT, self.left)

    async def _look_up_doubtful(self, wire: Wire) -> None:
        keys = (self._layout.unacked, self._layout.index)
        while self._doubtful:
            tokens = [self._tokens % number for number in self._doubtful[0]]
            try:
                entries = await self._link.run(wire, RECLAIM, keys, (self._layout.lease_shift, *tokens))
                # What those claims would have told: rules may have been written before them.
                self.epoch = int(await wire.send("GET", self._layout.rules[0]) or 0)
            except (LostWire, hiredis.ReplyError) as error:
                raise self._link.translated(wire, error) from error
            self._doubtful.pop(0)
            for token, entry in zip(tokens, entries, strict=True):
                known = envelope_of(entry) if entry else None
                if known is not None:
                    self._stash.append(self._read(known[0], token, known[1]))

    def _from_stash(self, queues: tuple[str, ...], limit: int) -> list[Delivery]:
        taken = [delivery for delivery in self._stash if delivery.queue in queues][:limit]
        tokens = {delivery.token for delivery in taken}
        self._stash = [delivery for delivery in self._stash if delivery.token not in tokens]
        return taken

    def _warn(self) -> None:
        if not self._warned:
            self._warned = True
            logger.warning(
                "Redis at %s does not offer CLIENT TRACKING (RESP3, ACL +client): waiting for messages by polling",
                self._link.address.masked,
            )


def reader_of(zone: Any, max_bytes: int) -> Read:
    """``Read`` with the options of the adapter."""

    def read(raw: bytes, token: str, queue: str) -> Delivery:
        return envelope.delivery(raw, token=token, queue=queue, zone=zone, max_bytes=max_bytes)

    return read
