"""The broker of a worker on Redis: ``Broker``, ``Unified``, ``Limiter``, ``Rules``, ``Ledger``,
``Timekeeper`` and ``Bus``, over one connection.

A façade: taking messages is ``claims.py``, ending them ``endings.py`` and ``lua/finish.lua``, the timer
``maintenance.py``, limits ``limits.py``, remote control ``bus.py``. The names of the keys are in ``layout.py``.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from datetime import UTC, tzinfo
from typing import Any

from celeriac.brokers.redis import census, rules
from celeriac.brokers.redis.bus import RedisBus
from celeriac.brokers.redis.claims import BELIEVED, Claims, Numbers, reader_of
from celeriac.brokers.redis.doorbell import Doorbell
from celeriac.brokers.redis.endings import Endings, postings
from celeriac.brokers.redis.layout import Layout, envelope_of
from celeriac.brokers.redis.ledger_keys import change_args
from celeriac.brokers.redis.limits import Limits
from celeriac.brokers.redis.link import Link
from celeriac.brokers.redis.maintenance import Maintenance, scan_index
from celeriac.brokers.redis.scripts import EXTEND, FINISH, LEDGER_CHANGE, PUBLISH, RULES_READ, RULES_SET
from celeriac.brokers.redis.sockets import Word
from celeriac.brokers.redis.urls import parse
from celeriac.brokers.redis.withdrawing import withdraw
from celeriac.codec import envelope
from celeriac.exceptions import OperationalError
from celeriac.model.ledger import Change
from celeriac.model.limits import Ask, Permit, Seats
from celeriac.model.message import Delivery, Message
from celeriac.model.rules import RuleChange, RulesRead
from celeriac.model.settle import Completion, Hold, Release, Settlement, Verdict
from celeriac.ports import AdapterOptions, DeadRecord, Depth, Traits

__all__ = ["RedisBroker"]

#: Most deliveries that one script ends: it blocks the server for a few milliseconds.
_BATCH = 500
#: Most orphans that are read at once.
_PAGE = 500
#: What the finish script answers.
_VERDICTS = {b"F": Verdict.FENCED, b"W": Verdict.STEPWISE, b"C": Verdict.COMPLETES}


class RedisBroker:
    """See ``celeriac.ports.Broker``, ``Unified``, ``Limiter``, ``Rules``, ``Ledger`` and ``Bus``."""

    def __init__(
        self,
        url: str,
        options: AdapterOptions,
        *,
        link: Link | None = None,
        bell: Doorbell | None = None,
        numbers: Numbers | None = None,
        believed: float | None = None,
    ) -> None:
        """With a ``link`` it is part of a cluster's broker: it rings ``bell``, and knows the address."""
        self._address = parse(url, options) if link is None else link.address
        self._layout = Layout(self._address, options)
        self._owner = options.owner or envelope.new_id()
        self._options = options
        self._read = reader_of(zone_of(options.zone), options.max_message_bytes)
        self._bell = bell or Doorbell()
        self._queues: set[str] = set()
        self._link = link or Link(self._address, on_push=self._pushed, on_lost=self._bell.ring, tracking=True)
        self._claims = Claims(
            self._link,
            self._layout,
            self._owner,
            self._bell,
            self._read,
            numbers=numbers,
            believed=BELIEVED if believed is None else believed,
        )
        self._claims.left = self._give_back_soon
        self._maintenance = Maintenance(self._link, self._layout, options, self._read)
        self._limits = Limits(self._link, self._layout, self._queues, options.seat_promise)
        #: Where locks are kept.
        self._ledgers = self._link, self._layout
        self._bus = RedisBus(self._address, self._layout, self._link)
        self.traits = Traits(durable=True, native_delay=True, server=self._address.server, expires=True)

    def _pushed(self, push: list[Any]) -> None:
        if push[0] == b"invalidate":
            self._bell.ring()

    # -- Broker

    async def open(self) -> None:
        """See ``Broker.open``."""
        await self._link.open()

    async def close(self) -> None:
        """See ``Broker.close``. Gives back what a cancelled claim took."""
        try:
            if self._link.connected:
                await self._link.call("PING")  # behind it no answer to a cancelled claim is under way
        except OperationalError:
            pass
        await self._give_back()
        self._bus.close()
        self._link.close()

    def _give_back_soon(self) -> None:
        self._giving_back = asyncio.get_running_loop().create_task(self._give_back())

    async def _give_back(self) -> None:
        """Release what a cancelled claim took and no other came for."""
        left = self._claims.give_back()
        if left and self._link.connected:
            try:
                await self.settle([Release(delivery) for delivery in reversed(left)])
            except OperationalError:
                pass  # their leases expire

    async def declare(self, queues: Sequence[str]) -> None:
        """See ``Broker.declare``. Redis makes lists by itself; maintenance learns of them here."""
        self._queues.update(queues)

    async def publish(self, messages: Sequence[Message]) -> None:
        """See ``Broker.publish``."""
        if messages:
            keys, args = postings(self._layout, messages, schedule=True, now=self.now())
            await self._link.script(PUBLISH, keys, args, durable=True)

    async def claim(self, queues: Sequence[str], *, limit: int, wait: float) -> Sequence[Delivery]:
        """See ``Broker.claim``."""
        self._queues.update(queues)
        return await self._claims.claim(queues, limit, wait)

    def now(self) -> float:
        """See ``Timekeeper.now``."""
        return self._claims.time.now()

    async def settle(self, settlements: Sequence[Settlement]) -> Sequence[Settlement]:
        """See ``Broker.settle``."""
        refused: list[int] = []
        for at in _pages(settlements):
            endings = Endings(self._layout, strict=True, now=self.now())
            for settlement in settlements[at : at + _BATCH]:
                endings.add(Completion(settlement=settlement))
            answer = await self._link.script(FINISH, *endings.keys_and_args())
            refused += (at + number - 1 for number in answer[::2])
        return [settlements[index] for index in sorted(refused)]

    async def extend(self, deliveries: Sequence[Delivery]) -> Sequence[Delivery]:
        """See ``Broker.extend``."""
        if not deliveries:
            return ()
        args: list[Word] = [self._layout.lease_shift, *(delivery.token for delivery in deliveries)]
        gone = await self._link.script(EXTEND, [self._layout.index], args)
        return [deliveries[number - 1] for number in gone]

    async def orphans(self, owner: str) -> Sequence[Delivery]:
        """See ``Broker.orphans``."""
        tokens = await scan_index(self._link, self._layout, owner.encode())
        found: list[Delivery] = []
        for at in range(0, len(tokens), _PAGE):
            page = tokens[at : at + _PAGE]
            entries = await self._link.call("HMGET", self._layout.unacked, *page)
            for token, entry in zip(page, entries, strict=True):
                known = envelope_of(entry) if entry else None
                if known is not None:
                    found.append(self._read(known[0], token.decode("utf-8", "replace"), known[1]))
        return found

    async def maintain(self) -> float:
        """See ``Broker.maintain``."""
        pause = await self._maintenance.round(self._queues)
        # Whoever frees a seat wakes the next one; somebody may die between the two.
        return min(pause, 1.0) if await self._limits.tend() else pause

    async def depth(self, queues: Sequence[str]) -> Mapping[str, Depth]:
        """See ``Broker.depth``."""
        answer: Mapping[str, Depth] = await self._drive(census.depth(self._layout, queues))
        return answer

    async def purge(self, queue: str) -> int:
        """See ``Broker.purge``."""
        answer: int = await self._drive(census.purge(self._layout, self._ledgers[1], queue))
        return answer

    async def dead(self, *, limit: int = 100, queue: str | None = None) -> Sequence[DeadRecord]:
        """See ``Broker.dead``."""
        answer: Sequence[DeadRecord] = await self._drive(census.dead(self._layout, limit, queue))
        return answer

    # -- Unified

    async def finish(self, completions: Sequence[Completion]) -> Sequence[Verdict]:
        """See ``Unified.finish``. STEPWISE where a key that it needs has a wrong type."""
        verdicts = [Verdict.DONE] * len(completions)
        for at in _pages([completion.settlement for completion in completions]):
            endings = Endings(self._layout, strict=False, now=self.now(), chord_token=self._options.chord_token)
            added: list[int] = []
            for index in range(at, min(at + _BATCH, len(completions))):
                try:
                    endings.add(completions[index])
                    added.append(index)
                except (TypeError, ValueError, RecursionError, OverflowError):
                    verdicts[index] = Verdict.STEPWISE  # there the error shows
            answer = await self._link.script(FINISH, *endings.keys_and_args())
            for number, code in zip(answer[::2], answer[1::2], strict=True):
                verdicts[added[number - 1]] = _VERDICTS[code]
        return verdicts

    # -- Limiter

    async def permit(self, asks: Sequence[Ask]) -> Sequence[Permit]:
        """See ``Limiter.permit``."""
        return await self._limits.permit(asks)

    async def freed(self, seats: Sequence[Seats], forgone: Sequence[Ask] = ()) -> None:
        """See ``Limiter.freed``."""
        await self._limits.freed(seats, forgone)

    # -- Rules

    @property
    def epoch(self) -> int:
        """See ``Rules.epoch``."""
        return self._claims.epoch

    async def rules(self, after: int = 0) -> RulesRead:
        """See ``Rules.rules``."""
        answer = await self._link.script(RULES_READ, self._layout.rules, [after, ""])
        self._claims.time.heard(float(answer[3]))  # an agent does not claim
        return rules.rules_read(answer)

    async def set_rules(self, changes: Sequence[RuleChange]) -> int:
        """See ``Rules.set_rules``."""
        return int(await self._link.script(RULES_SET, self._layout.rules, rules.change_args(changes)))

    async def withdraw(self, ids: Collection[str], queues: Sequence[str]) -> Sequence[Delivery]:
        """See ``Rules.withdraw``."""
        found, wrong = await withdraw(self._link, self._layout, self._claims, self._read, ids, queues)
        await self.settle(wrong)
        return found

    # -- Ledger

    async def read_ledger(self, keys: Sequence[str]) -> Sequence[bytes | None]:
        """See ``Ledger.read_ledger``."""
        return await self._link.call("MGET", *map(self._layout.ledger, keys)) if keys else ()

    async def change_ledger(self, changes: Sequence[Change]) -> Sequence[bool]:
        """See ``Ledger.change_ledger``."""
        if not changes:
            return ()
        made = await self._link.script(LEDGER_CHANGE, *change_args(self._layout, changes))
        return [each == 1 for each in made]

    # -- Bus

    async def emit(self, exchange: str, routing_key: str, payload: Any, headers: Mapping[str, Any]) -> None:
        """See ``Bus.emit``."""
        await self._bus.emit(exchange, routing_key, payload, headers)

    def listen(self, exchange: str) -> AsyncIterator[tuple[Any, Mapping[str, Any]]]:
        """See ``Bus.listen``."""
        return self._bus.listen(exchange)

    async def reply(self, exchange: str, routing_key: str, payload: Any, headers: Mapping[str, Any]) -> None:
        """See ``Bus.reply``."""
        await self._bus.reply(exchange, routing_key, payload, headers)

    # -- inside

    async def _drive(self, asking: Any) -> Any:
        reply: Any = None
        while True:
            try:
                script, keys, args = asking.send(reply)
            except StopIteration as end:
                return end.value
            link = self._ledgers[0] if script is LEDGER_CHANGE else self._link
            reply = await (link.call(*keys) if script is None else link.script(script, keys, args))


def _pages(settlements: Sequence[Settlement | Hold]) -> Sequence[int]:
    """Where the pages of one script each start; backwards when many go to the front, for they keep their order."""
    starts = range(0, len(settlements), _BATCH)
    if len(starts) > 1 and any(type(each) is Release and not each.back for each in settlements):
        return starts[::-1]
    return starts


def zone_of(name: str) -> tzinfo:
    """The time zone of naive times. UTC when the name is unknown here: the app has already complained."""
    if name.upper() in {"UTC", ""}:
        return UTC
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError):
        return UTC
