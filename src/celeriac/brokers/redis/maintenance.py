"""What keeps a server's queues in order on a timer: due messages, lost deliveries, old dead letters.

Any number of maintainers may run at once: due messages move in one script, a delivery goes back only while its score is
the one that was seen, so a renewal, a settlement, kombu's own restore or another maintainer wins or loses as a whole.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any

from celeriac.brokers.redis.advice import advise
from celeriac.brokers.redis.broadcasts import bindings
from celeriac.brokers.redis.claims import Read
from celeriac.brokers.redis.layout import TOKEN, Layout, envelope_of
from celeriac.brokers.redis.link import Link
from celeriac.brokers.redis.scripts import DUE, EXPIRED, RESTORE, TRIM, UNLOCK
from celeriac.brokers.redis.sockets import Word
from celeriac.codec import envelope
from celeriac.model.dead import dropped
from celeriac.model.leases import after_lost_lease
from celeriac.ports import AdapterOptions

__all__ = ["Maintenance"]

logger = logging.getLogger("celeriac.brokers.redis")

#: Most due messages a queue and call, entries a page, deliveries a script.
_DUE, _PAGE, _BATCH = 1000, 2000, 200
_QUEUES_AT_ONCE = 50
#: Seconds until the next round: shortest, with something leased or scheduled, with nothing at all.
_SOONEST, _BUSY, _IDLE = 0.5, 5.0, 10.0
#: A look for a lease that ends comes so much later, in seconds: one that comes too early is for nothing.
_LATE = 0.02

_Expired = list[tuple[bytes, bytes]]


class Maintenance:
    """The maintaining side of one broker instance."""

    def __init__(self, link: Link, layout: Layout, options: AdapterOptions, read: Read) -> None:
        self._link = link
        self._layout = layout
        self._options = options
        self._read = read
        #: The last round dropped dead letters before their time: said once.
        self._dropping = False
        #: Damaged entries that were told of.
        self._told: set[bytes] = set()
        #: How many deliveries an owner holds.
        self.held_by: Callable[[bytes], Awaitable[int]] = self._held_here
        #: Nothing was said yet about how the server is set up.
        self.unadvised = True

    async def round(self, queues: Iterable[str]) -> float:
        """See ``Broker.maintain``; ``queues`` are those this broker has met."""
        if self.unadvised:
            self.unadvised = False
            await advise(self._link)
        next_due = await self._move_due(queues)
        leased, ending = await self._restore_lost()
        await self._trim()
        # What is claimed in this moment runs out after a whole lease: looking much later would add to it.
        lease = min(self._options.lease, self._options.visibility_timeout)
        if next_due is None and not leased:
            return max(_SOONEST, min(_IDLE, lease))
        busy = min(_BUSY, lease / 2)
        if ending is not None and ending < busy:
            # Nobody renews it, or it would end much later: its owner is probably dead.
            return ending + _LATE if next_due is None else min(ending + _LATE, max(_SOONEST, next_due))
        return max(_SOONEST, busy if next_due is None else min(busy, next_due))

    # -- due

    async def _move_due(self, queues: Iterable[str]) -> float | None:
        layout = self._layout
        registered = await self._link.call("SMEMBERS", layout.schedules)
        names = sorted({*queues, *(name.decode("utf-8", "replace") for name in registered)})
        nearest: float | None = None
        for at in range(0, len(names), _QUEUES_AT_ONCE):
            page = names[at : at + _QUEUES_AT_ONCE]
            keys = [layout.schedules]
            for queue in page:
                keys += (layout.schedule(queue), *layout.lists(queue))
            args: list[Word] = [_DUE, len(layout.steps), *layout.steps, *page]
            due = await self._link.script(DUE, keys, args)
            if due:
                nearest = float(due) if nearest is None else min(nearest, float(due))
        return nearest

    # -- lost deliveries

    async def _restore_lost(self) -> tuple[bool, float | None]:
        """Restore what was not renewed; says whether anything is leased at all, and when the next lease ends."""
        total, ours, foreign, ending = await self._expired()
        if ours:
            alone = await self._owners_with_one(ours)
            ours.reverse()  # the last that is put in front is the first to be taken
            for at in range(0, len(ours), _BATCH):
                await self._restore_ours(ours[at : at + _BATCH], alone)
        if foreign:
            foreign.reverse()
            await self._restore_foreign(foreign)
        return total > 0, ending

    async def _expired(self) -> tuple[int, _Expired, _Expired, float | None]:
        options, offset, total, ending = self._options, 0, 0, b""
        ours: _Expired = []
        foreign: _Expired = []
        while offset >= 0:
            args: list[Word] = [self._layout.usual_lease, options.visibility_timeout, TOKEN, offset, _PAGE]
            total, offset, own, others, ending = await self._link.script(EXPIRED, [self._layout.index], args)
            ours += zip(own[::2], own[1::2], strict=True)
            foreign += zip(others[::2], others[1::2], strict=True)
        return total, ours, foreign, float(ending) if ending else None

    async def _owners_with_one(self, expired: _Expired) -> frozenset[bytes]:
        """Owners that hold one delivery and no other: their loss names the culprit."""
        candidates = [owner for owner, number in _count(map(_owner, dict(expired))).items() if number == 1]
        alone = set()
        for owner in candidates[:_BATCH]:
            if await self.held_by(owner) == 1:
                alone.add(owner)
        return frozenset(alone)

    async def _held_here(self, owner: bytes) -> int:
        return len(await scan_index(self._link, self._layout, owner))

    def _warn_once(self, token: bytes, line: str) -> None:
        """It stays there, and is met again at each turn."""
        if token not in self._told:
            if len(self._told) >= _PAGE:
                self._told.clear()
            self._told.add(token)
            logger.warning(line, token[:100], self._link.address.masked)

    async def _restore_ours(self, expired: _Expired, alone: frozenset[bytes]) -> None:
        entries = await self._link.call("HMGET", self._layout.unacked, *(token for token, _ in expired))
        moves: list[tuple[bytes, bytes, list[str], bytes]] = []
        for (token, score), entry in zip(expired, entries, strict=True):
            known = envelope_of(entry) if entry else None
            if known is None:
                if entry is not None:
                    self._warn_once(token, "unacked entry %s of Redis at %s is damaged: left alone")
                continue
            raw, queue = known
            delivery = self._read(raw, token.decode("utf-8", "replace"), queue)
            text = envelope.remark(delivery, after_lost_lease(delivery.marks, alone=_owner(token) in alone))
            moves.append((token, score, [self._layout.ready(queue, delivery.message)], text))
        restored = await self._move_back(moves)
        if restored:
            logger.warning("%d deliveries were not renewed before their leases ended: back to ready", restored)

    async def _move_back(self, moves: Sequence[tuple[bytes, bytes, list[str], bytes]]) -> int:
        if not moves:
            return 0
        keys = [self._layout.unacked, self._layout.index]
        numbers: dict[str, int] = {}
        args: list[Any] = []
        for token, score, lists, text in moves:
            for name in lists:
                if name not in numbers:
                    keys.append(name)
                    numbers[name] = len(keys)
            args += (token, score, len(lists), *(numbers[name] for name in lists), text)
        return int(await self._link.script(RESTORE, keys, args))

    # -- deliveries of Celery workers

    async def _restore_foreign(self, expired: _Expired) -> None:
        """As a Celery worker would, under its lock; what it cannot read stays for an operator."""
        layout, mine = self._layout, envelope.new_id()
        locked = await self._link.call("SET", layout.mutex, mine, "NX", "EX", layout.mutex_expire)
        if locked is None:
            return
        try:
            for at in range(0, len(expired), _BATCH):
                page = expired[at : at + _BATCH]
                entries = await self._link.call("HMGET", layout.unacked, *(token for token, _ in page))
                moves = []
                for (token, score), entry in zip(page, entries, strict=True):
                    found = _foreign(entry)
                    if found is None:
                        self._warn_once(token, "unacked entry %s of a Celery worker on %s cannot be read: left alone")
                        continue
                    message, exchange, routing_key = found
                    lists = await self._foreign_lists(message, exchange, routing_key)
                    moves.append((token, score, lists, json.dumps(message).encode()))
                restored = await self._move_back(moves)
                if restored:
                    logger.warning(
                        "%d deliveries of Celery workers passed their visibility timeout: restored", restored
                    )
        finally:
            await self._link.script(UNLOCK, [layout.mutex], [mine])

    async def _foreign_lists(self, message: Mapping[str, Any], exchange: str, routing_key: str) -> list[str]:
        layout = self._layout
        queues = [routing_key]
        if exchange:
            members = await self._link.call("SMEMBERS", layout.bindings(exchange))
            bound = bindings(layout, members)
            queues = [queue for key, pattern, queue in bound if _matches(key, pattern, routing_key)] or queues
        priority = message["properties"].get("priority")
        rank = layout.rank(priority if isinstance(priority, int) else 0)
        return [layout.lists(queue)[rank] for queue in queues]

    # -- dead letters

    async def _trim(self) -> None:
        layout, options = self._layout, self._options
        keys = [layout.dead, layout.dead_records, layout.dead_counts]
        bounds = (options.dead_letter_expires, options.dead_letter_limit, options.dead_letter_max_bytes)
        early = 0
        for _ in range(_PAGE // _BATCH):
            gone, surplus = await self._link.script(TRIM, keys, [*bounds, _BATCH])
            early += surplus
            if gone < _BATCH:
                break
        if early and not self._dropping:
            logger.warning("Redis at %s: %s", self._link.address.masked, dropped(early))
        self._dropping = early > 0


async def scan_index(link: Link, layout: Layout, owner: bytes) -> list[bytes]:
    """All tokens of an owner."""
    pattern = re.sub(rb"([*?\[\]\\])", rb"\\\1", TOKEN.encode() + owner + b":") + b"*"
    tokens: set[bytes] = set()  # a scan may return an element twice
    cursor: Any = 0
    while True:
        cursor, page = await link.call("ZSCAN", layout.index, cursor, "MATCH", pattern, "COUNT", _PAGE)
        tokens.update(page[::2])
        if int(cursor) == 0:
            return sorted(tokens, key=_number)


def _number(token: bytes) -> int:
    tail = token.rpartition(b":")[2]
    return int(tail) if tail.isdigit() else 0


def _owner(token: bytes) -> bytes:
    return token[len(TOKEN) :].rpartition(b":")[0]


def _count(owners: Iterable[bytes]) -> dict[bytes, int]:
    counts: dict[bytes, int] = {}
    for owner in owners:
        counts[owner] = counts.get(owner, 0) + 1
    return counts


def _foreign(entry: bytes | None) -> tuple[dict[str, Any], str, str] | None:
    """The message in kombu's entry, marked as kombu marks it, with exchange and routing key."""
    try:
        message, exchange, routing_key = json.loads(entry or b"")
        message["headers"]["redelivered"] = True
        message["properties"]["delivery_info"]["redelivered"] = True
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    if not isinstance(exchange, str) or not isinstance(routing_key, str):
        return None
    return message, exchange, routing_key


def _matches(key: str, pattern: str, routing_key: str) -> bool:
    if key == routing_key:
        return True
    try:
        return bool(pattern) and re.match(pattern, routing_key) is not None  # kombu stores topics as expressions
    except re.error:
        return False
