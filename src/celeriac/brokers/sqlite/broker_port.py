"""The asyncio ``Broker`` of SQLite, with ``Unified``, ``Limiter``, ``Rules``, ``Ledger`` and ``Bus``: used by workers.

Decides when to look, to wait and to ring; what happens in the file is in queues.py, limits.py, records.py,
upkeep.py.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import time
from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from datetime import UTC, tzinfo
from typing import Any
from zoneinfo import ZoneInfo

import msgspec

from celeriac.brokers.sqlite import dead, finishing, ledger_table, limits, upkeep
from celeriac.brokers.sqlite import queues as tables
from celeriac.brokers.sqlite import rules as rulebook
from celeriac.brokers.sqlite.address import Address
from celeriac.brokers.sqlite.bells import ANY_RESULT, Bells, result_topic
from celeriac.brokers.sqlite.blocking import Desk
from celeriac.brokers.sqlite.boot import BOOT, moment, uptime
from celeriac.brokers.sqlite.bus import SQLiteBus
from celeriac.brokers.sqlite.session import Session
from celeriac.codec import envelope
from celeriac.codec.seeking import may_be_one, written
from celeriac.model.dead import dropped
from celeriac.model.ledger import Change
from celeriac.model.limits import Ask, Permit, Seats
from celeriac.model.message import Delivery, Malformed, Message
from celeriac.model.rules import RuleChange, RulesRead
from celeriac.model.settle import Completion, Release, Settlement, StoredResult, Verdict
from celeriac.ports import AdapterOptions, DeadRecord, Depth, Traits

__all__ = ["SQLiteBroker", "ring_results"]

logger = logging.getLogger("celeriac.brokers.sqlite")

#: Seconds after which a waiting claim looks without having been rung.
LOOK_AGAIN = 1.0
#: A scheduled message rings when it is due sooner than any waiter would look.
_SOON = 2 * LOOK_AGAIN
_LONGEST_REST = 30.0
#: Messages that a search looks at before others get their turn.
WITHDRAW_PAGE = 1000


class SQLiteBroker:
    """Queues, leases, schedule and results in one file: ``Broker``, ``Unified``, ``Limiter``, ``Rules``, ``Ledger`` and
    ``Bus``."""

    def __init__(self, address: Address, options: AdapterOptions) -> None:
        self.traits = Traits(durable=True, native_delay=True, server=("sqlite", address.path))
        self._options = options
        self._owner = options.owner or envelope.new_id()
        self._zone: tzinfo = UTC if options.zone == "UTC" else ZoneInfo(options.zone)
        self._session = Session(address, options.connect_timeout)
        #: The last round dropped dead letters before their time: said once.
        self._dropping = False
        self._bus = SQLiteBus(self._session)
        self.epoch = 0

    async def open(self) -> None:
        """Open the file, creating it when there is none."""
        await self._session.open()

    async def close(self) -> None:
        """Close the file; claims that wait end empty."""
        self._bus.close()
        await self._session.close()

    async def declare(self, queues: Sequence[str]) -> None:
        """Queues exist by being named; this only makes sure that the file can be used."""
        await self._session.bare(lambda sqlite: None)

    async def publish(self, messages: Sequence[Message]) -> None:
        """Store all messages, or none."""
        rows = tables.prepare(messages)
        if rows:
            await self._session.write(lambda sqlite: tables.add(sqlite, rows, time.time()), rows=len(rows))
            self._session.bells.ring_queues(_ringing(rows))

    # ------------------------------------------------------------ claim

    async def claim(self, queues: Sequence[str], *, limit: int, wait: float) -> Sequence[Delivery]:
        """Take up to ``limit`` deliveries; waits up to ``wait`` seconds for the first."""
        if limit <= 0 or not queues:
            return ()
        deadline = time.monotonic() + wait
        known = self.epoch
        while True:
            ready, due, self.epoch = await self._session.bare(lambda sqlite: tables.glance(sqlite, queues))
            if ready or (due is not None and due <= time.time()):
                deliveries = await self._take(queues, limit)
                if deliveries:
                    return deliveries
            left = deadline - time.monotonic()
            if left <= 0 or self.epoch != known:
                return ()
            if due is not None:
                left = min(left, max(0.0, due - time.time()))
            await self._session.at_doors(queues, min(left, LOOK_AGAIN))
            if not self._session.is_open:
                return ()

    async def _take(self, queues: Sequence[str], limit: int) -> Sequence[Delivery]:
        number = int.from_bytes(os.urandom(7))

        def take(sqlite: sqlite3.Connection) -> tuple[list[tuple[int, str, bytes]], bool, int]:
            # The rules as of the claim itself: what was written since the glance counts.
            epoch = rulebook.epoch(sqlite)
            return *tables.take(sqlite, queues, limit, self._lending(number), time.time()), epoch

        rows, more, self.epoch = await self._session.write(take, rows=limit // 8)
        if more:
            self._session.bells.ring_queues(queues)  # for others
        return self._deliveries(rows, number)

    def _lending(self, number: int) -> tables.Claim:
        return tables.Claim(number=number, owner=self._owner, until=uptime() + self._options.lease, boot=BOOT)

    def _deliveries(self, rows: Iterable[tuple[int, str, bytes]], number: int) -> list[Delivery]:
        zone, max_bytes, make = self._zone, self._options.max_message_bytes, envelope.delivery
        prefix = f"{self._owner}:{number}:"
        return [
            make(raw, token=f"{prefix}{key}", queue=queue, zone=zone, max_bytes=max_bytes) for key, queue, raw in rows
        ]

    # ------------------------------------------------------------ settle

    async def settle(self, settlements: Sequence[Settlement]) -> Sequence[Settlement]:
        """End deliveries; returns the refused ones."""
        if not settlements:
            return ()
        done = await self._session.write(
            lambda sqlite: tables.settle(sqlite, settlements, time.time()), rows=len(settlements)
        )
        self._session.bells.ring_queues(_released(settlements))
        return [settlement for settlement, held in zip(settlements, done, strict=True) if not held]

    async def finish(self, completions: Sequence[Completion]) -> Sequence[Verdict]:
        """Write completions in one transaction, each only when its tokens are held."""
        if not completions:
            return ()
        rows = [_follow_ups(each) if each.publish else () for each in completions]
        if finishing.are_plain(completions):

            def work(sqlite: sqlite3.Connection) -> finishing.Written:
                return finishing.finish(sqlite, completions, rows, time.time())

            written = await self._session.write(work, rows=2 * len(completions))
        else:

            def work(sqlite: sqlite3.Connection) -> finishing.Written:
                return finishing.finish_in_turn(sqlite, completions, rows, moment(self._options.chord_token))

            written = await self._session.write(work, rows=4 * len(completions))
        self._session.bells.ring_queues(_ringing(written.rows) | _released(written.settlements))
        ring_results(self._session.bells, written.results)
        return written.verdicts

    async def extend(self, deliveries: Sequence[Delivery]) -> Sequence[Delivery]:
        """Renew leases; returns the lost ones."""
        if not deliveries:
            return ()
        return await self._session.write(
            lambda sqlite: tables.extend(sqlite, deliveries, uptime() + self._options.lease, BOOT), rows=1
        )

    async def orphans(self, owner: str) -> Sequence[Delivery]:
        """All deliveries that ``owner`` holds."""
        rows = await self._session.bare(lambda sqlite: tables.owned(sqlite, owner))
        return [
            envelope.delivery(
                raw,
                token=tables.token(owner, claim, key),
                queue=queue,
                zone=self._zone,
                max_bytes=self._options.max_message_bytes,
            )
            for claim, key, queue, raw in rows
        ]

    # ------------------------------------------------------------ upkeep and questions, aside of the loop

    async def maintain(self) -> float:
        """Restore what expired, ripen what is due, drop what is old; returns the seconds until it is useful again."""
        return await self._session.aside(self._maintain)

    def _maintain(self, desk: Desk, timeout: float) -> float:
        changed: set[str] = set()
        while restored := desk.write(lambda sqlite: upkeep.restore(sqlite, BOOT, uptime(), self._zone), timeout):
            changed.update(restored)
            if len(restored) < upkeep.RESTORE_CHUNK:
                break
        while ripe := desk.write(lambda sqlite: upkeep.ripen(sqlite, time.time()), timeout):
            changed.update(ripe)
        waiting = desk.read(limits.keys_waiting, timeout)
        if waiting:
            promise = self._options.seat_promise
            changed |= desk.write(lambda sqlite: limits.freed(sqlite, waiting, time.time(), promise), timeout)
        desk.bells.ring_queues(changed)
        surplus = desk.write(lambda sqlite: upkeep.bury(sqlite, self._options, time.time()), timeout)
        if surplus and not self._dropping:
            logger.warning("SQLite file %s: %s", self._session.address.path, dropped(surplus))
        self._dropping = surplus > 0
        desk.bare(upkeep.shrink, timeout)
        desk.bells.sweep()
        due, expiry = desk.read(upkeep.next_times, timeout)
        # A lease given in this moment ends after a whole lease.
        rest = min(_LONGEST_REST, self._options.lease)
        if waiting:
            # Whoever frees a seat wakes the next one; somebody may die between the two.
            rest = min(rest, 1.0)
        if due is not None:
            rest = min(rest, due - time.time())
        if expiry is not None:
            rest = min(rest, expiry - uptime())
        return max(0.01, rest)

    async def depth(self, queues: Sequence[str]) -> Mapping[str, Depth]:
        """How full each queue is."""
        return await self._session.aside(
            lambda desk, timeout: desk.read(lambda sqlite: upkeep.depth(sqlite, queues, time.time()), timeout)
        )

    async def purge(self, queue: str) -> int:
        """Drop all ready and scheduled messages of a queue; returns how many."""

        def work(desk: Desk, timeout: float) -> int:
            dropped = 0
            while count := desk.write(lambda sqlite: upkeep.purge(sqlite, queue), timeout):
                dropped += count
            return dropped

        return await self._session.aside(work)

    async def dead(self, *, limit: int = 100, queue: str | None = None) -> Sequence[DeadRecord]:
        """The newest dead letters."""
        return await self._session.aside(
            lambda desk, timeout: desk.read(lambda sqlite: dead.newest(sqlite, limit, queue), timeout)
        )

    # ------------------------------------------------------------ limits

    async def permit(self, asks: Sequence[Ask]) -> Sequence[Permit]:
        """See ``Limiter.permit``."""
        if not asks:
            return ()
        permits, woken = await self._session.write(
            lambda sqlite: limits.permit(sqlite, asks, time.time(), self._options.seat_promise), rows=len(asks)
        )
        self._session.bells.ring_queues(woken)
        return permits

    async def freed(self, seats: Sequence[Seats], forgone: Sequence[Ask] = ()) -> None:
        """See ``Limiter.freed``."""
        known = dict.fromkeys([*seats, *(ask.seats for ask in forgone if ask.seats is not None)])
        waited = await self._session.bare(lambda sqlite: limits.waits(sqlite, known))
        if waited or forgone:
            promise, rows = self._options.seat_promise, len(waited) + len(forgone)
            woken = await self._session.write(
                lambda sqlite: limits.freed(sqlite, waited, time.time(), promise, forgone), rows=rows
            )
            self._session.bells.ring_queues(woken)

    # ------------------------------------------------------------ rules

    async def rules(self, after: int = 0) -> RulesRead:
        """The rules that changed after an epoch."""
        return await self._session.read(lambda sqlite: rulebook.read(sqlite, after))

    async def set_rules(self, changes: Sequence[RuleChange]) -> int:
        """Write or drop rules; returns the last epoch."""
        return await self._session.write(
            lambda sqlite: rulebook.write(sqlite, changes, time.time()), rows=2 * len(changes)
        )

    async def withdraw(self, ids: Collection[str], queues: Sequence[str]) -> Sequence[Delivery]:
        """Take the messages of these tasks out of the midst of their queues."""
        wanted = frozenset(ids)
        number = int.from_bytes(os.urandom(7))
        rows = await self._session.aside(lambda desk, timeout: self._withdraw(desk, timeout, wanted, queues, number))
        return self._deliveries(rows, number)

    def _withdraw(
        self, desk: Desk, timeout: float, wanted: Collection[str], queues: Sequence[str], number: int
    ) -> list[tuple[int, str, bytes]]:
        forms, last = written(wanted), 0
        found: list[int] = []
        while rows := desk.bare(lambda sqlite: rulebook.page(sqlite, queues, last, WITHDRAW_PAGE), timeout):  # noqa: B023
            last = rows[-1][0]
            found += [key for key, raw in rows if may_be_one(raw, forms) and self._task_id(raw) in wanted]
        taken: list[tuple[int, str, bytes]] = []
        for at in range(0, len(found), WITHDRAW_PAGE):
            page = found[at : at + WITHDRAW_PAGE]
            taken += desk.write(
                lambda sqlite: rulebook.withdraw(sqlite, page, lambda: self._lending(number)),  # noqa: B023
                timeout,
            )
        return taken

    def _task_id(self, raw: bytes) -> str:
        message = envelope.decode(raw, queue="", zone=self._zone, max_bytes=self._options.max_message_bytes)
        return "" if isinstance(message, Malformed) else message.id

    # ------------------------------------------------------------ ledger

    async def read_ledger(self, keys: Sequence[str]) -> Sequence[bytes | None]:
        """What stands under each key."""
        return await self._session.read(lambda sqlite: ledger_table.read(sqlite, keys, time.time()))

    async def change_ledger(self, changes: Sequence[Change]) -> Sequence[bool]:
        """Make changes, all in one transaction; for each whether it was made."""
        if not changes:
            return ()
        return await self._session.write(
            lambda sqlite: ledger_table.change(sqlite, changes, time.time()), rows=len(changes)
        )

    # ------------------------------------------------------------ bus

    async def emit(self, exchange: str, routing_key: str, payload: Any, headers: Mapping[str, Any]) -> None:
        """Send to whoever listens now."""
        await self._bus.emit(exchange, routing_key, payload, headers)

    def listen(self, exchange: str) -> AsyncIterator[tuple[Any, Mapping[str, Any]]]:
        """Everything sent to an exchange from now on."""
        return self._bus.listen(exchange)

    async def reply(self, exchange: str, routing_key: str, payload: Any, headers: Mapping[str, Any]) -> None:
        """Answer a request."""
        await self._bus.reply(exchange, routing_key, payload, headers)


def _ringing(rows: Sequence[tables.Row]) -> set[str]:
    """The queues to ring for new messages: those whose waiters could miss one."""
    now = time.time()
    return {queue for queue, _, due, _ in rows if due is None or due - now < _SOON}


def _released(settlements: Sequence[Settlement]) -> set[str]:
    """The queues to which something goes back."""
    return {each.delivery.queue for each in settlements if isinstance(each, Release)}


def _follow_ups(completion: Completion) -> list[tables.Row] | None:
    """The rows of its follow-ups; None when one cannot be encoded: the batch must not fail with it."""
    try:
        return tables.prepare(completion.publish)
    except (TypeError, ValueError, msgspec.MsgspecError):
        return None


def ring_results(bells: Bells, results: Sequence[StoredResult]) -> None:
    """Wake those who wait for these results."""
    waiting = bells.waiting("ra") if results else ()
    if waiting:
        bells.ring({ANY_RESULT, *(result_topic(result.id) for result in results)}.intersection(waiting))
