"""The asynchronous ports of ``memory://``: ``Broker``, ``Unified``, ``Limiter``, ``Rules``, ``Ledger`` and ``Bus``.

Used by workers, one event loop each.

Every step is taken under the server's lock, without waiting; only an empty claim and a listener wait.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from zoneinfo import ZoneInfo

from celeriac.brokers.memory.listener import Listener
from celeriac.brokers.memory.queues import Lease, step_of
from celeriac.brokers.memory.shared import Server
from celeriac.brokers.memory.waiter import Waiter
from celeriac.codec.envelope import carries_lock, delivery, encode, remark
from celeriac.codec.json import dumps
from celeriac.codec.seeking import may_be_one, written
from celeriac.exceptions import OperationalError
from celeriac.model.dead import dropped
from celeriac.model.ledger import Change, lock_of
from celeriac.model.limits import Ask, Permit, Seats
from celeriac.model.message import Delivery, Message
from celeriac.model.rules import RuleChange, RulesRead
from celeriac.model.settle import Accept, Completion, DeadLetter, Hold, Release, Settlement, Verdict, last_to_join
from celeriac.ports import AdapterOptions, DeadRecord, Depth

__all__ = [
    "MemoryBroker",
    "add",
    "encoded",
    "launch",
    "publish",
    "publish_each_if",
    "publish_if",
    "publish_once",
    "purge",
    "set_rules",
    "stage",
]

logger = logging.getLogger("celeriac.brokers.memory")

#: A message encoded for its queue: queue, text, priority step, due.
_Encoded = tuple[str, bytes, int, float | None]


def encoded(messages: Sequence[Message]) -> list[_Encoded]:
    """Messages as they are stored. Raises ``TypeError`` or ``ValueError`` when one cannot be encoded."""
    return [(each.queue, encode(each), step_of(each.priority), each.due) for each in messages]


def publish(server: Server, messages: Sequence[Message]) -> None:
    """Add messages in one step, or none: ``TypeError`` or ``ValueError`` when one cannot be encoded."""
    texts = encoded(messages)
    with server.lock:
        add(server, texts)


def stage(server: Server, messages: Sequence[Message], name: str) -> None:
    """See ``Publisher.stage``."""
    texts = encoded(messages)
    with server.lock:
        server.stages.put(name, texts, server.clock.monotonic())


def launch(server: Server, name: str, count: int) -> None:
    """See ``Publisher.launch``."""
    with server.lock:
        staged = server.stages.take(name, count, server.clock.monotonic())
        if staged is None:
            raise OperationalError(f"memory://{server.name}: what was put aside for one send is gone: send it again")
        add(server, staged)


def publish_if(server: Server, message: Message, changes: Sequence[Change]) -> Sequence[bytes | None] | None:
    """Add a message and change the ledger, or neither: then what stands under the keys."""
    texts = encoded((message,))
    with server.lock:
        there = server.ledger.change_all(changes, server.clock.monotonic())
        if there is None:
            add(server, texts)
        return there


def publish_each_if(
    server: Server, sendings: Sequence[tuple[Message, Sequence[Change]]]
) -> list[Sequence[bytes | None] | None]:
    """``publish_if`` for each; nothing when one cannot be encoded."""
    texts = encoded([message for message, _ in sendings])
    answers: list[Sequence[bytes | None] | None] = []
    with server.lock:
        for text, (_, changes) in zip(texts, sendings, strict=True):
            there = server.ledger.change_all(changes, server.clock.monotonic())
            if there is None:
                add(server, (text,))
            answers.append(there)
    return answers


def publish_once(server: Server, messages: Mapping[str, Message], expires: float) -> list[str]:
    """Add those messages whose keys are free, and write the keys; returns these."""
    texts = encoded(list(messages.values()))
    with server.lock:
        tick = server.clock.monotonic()
        made = [server.ledger.change(Change(key, b"1", None, expires), tick) for key in messages]
        add(server, [text for text, is_new in zip(texts, made, strict=True) if is_new])
        return [key for key, is_new in zip(messages, made, strict=True) if is_new]


def purge(server: Server, queue: str) -> int:
    """Drop what waits in a queue, and the locks it holds; under the server's lock."""
    dropped = server.queues.purge(queue)
    locked = [delivery(raw, token="", queue=queue).message for raw in dropped if carries_lock(raw)]
    server.ledger.free([lock for lock in map(lock_of, locked) if lock is not None], server.clock.monotonic())
    return len(dropped)


def add(server: Server, messages: Sequence[_Encoded]) -> None:
    """Add messages, under the lock."""
    now = server.clock.now()
    for queue, raw, step, due in messages:
        server.queues.add(queue, raw, step=step, due=due, now=now)


class MemoryBroker:
    """One worker's view of the server: its owner, its leases, its connection that can be open or closed."""

    def __init__(self, server: Server, options: AdapterOptions) -> None:
        self.traits = server.traits
        self._server = server
        self._options = options
        self._zone = ZoneInfo(options.zone)
        self._is_open = False
        #: The last round dropped dead letters before their time: said once.
        self._dropping = False
        self._waiters: set[Waiter] = set()
        self._listeners: set[Listener] = set()
        self.epoch = 0

    async def open(self) -> None:
        """See ``Broker.open``."""
        self._is_open = True

    async def close(self) -> None:
        """See ``Broker.close``."""
        self._is_open = False
        for waiter in self._waiters:
            waiter.wake()
        for listener in tuple(self._listeners):
            await listener.aclose()

    @contextmanager
    def _locked(self) -> Iterator[Server]:
        self._check_open()
        with self._server.lock:
            yield self._server

    def _check_open(self) -> None:
        if not self._is_open:
            raise OperationalError(f"the broker memory://{self._server.name} is closed: call open() first")

    # -- messages in and out -----------------------------------------------------------------------------------------

    async def declare(self, queues: Sequence[str]) -> None:
        """See ``Broker.declare``."""
        with self._locked() as server:
            for name in queues:
                server.queues.declare(name)

    async def publish(self, messages: Sequence[Message]) -> None:
        """See ``Broker.publish``."""
        texts = encoded(messages)
        with self._locked() as server:
            add(server, texts)

    async def claim(self, queues: Sequence[str], *, limit: int, wait: float) -> Sequence[Delivery]:
        """See ``Broker.claim``."""
        deadline = self._server.clock.monotonic() + wait
        known = self.epoch
        taken = self._take(queues, limit)
        while not taken and limit > 0 and self.epoch == known:
            remaining = deadline - self._server.clock.monotonic()
            if remaining <= 0:
                break
            await self._wait(queues, remaining)
            taken = self._take(queues, limit)
        return [self._delivery(token, queue, raw) for token, queue, raw in taken]

    def _take(self, queues: Sequence[str], limit: int) -> list[tuple[str, str, bytes]]:
        with self._locked() as server:
            now, tick = server.clock.now(), server.clock.monotonic()
            until = tick + self._options.lease
            self.epoch = server.rules.epoch
            return server.queues.take(queues, limit, owner=self._options.owner, now=now, until=until)

    def _delivery(self, token: str, queue: str, raw: bytes) -> Delivery:
        return delivery(raw, token=token, queue=queue, zone=self._zone, max_bytes=self._options.max_message_bytes)

    async def _wait(self, queues: Sequence[str], seconds: float) -> None:
        """Until something may be there. Takes nothing, so that cancelling it loses nothing."""
        waiter = Waiter()
        with self._locked() as server:
            # Something may have come since the last look: what is ready now would wake nobody.
            if any(server.queues.has_ready(name) for name in queues) or server.rules.epoch != self.epoch:
                return
            due = server.queues.next_due(queues)
            server.queues.watch(queues, waiter)
            self._waiters.add(waiter)
        if due is not None:
            seconds = min(seconds, max(0.0, due - server.clock.now()))
        try:
            await waiter.wait(seconds, server.clock)
        finally:
            self._waiters.discard(waiter)
            with server.lock:
                server.queues.unwatch(queues, waiter)

    # -- ends --------------------------------------------------------------------------------------------------------

    async def settle(self, settlements: Sequence[Settlement]) -> Sequence[Settlement]:
        """See ``Broker.settle``."""
        front: list[Lease] = []
        with self._locked() as server:
            refused = [settlement for settlement in settlements if not self._end(settlement, front)]
            server.queues.to_front(front)
        return refused

    async def finish(self, completions: Sequence[Completion]) -> Sequence[Verdict]:
        """See ``Unified.finish``."""
        texts = [_encoded_or_none(completion.publish) for completion in completions]
        verdicts = [Verdict.FENCED] * len(completions)
        #: Those that joined chords end when all have joined; their tokens are good for no other end meanwhile.
        joining: list[int] = []
        ending: set[str] = set()
        front: list[Lease] = []
        with self._locked() as server:
            for index, (completion, messages) in enumerate(zip(completions, texts, strict=True)):
                if self._is_fenced(completion, ending):
                    continue
                if messages is None:
                    verdicts[index] = Verdict.STEPWISE
                    continue
                self._write(completion, messages)
                verdicts[index] = Verdict.DONE
                settlement = completion.settlement
                if completion.parts and settlement.delivery is not None:
                    joining.append(index)
                    if not isinstance(settlement, Hold):
                        ending.add(settlement.delivery.token)
                elif not isinstance(settlement, Hold):
                    self._end(settlement, front)
            for index, chords in last_to_join(completions, joining).items():
                settlement = completions[index].settlement
                if settlement.delivery is not None and self._complete(chords, settlement.delivery.token):
                    verdicts[index] = Verdict.COMPLETES
                elif not isinstance(settlement, Hold):
                    self._end(settlement, front)
            server.queues.to_front(front)
        return verdicts

    def _is_fenced(self, completion: Completion, ending: Container[str]) -> bool:
        server, delivery, closes = self._server, completion.settlement.delivery, completion.closes
        if delivery is not None and (delivery.token not in server.queues.leases or delivery.token in ending):
            return True
        return closes is not None and not server.chords.holds(closes, server.clock.monotonic())

    def _write(self, completion: Completion, messages: Sequence[_Encoded]) -> None:
        """All that a completion wants, but for its settlement."""
        server, tick, wait = self._server, self._server.clock.monotonic(), self._options.chord_token
        for chord in completion.opens:
            server.chords.open(chord, tick, wait)
        if messages:
            add(server, messages)
        if completion.result is not None:
            server.results.put(completion.result, tick)
        for record in completion.others:
            server.results.put(record, tick)
        for part in completion.parts:
            server.chords.join(part, tick, wait)
        if completion.closes is not None:
            server.chords.close(completion.closes, tick)
        if completion.frees:
            server.ledger.free(completion.frees, tick)

    def _complete(self, chords: Sequence[str], token: str) -> bool:
        """Take the tokens of those chords that are complete; whether there was one."""
        server, tick, wait = self._server, self._server.clock.monotonic(), self._options.chord_token
        return any([server.chords.take(chord, token, tick, wait) for chord in chords])

    def _end(self, settlement: Settlement, front: list[Lease]) -> bool:
        """End one lease; what goes to the front of its queue is collected in ``front``. False when it is not held."""
        server = self._server
        lease = server.queues.leases.pop(settlement.delivery.token, None)
        if lease is None:
            return False
        now = server.clock.now()
        match settlement:
            case Accept():
                pass
            case Release(due=due, marks=marks, back=back):
                raw = None if marks is None else remark(self._delivery("", lease.queue, lease.item.raw), marks)
                if not server.queues.release(lease, due=due, raw=raw, back=back, now=now):
                    front.append(lease)
            case DeadLetter():
                server.queues.dead.bury(_dead_record(settlement, lease, server.queues.dead.new_key(), now), now)
        return True

    async def extend(self, deliveries: Sequence[Delivery]) -> Sequence[Delivery]:
        """See ``Broker.extend``."""
        lost: list[Delivery] = []
        with self._locked() as server:
            until = server.clock.monotonic() + self._options.lease
            for each in deliveries:
                lease = server.queues.leases.get(each.token)
                if lease is None:
                    lost.append(each)
                else:
                    lease.until = until
        return lost

    async def orphans(self, owner: str) -> Sequence[Delivery]:
        """See ``Broker.orphans``."""
        with self._locked() as server:
            held = [
                (token, lease.queue, lease.item.raw)
                for token, lease in server.queues.leases.items()
                if lease.owner == owner
            ]
        return [self._delivery(token, queue, raw) for token, queue, raw in held]

    async def maintain(self) -> float:
        """See ``Broker.maintain``."""
        options = self._options
        with self._locked() as server:
            now, tick = server.clock.now(), server.clock.monotonic()
            server.queues.due(now)
            server.ledger.sweep(tick)
            server.queues.restore(now=now, tick=tick)
            server.limits.tend(now, options.seat_promise)
            surplus = server.queues.dead.trim(
                now=now,
                expires=options.dead_letter_expires,
                limit=options.dead_letter_limit,
                max_bytes=options.dead_letter_max_bytes,
            )
            event = server.queues.next_event(now=now, tick=tick, dead_expires=options.dead_letter_expires)
            # Whoever frees a seat wakes the next one; somebody may die between the two.
            most = min(options.lease, 1.0) if server.queues.parked else options.lease
        if surplus and not self._dropping:
            logger.warning("memory://%s: %s", self._server.name, dropped(surplus))
        self._dropping = surplus > 0
        return most if event is None else min(max(event, 0.0), most)

    # -- limits ------------------------------------------------------------------------------------------------------

    async def permit(self, asks: Sequence[Ask]) -> Sequence[Permit]:
        """See ``Limiter.permit``."""
        with self._locked() as server:
            return server.limits.permit(asks, server.clock.now(), self._options.seat_promise)

    async def freed(self, seats: Sequence[Seats], forgone: Sequence[Ask] = ()) -> None:
        """See ``Limiter.freed``."""
        with self._locked() as server:
            server.limits.freed(seats, server.clock.now(), self._options.seat_promise, forgone)

    # -- looks -------------------------------------------------------------------------------------------------------

    async def depth(self, queues: Sequence[str]) -> Mapping[str, Depth]:
        """See ``Broker.depth``."""
        with self._locked() as server:
            return {name: server.queues.depth(name, server.clock.now()) for name in queues}

    async def purge(self, queue: str) -> int:
        """See ``Broker.purge``."""
        with self._locked() as server:
            return purge(server, queue)

    async def dead(self, *, limit: int = 100, queue: str | None = None) -> Sequence[DeadRecord]:
        """See ``Broker.dead``."""
        with self._locked() as server:
            return server.queues.dead.newest(limit, queue)

    # -- rules -------------------------------------------------------------------------------------------------------

    async def rules(self, after: int = 0) -> RulesRead:
        """See ``Rules.rules``."""
        with self._locked() as server:
            return server.rules.read(after)

    async def set_rules(self, changes: Sequence[RuleChange]) -> int:
        """See ``Rules.set_rules``."""
        with self._locked() as server:
            return set_rules(server, changes)

    async def withdraw(self, ids: Collection[str], queues: Sequence[str]) -> Sequence[Delivery]:
        """See ``Rules.withdraw``."""
        wanted, forms = frozenset(ids), written(ids)
        with self._locked() as server:
            until = server.clock.monotonic() + self._options.lease
            taken = server.queues.withdraw(
                queues,
                lambda raw: may_be_one(raw, forms) and self._delivery("", "", raw).message.id in wanted,
                owner=self._options.owner,
                until=until,
            )
        return [self._delivery(token, queue, raw) for token, queue, raw in taken]

    # -- ledger ------------------------------------------------------------------------------------------------------

    async def read_ledger(self, keys: Sequence[str]) -> Sequence[bytes | None]:
        """See ``Ledger.read_ledger``."""
        self._check_open()
        return self._server.read_ledger(keys)

    async def change_ledger(self, changes: Sequence[Change]) -> Sequence[bool]:
        """See ``Ledger.change_ledger``."""
        self._check_open()
        return self._server.change_ledger(changes)

    # -- bus ---------------------------------------------------------------------------------------------------------

    async def emit(self, exchange: str, routing_key: str, payload: Any, headers: Mapping[str, Any]) -> None:
        """See ``Bus.emit``."""
        letter = dumps(payload), dumps(dict(headers))
        with self._locked() as server:
            server.topics.emit(exchange, letter)

    def listen(self, exchange: str) -> Listener:
        """See ``Bus.listen``."""
        with self._locked() as server:
            listener = Listener(server, exchange, self._listeners.discard)
            server.topics.listen(exchange, listener)
            self._listeners.add(listener)
        return listener

    async def reply(self, exchange: str, routing_key: str, payload: Any, headers: Mapping[str, Any]) -> None:
        """See ``Bus.reply``."""
        letter = dumps(payload), dumps(dict(headers))
        with self._locked() as server:
            server.topics.reply(exchange, routing_key, letter)


def set_rules(server: Server, changes: Sequence[RuleChange]) -> int:
    """Change the rules and tell those who wait; under the server's lock."""
    epoch = server.rules.set(changes, server.clock.now())
    if changes:
        server.queues.wake_all()
    return epoch


def _encoded_or_none(messages: Sequence[Message]) -> list[_Encoded] | None:
    try:
        return encoded(messages) if messages else []
    except (TypeError, ValueError):
        return None  # written step by step, it raises for the one plan that it belongs to


def _dead_record(settlement: DeadLetter, lease: Lease, key: str, now: float) -> DeadRecord:
    message = settlement.delivery.message
    return DeadRecord(
        key=key,
        id=message.id,
        task=message.task,
        queue=lease.queue,
        reason=settlement.reason.value,
        detail=settlement.detail,
        exception=settlement.exception,
        traceback=settlement.traceback,
        worker=settlement.worker,
        at=settlement.at or now,
        crashes=settlement.delivery.marks.crashes,
        raw=lease.item.raw,
    )
