"""The asyncio ``Broker`` of PostgreSQL, with ``Unified``, ``Limiter``, ``Rules``, ``Ledger``, ``Timekeeper`` and
``Bus``: used by workers.

What happens in the database is in the functions of ``sql/``; here is when to call them.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from datetime import UTC, tzinfo
from typing import Any
from zoneinfo import ZoneInfo

from celeriac.brokers.postgres import limits, upkeep
from celeriac.brokers.postgres.address import Address
from celeriac.brokers.postgres.bus import PostgresBus
from celeriac.brokers.postgres.claims import Claims
from celeriac.brokers.postgres.finishing import Finisher
from celeriac.brokers.postgres.rows import change_columns, clean, message_columns, unpack
from celeriac.brokers.postgres.session import LONG, Session
from celeriac.codec import envelope
from celeriac.codec.seeking import written
from celeriac.exceptions import OperationalError
from celeriac.model.ledger import Change
from celeriac.model.limits import Ask, Permit, Seats
from celeriac.model.message import Delivery, Malformed, Message
from celeriac.model.rules import REVOKE, RULES_LIMIT, TOMBSTONE, Rule, RuleChange, RulesRead
from celeriac.model.settle import Completion, Release, Settlement, Verdict
from celeriac.ports import AdapterOptions, DeadRecord, Depth, Traits

__all__ = ["PostgresBroker", "dead_record", "rules_read"]

#: Messages that a search looks at in one step.
_WITHDRAW_PAGE = 1000
_NEWEST = 2**63 - 1
#: More letters are never asked for at once.
_MOST = 1_000_000


class PostgresBroker:
    """Queues, leases, schedule and results in one database; see the ports."""

    def __init__(self, address: Address, options: AdapterOptions) -> None:
        self.traits = Traits(durable=True, native_delay=True, server=address.server)
        self._options = options
        self._owner = clean(options.owner or envelope.new_id())
        self._zone: tzinfo = UTC if options.zone == "UTC" else ZoneInfo(options.zone)
        self._session = Session(address)
        self._claims = Claims(self._session, self._owner, options.lease, self._read)
        self._claims.left = self._give_back
        self._finisher = Finisher(self._session, options.chord_token)
        self._bus = PostgresBus(self._session)
        self._upkeep = upkeep.Upkeep(self._session, options, self._zone)
        self._releasing: set[asyncio.Task[None]] = set()

    def _read(self, raw: bytes, token: str, queue: str) -> Delivery:
        return envelope.delivery(
            raw, token=token, queue=queue, zone=self._zone, max_bytes=self._options.max_message_bytes
        )

    async def open(self) -> None:
        """Connect; make the schema when there is none."""
        await self._session.open()

    async def close(self) -> None:
        """Close the connection; claims that wait end empty. What a cancelled claim took is given back before."""
        self._bus.close()
        if self._session.is_open:
            await self._claims.answered()
            self._give_back()
        if self._releasing:
            await asyncio.wait(self._releasing)
        await self._session.close()

    async def declare(self, queues: Sequence[str]) -> None:
        """Queues exist by being named; this only makes sure that the database can be used."""
        await self._session.call("version", ())

    async def publish(self, messages: Sequence[Message]) -> None:
        """Store all messages, or none."""
        columns = message_columns(messages)
        if columns[0]:
            queues = set(columns[0])
            await self._session.call("publish", (*columns, list(queues)))
            self._session.knock(queues)

    # ------------------------------------------------------------ claim, settle

    @property
    def epoch(self) -> int:
        """See ``Rules.epoch``."""
        return self._claims.epoch

    def now(self) -> float:
        """See ``Timekeeper.now``."""
        return self._claims.now()

    async def claim(self, queues: Sequence[str], *, limit: int, wait: float) -> Sequence[Delivery]:
        """Take up to ``limit`` deliveries; waits up to ``wait`` seconds for the first."""
        return await self._claims.claim(queues, limit, wait)

    def _give_back(self) -> None:
        """Release what a cancelled claim took and nobody came for."""
        stash = self._claims.give_back()
        if stash and self._session.is_open:
            task = asyncio.ensure_future(self._release(stash))
            self._releasing.add(task)
            task.add_done_callback(self._releasing.discard)

    async def _release(self, deliveries: Sequence[Delivery]) -> None:
        try:
            await self.settle([Release(each) for each in deliveries])
        except OperationalError:
            pass  # their leases end

    async def settle(self, settlements: Sequence[Settlement]) -> Sequence[Settlement]:
        """End deliveries; returns the refused ones."""
        if not settlements:
            return ()
        verdicts = await self._finisher.write([Completion(settlement=each) for each in settlements], whole=True)
        return [each for each, verdict in zip(settlements, verdicts, strict=True) if verdict is not Verdict.DONE]

    async def finish(self, completions: Sequence[Completion]) -> Sequence[Verdict]:
        """Write completions in one transaction, each only when its tokens are held."""
        return await self._finisher.write(completions) if completions else ()

    async def extend(self, deliveries: Sequence[Delivery]) -> Sequence[Delivery]:
        """Renew leases; returns the lost ones."""
        if not deliveries:
            return ()
        tokens = [unpack(delivery.token) for delivery in deliveries]
        claims, ids = [claim for claim, _ in tokens], [key for _, key in tokens]
        ((held,),) = await self._session.call("extend", (claims, ids, self._options.lease))
        return [delivery for delivery, is_held in zip(deliveries, held, strict=True) if not is_held]

    async def orphans(self, owner: str) -> Sequence[Delivery]:
        """All deliveries that ``owner`` holds."""
        rows = await self._session.call("owned", (clean(owner),), LONG)
        return [self._read(raw, f"{owner}:{claim}:{key}", queue) for claim, key, queue, raw in rows]

    # ------------------------------------------------------------ upkeep and questions

    async def maintain(self) -> float:
        """Restore what expired, ripen what is due, drop what is old; returns the seconds until it is useful again."""
        return await self._upkeep.maintain()

    async def depth(self, queues: Sequence[str]) -> Mapping[str, Depth]:
        """How full each queue is."""
        return await self._upkeep.depth(queues)

    async def purge(self, queue: str) -> int:
        """Drop all ready and scheduled messages of a queue; returns how many."""
        return await self._upkeep.purge(queue)

    async def dead(self, *, limit: int = 100, queue: str | None = None) -> Sequence[DeadRecord]:
        """The newest dead letters."""
        args = (_NEWEST, None if queue is None else clean(queue), min(limit, _MOST))
        return [dead_record(row) for row in await self._session.call("dead_before", args, LONG)]

    # ------------------------------------------------------------ limits

    async def permit(self, asks: Sequence[Ask]) -> Sequence[Permit]:
        """See ``Limiter.permit``."""
        if not asks:
            return ()
        ((permits, dues),) = await self._session.call("permit", limits.ask_columns(asks, self._options.seat_promise))
        if any(ask.seats is not None for ask in asks):
            self._session.knock()
        return limits.permits(permits, dues)

    async def freed(self, seats: Sequence[Seats], forgone: Sequence[Ask] = ()) -> None:
        """See ``Limiter.freed``."""
        args = limits.freed_columns(seats, forgone, self._options.seat_promise)
        if args[0]:
            await self._session.call("freed", args)
            self._session.knock()

    # ------------------------------------------------------------ rules

    async def rules(self, after: int = 0) -> RulesRead:
        """The rules that changed after an epoch."""
        rows = await self._session.call("read_rules", (after, ""))
        self._claims.heard(rows[-1][2])
        return rules_read(rows)

    async def set_rules(self, changes: Sequence[RuleChange]) -> int:
        """Write or drop rules; returns the last epoch."""
        ((epoch,),) = await self._session.call("set_rules", limits_of_rules(changes))
        return int(epoch)

    async def withdraw(self, ids: Collection[str], queues: Sequence[str]) -> Sequence[Delivery]:
        """Take the messages of these tasks out of the midst of their queues."""
        wanted, names = frozenset(ids), [clean(queue) for queue in queues]
        forms, last, found = list(written(wanted)), 0, []
        while True:
            *rows, (end, _) = await self._session.call("search", (names, forms, last, _WITHDRAW_PAGE), LONG)
            found += [key for key, raw in rows if self._task_id(raw) in wanted]
            if end is None:
                break
            last = end
        number, taken = self._claims.number(), []
        for at in range(0, len(found), _WITHDRAW_PAGE):
            page = found[at : at + _WITHDRAW_PAGE]
            rows = await self._session.call("withdraw", (page, self._owner, number, self._options.lease), LONG)
            taken += self._claims.deliveries(rows, number)
        return taken

    def _task_id(self, raw: bytes) -> str:
        message = envelope.decode(raw, queue="", zone=self._zone, max_bytes=self._options.max_message_bytes)
        return "" if isinstance(message, Malformed) else message.id

    # ------------------------------------------------------------ ledger

    async def read_ledger(self, keys: Sequence[str]) -> Sequence[bytes | None]:
        """What stands under each key."""
        if not keys:
            return ()
        ((values,),) = await self._session.call("read_ledger", ([clean(key) for key in keys],))
        return list(values)

    async def change_ledger(self, changes: Sequence[Change]) -> Sequence[bool]:
        """Make changes, all in one transaction; for each whether it was made."""
        if not changes:
            return ()
        ((made,),) = await self._session.call("change_ledger", change_columns(changes))
        return list(made)

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


def limits_of_rules(changes: Sequence[RuleChange]) -> tuple[Any, ...]:
    """The arguments of ``set_rules``."""
    return (
        [clean(each.key) for each in changes],
        [each.value for each in changes],
        [each.expires for each in changes],
        TOMBSTONE,
        REVOKE,
        RULES_LIMIT,
    )


def rules_read(rows: Sequence[Sequence[Any]]) -> RulesRead:
    """The answer of ``read_rules``."""
    *found, (_, _, _, epoch, complete) = rows
    return RulesRead(epoch, [Rule(key, value, expires, at) for key, value, expires, at, _ in found], complete)


def dead_record(row: Sequence[Any]) -> DeadRecord:
    """A dead letter from its row."""
    key, task_id, task, queue, reason, detail, exception, traceback, worker, at, crashes, raw = row
    return DeadRecord(
        key=str(key), id=task_id, task=task, queue=queue, reason=reason, detail=detail, exception=exception,
        traceback=traceback, worker=worker, at=at, crashes=crashes, raw=raw,
    )  # fmt: skip
