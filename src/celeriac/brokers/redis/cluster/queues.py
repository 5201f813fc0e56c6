"""The broker of a worker on a Redis Cluster: ``Broker``, ``Rules``, ``Ledger``, ``Timekeeper`` and ``Bus``.

A router over the parts (``parts.py``): what concerns a queue goes to the node of that queue. Priorities hold within a
queue; of several queues the caller's order counts. It is not ``Unified``, for a result is elsewhere than its queue, and
not ``Limiter``.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from typing import Any, TypeVar

from msgspec.structs import replace

from celeriac.brokers.redis.advice import advise
from celeriac.brokers.redis.claims import Numbers, Quiet
from celeriac.brokers.redis.cluster.address import parse_cluster, server_of
from celeriac.brokers.redis.cluster.nodes import Nodes
from celeriac.brokers.redis.cluster.parts import Home, QueuePart
from celeriac.brokers.redis.cluster.together import together
from celeriac.brokers.redis.doorbell import Doorbell
from celeriac.clock import ServerTime
from celeriac.codec import envelope
from celeriac.exceptions import OperationalError
from celeriac.model.ledger import Change
from celeriac.model.message import Delivery, Message
from celeriac.model.rules import RuleChange, RulesRead
from celeriac.model.settle import Release, Settlement
from celeriac.ports import AdapterOptions, DeadRecord, Depth, Traits

__all__ = ["ClusterBroker"]

logger = logging.getLogger("celeriac.brokers.redis")

#: Seconds that a queue's node has to answer, while there are other queues; and between two tries to reach it again.
_PROMPT = 1.0
_REST = 0.25
#: Seconds that what a cancelled claim took waits for the next claim.
_LEFT = 0.1
#: Without tracking: shortest and longest pause between two looks, in seconds.
_POLL_FIRST, _POLL_LAST = 0.005, 0.5

T = TypeVar("T")
R = TypeVar("R")


class ClusterBroker:
    """See ``celeriac.ports.Broker``, ``Rules``, ``Ledger`` and ``Bus``."""

    def __init__(self, url: str, options: AdapterOptions) -> None:
        self._address = parse_cluster(url, options)
        # Tokens name their owner; all parts of this broker have the same.
        self._options = replace(options, owner=options.owner or envelope.new_id())
        self._nodes = Nodes(self._address, tracking=True)
        self._bell = Doorbell()
        self._numbers = Numbers()
        self._parts: dict[str, QueuePart] = {}
        self._home = Home(self._nodes, self._options, bell=self._bell)
        self._home.held_by = self._held_by
        self._registered: set[str] = set()
        self._left: list[Delivery] = []
        self._giving_back: asyncio.Task[None] | None = None
        self._reaching: set[asyncio.Task[None]] = set()
        self._unadvised = True
        self._time = ServerTime()
        #: See ``Rules.epoch``.
        self.epoch = 0
        self.traits = Traits(durable=True, native_delay=True, server=server_of(self._address, "queues"))

    # -- Broker

    async def open(self) -> None:
        """See ``Broker.open``."""
        await self._nodes.open()

    async def close(self) -> None:
        """See ``Broker.close``. Gives back what cancelled claims took."""
        for task in list(self._reaching):
            task.cancel()
        for part in self._parts.values():
            part.away = None
        await self._give_back()
        await together(part.close() for part in self._parts.values())  # each waits for its node
        await self._home.close()
        self._nodes.close()
        self._bell.ring()

    async def declare(self, queues: Sequence[str]) -> None:
        """See ``Broker.declare``."""
        new = [queue for queue in queues if queue not in self._registered]
        if new:
            await self._home.register(new)
            self._registered.update(new)
        for queue in queues:
            self._part(queue)

    async def publish(self, messages: Sequence[Message]) -> None:
        """See ``Broker.publish``."""
        for message in messages:
            envelope.encode(message)  # what cannot be encoded ends the call before anything is published
        groups = _by_queue(messages, lambda message: message.queue)
        await self.declare(list(groups))
        await self._each(groups, lambda part, group: part.publish(group))

    async def claim(self, queues: Sequence[str], *, limit: int, wait: float) -> Sequence[Delivery]:
        """See ``Broker.claim``."""
        if not queues or limit < 1:
            return ()
        await self.declare(queues)
        parts = [self._part(queue) for queue in dict.fromkeys(queues)]
        loop = asyncio.get_running_loop()
        deadline, known, poll = loop.time() + wait, self.epoch, _POLL_FIRST
        while True:
            rings = self._bell.count
            taken, quiet = await self._turn(parts, limit, waits=wait > 0)
            if taken or wait <= 0 or self.epoch != known:
                return taken
            pause = min(deadline, *(each.until for each in quiet)) - loop.time()
            if not all(each.wire.tracking for each in quiet):
                pause, poll = min(pause, poll), min(poll * 1.5, _POLL_LAST)
            await self._bell.wait(rings, pause)
            if loop.time() >= deadline and self._bell.count == rings:
                return ()
            wait = max(deadline - loop.time(), 0.0)

    def now(self) -> float:
        """See ``Timekeeper.now``: the clock of the node that was claimed from last."""
        return self._time.now()

    async def settle(self, settlements: Sequence[Settlement]) -> Sequence[Settlement]:
        """See ``Broker.settle``."""
        groups = _by_queue(settlements, lambda settlement: settlement.delivery.queue)
        refused = {
            id(each) for found in await self._each(groups, lambda part, group: part.settle(group)) for each in found
        }
        return [each for each in settlements if id(each) in refused]

    async def extend(self, deliveries: Sequence[Delivery]) -> Sequence[Delivery]:
        """See ``Broker.extend``."""
        unknown = [each for each in deliveries if not each.queue]
        if unknown:  # an agent that renews for a child knows tokens alone
            known = await self.extend([each for each in deliveries if each.queue])
            return [*known, *await self._extend_somewhere(unknown)]
        groups = _by_queue(deliveries, lambda delivery: delivery.queue)
        lost = {
            each.token for found in await self._each(groups, lambda part, group: part.extend(group)) for each in found
        }
        return [each for each in deliveries if each.token in lost]

    async def orphans(self, owner: str) -> Sequence[Delivery]:
        """See ``Broker.orphans``."""
        parts = await self._all_parts()
        found = await together(part.orphans(owner) for part in parts)
        return [delivery for page in found for delivery in page]

    async def maintain(self) -> float:
        """See ``Broker.maintain``. Queues whose node is away do not keep the others waiting."""
        if self._unadvised:
            self._unadvised = False
            for link in await self._nodes.masters():
                await advise(link)
        if self._registered:
            await self._home.register(sorted(self._registered))  # the server may have been emptied
        return min(await together(part.maintain() for part in await self._all_parts()), default=10.0)

    async def depth(self, queues: Sequence[str]) -> Mapping[str, Depth]:
        """See ``Broker.depth``."""
        found: dict[str, Depth] = {}
        names = list(dict.fromkeys(queues))
        for part in await together(self._part(name).depth([name]) for name in names):
            found.update(part)
        return {name: found[name] for name in names}

    async def purge(self, queue: str) -> int:
        """See ``Broker.purge``. The locks of its tasks are freed afterwards."""
        return await self._part(queue).purge(queue)

    async def dead(self, *, limit: int = 100, queue: str | None = None) -> Sequence[DeadRecord]:
        """See ``Broker.dead``."""
        parts = [self._part(queue)] if queue is not None else await self._all_parts()
        letters = [letter for page in await together(part.dead(limit=limit) for part in parts) for letter in page]
        return sorted(letters, key=lambda letter: (letter.at, letter.key), reverse=True)[:limit]

    # -- Rules

    async def rules(self, after: int = 0) -> RulesRead:
        """See ``Rules.rules``."""
        answer = await self._home.rules(after)
        self._time = self._home.time  # an agent does not claim
        return answer

    async def set_rules(self, changes: Sequence[RuleChange]) -> int:
        """See ``Rules.set_rules``."""
        return await self._home.set_rules(changes)

    async def withdraw(self, ids: Collection[str], queues: Sequence[str]) -> Sequence[Delivery]:
        """See ``Rules.withdraw``."""
        found = await together(self._part(queue).withdraw(ids, [queue]) for queue in dict.fromkeys(queues))
        return [delivery for page in found for delivery in page]

    # -- Ledger

    async def read_ledger(self, keys: Sequence[str]) -> Sequence[bytes | None]:
        """See ``Ledger.read_ledger``."""
        return await self._home.read_ledger(keys)

    async def change_ledger(self, changes: Sequence[Change]) -> Sequence[bool]:
        """See ``Ledger.change_ledger``."""
        return await self._home.change_ledger(changes)

    # -- Bus

    async def emit(self, exchange: str, routing_key: str, payload: Any, headers: Mapping[str, Any]) -> None:
        """See ``Bus.emit``."""
        await self._home.emit(exchange, routing_key, payload, headers)

    def listen(self, exchange: str) -> AsyncIterator[tuple[Any, Mapping[str, Any]]]:
        """See ``Bus.listen``."""
        return self._home.listen(exchange)

    async def reply(self, exchange: str, routing_key: str, payload: Any, headers: Mapping[str, Any]) -> None:
        """See ``Bus.reply``."""
        await self._home.reply(exchange, routing_key, payload, headers)

    # -- inside

    def _part(self, queue: str) -> QueuePart:
        part = self._parts.get(queue)
        if part is None:
            part = self._parts[queue] = QueuePart(
                self._nodes, self._options, queue, bell=self._bell, numbers=self._numbers, home=self._home
            )
        return part

    async def _all_parts(self) -> list[QueuePart]:
        names = {*await self._home.registered(), *self._registered}
        return [self._part(name) for name in sorted(names)]

    async def _each(
        self, groups: Mapping[str, Sequence[T]], act: Callable[[QueuePart, Sequence[T]], Awaitable[R]]
    ) -> list[R]:
        """Act on each queue's part, at the same time."""
        if len(groups) == 1:
            ((queue, group),) = groups.items()
            return [await act(self._part(queue), group)]
        return await together(act(self._part(queue), group) for queue, group in groups.items())

    async def _turn(
        self, parts: Sequence[QueuePart], limit: int, *, waits: bool
    ) -> tuple[Sequence[Delivery], list[Quiet]]:
        """Ask each queue in its turn, then for the epoch of the rules: what was claimed is handed out under that."""
        taken = self._from_left({part.queue for part in parts}, limit)
        quiet: list[Quiet] = []
        try:
            failure = await self._ask(parts, limit, taken, quiet, waits=waits)
            if failure is not None and not taken and not quiet:
                raise failure
            if taken:
                self.epoch = await self._home.read_epoch()
            else:
                self.epoch, watched = await self._home.watch_epoch()
                quiet.append(watched)
        except BaseException:
            self._keep(taken)
            raise
        return taken, quiet

    async def _ask(
        self, parts: Sequence[QueuePart], limit: int, taken: list[Delivery], quiet: list[Quiet], *, waits: bool
    ) -> OperationalError | None:
        """Fill ``taken`` and ``quiet``; the failure of a queue that could not be asked, if any."""
        failure: OperationalError | None = None
        for part in parts:
            if len(taken) >= limit:
                break
            if part.away is not None:
                failure = failure or part.away
                continue
            try:
                async with asyncio.timeout(_PROMPT if len(parts) > 1 else None):
                    found, nothing = await part.look(limit - len(taken), waits=waits)
            except (OperationalError, TimeoutError) as error:
                problem = error if isinstance(error, OperationalError) else part.silent(_PROMPT)
                failure = failure or problem
                if len(parts) > 1:
                    self._leave_alone(part, problem)
                continue
            self._time = part.time
            taken += found
            if nothing is not None:
                quiet.append(nothing)
        return failure

    def _leave_alone(self, part: QueuePart, problem: OperationalError) -> None:
        """Its node is away: the other queues do not wait for it."""
        logger.warning("Queue %s waits for its node: %s", part.queue, problem)
        part.away = problem
        task = asyncio.get_running_loop().create_task(self._reach(part))
        self._reaching.add(task)
        task.add_done_callback(self._reaching.discard)

    async def _reach(self, part: QueuePart) -> None:
        while part.away is not None:
            await asyncio.sleep(_REST)
            try:
                await part.reach()
            except OperationalError as error:
                part.away = error
            else:
                part.away = None
                self._bell.ring()

    async def _extend_somewhere(self, deliveries: Sequence[Delivery]) -> Sequence[Delivery]:
        """Renew by tokens: each is in one of all queues, or in none."""
        pages = await together(part.extend(deliveries) for part in await self._all_parts())
        lost = [{each.token for each in page} for page in pages]
        return [each for each in deliveries if all(each.token in page for page in lost)]

    async def _held_by(self, owner: bytes) -> int:
        return sum(await together(part.held(owner) for part in await self._all_parts()))

    # -- what a claim took that did not end well

    def _from_left(self, queues: set[str], limit: int) -> list[Delivery]:
        if not self._left:
            return []
        taken = [delivery for delivery in self._left if delivery.queue in queues][:limit]
        tokens = {delivery.token for delivery in taken}
        self._left = [delivery for delivery in self._left if delivery.token not in tokens]
        return taken

    def _keep(self, taken: Sequence[Delivery]) -> None:
        if taken:
            self._left[:0] = taken
            self._bell.ring()
            asyncio.get_running_loop().call_later(_LEFT, self._give_back_soon)

    def _give_back_soon(self) -> None:
        self._giving_back = asyncio.get_running_loop().create_task(self._give_back())

    async def _give_back(self) -> None:
        left, self._left = self._left, []
        if left:
            try:
                await self.settle([Release(delivery) for delivery in reversed(left)])
            except OperationalError:
                pass  # their leases expire


def _by_queue(items: Sequence[T], queue: Callable[[T], str]) -> dict[str, list[T]]:
    groups: dict[str, list[T]] = {}
    for item in items:
        groups.setdefault(queue(item), []).append(item)
    return groups
