"""The broker of a worker on two servers: ``Broker``, ``Rules``, ``Ledger`` and ``Limiter``; and of ``Bus``,
``Timekeeper`` and ``Unified`` what the server of the queues offers. A façade; the work is in ``claims.py`` and
``limits.py``."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from typing import Any

from msgspec.structs import replace

from celeriac.beside.claims import Claims
from celeriac.beside.limits import Limits
from celeriac.beside.sending import purged
from celeriac.exceptions import ImproperlyConfigured, OperationalError
from celeriac.model.ledger import Change
from celeriac.model.limits import Ask, Permit, Seats
from celeriac.model.message import Delivery, Malformed, Message
from celeriac.model.rules import RuleChange, RulesRead
from celeriac.model.settle import Completion, Settlement, Verdict
from celeriac.ports import (
    AdapterOptions,
    Broker,
    Bus,
    DeadRecord,
    Depth,
    Ledger,
    Particular,
    Rules,
    Timekeeper,
    Traits,
    Unified,
)

__all__ = ["BesideBroker", "beside"]

logger = logging.getLogger("celeriac.beside")

#: Seconds between two rounds of maintenance of the ledger's server.
_CLEAN = 60.0


def beside(
    inner: Broker,
    companion: Broker,
    options: AdapterOptions,
    *,
    now: Callable[[], float] | None = None,
    rand: Callable[[], float] = random.random,
) -> Broker:
    """``inner`` with what it lacks; ``companion`` may be ``inner``. ``now()`` is the time of the machine."""
    if not (isinstance(companion, Ledger) and isinstance(companion, Rules)):
        raise ImproperlyConfigured(
            f"{companion.traits.server[0]} keeps no ledger: set ledger_url to a server that does"
        )
    kinds = tuple(kind for ability, kind in _KINDS if isinstance(inner, ability))
    made: Broker = type("BesideBroker", (*kinds, BesideBroker), {})(inner, companion, options, now=now, rand=rand)
    return made


class BesideBroker:
    """See ``celeriac.ports.Broker``, ``Rules``, ``Ledger`` and ``Limiter``."""

    def __init__(
        self,
        inner: Broker,
        companion: Any,
        options: AdapterOptions,
        *,
        now: Callable[[], float] | None,
        rand: Callable[[], float],
    ) -> None:
        self.traits: Traits = inner.traits
        self._inner: Any = inner
        self._companion = companion
        self._claims = None if companion is inner else Claims(inner, companion)
        #: When the ledger's server is to be looked after next, monotonic.
        self._cleans_at = None if companion is inner or companion.traits.expires else time.monotonic()
        own = now or _time
        self._local: Callable[[], float] = inner.now if isinstance(inner, Timekeeper) else own
        #: The time that all workers agree on: that of the ledger's server, where it has a clock.
        self._shared: Callable[[], float] = companion.now if isinstance(companion, Timekeeper) else own
        self._limits = Limits(companion, lease=options.lease, now=self._shared, rand=rand)

    # -- Broker

    async def open(self) -> None:
        """See ``Broker.open``."""
        await self._inner.open()
        if self._companion is not self._inner:
            await self._companion.open()

    async def close(self) -> None:
        """See ``Broker.close``."""
        if self._claims is not None:
            await self._claims.settled()
        await self._inner.close()
        if self._companion is not self._inner:
            await self._companion.close()

    async def declare(self, queues: Sequence[str]) -> None:
        """See ``Broker.declare``."""
        await self._inner.declare(queues)

    async def publish(self, messages: Sequence[Message]) -> None:
        """See ``Broker.publish``."""
        await self._inner.publish(messages)

    async def claim(self, queues: Sequence[str], *, limit: int, wait: float) -> Sequence[Delivery]:
        """See ``Broker.claim``."""
        if self._claims is not None:
            return await self._claims.claim(queues, limit, wait)
        taken: Sequence[Delivery] = await self._inner.claim(queues, limit=limit, wait=wait)
        return taken

    async def settle(self, settlements: Sequence[Settlement]) -> Sequence[Settlement]:
        """See ``Broker.settle``."""
        refused: Sequence[Settlement] = await self._inner.settle(settlements)
        await self._limits.settled([each.delivery for each in settlements])
        return refused

    async def extend(self, deliveries: Sequence[Delivery]) -> Sequence[Delivery]:
        """See ``Broker.extend``."""
        lost: Sequence[Delivery] = await self._inner.extend(deliveries)
        gone = {each.token for each in lost}
        if self.traits.requeues:
            # Nobody else can renew what a connection holds; but that of a child that is busy is still there.
            gone -= {each.token for each in lost if isinstance(each.message, Malformed)}
        await self._limits.renewed([each for each in deliveries if each.token not in gone])
        if lost:
            await self._limits.settled(lost)
        return lost

    async def orphans(self, owner: str) -> Sequence[Delivery]:
        """See ``Broker.orphans``."""
        held: Sequence[Delivery] = await self._inner.orphans(owner)
        return held

    async def maintain(self) -> float:
        """See ``Broker.maintain``; of the ledger's server too, now and then, where it does not clean up by itself."""
        pause: float = await self._inner.maintain()
        if self._cleans_at is not None and time.monotonic() >= self._cleans_at:
            self._cleans_at = time.monotonic() + _CLEAN
            try:
                await self._companion.maintain()
            except OperationalError as error:
                logger.debug("Cannot look after the ledger: %s", error)
        return pause

    async def depth(self, queues: Sequence[str]) -> Mapping[str, Depth]:
        """See ``Broker.depth``."""
        depth: Mapping[str, Depth] = await self._inner.depth(queues)
        return depth

    async def purge(self, queue: str) -> int:
        """See ``Broker.purge``. Whoever wants the lock of a dropped task is told that it is free."""
        count: int = await self._inner.purge(queue)
        if self._companion is not self._inner:
            await self._companion.change_ledger([purged(queue)])
        return count

    async def dead(self, *, limit: int = 100, queue: str | None = None) -> Sequence[DeadRecord]:
        """See ``Broker.dead``."""
        letters: Sequence[DeadRecord] = await self._inner.dead(limit=limit, queue=queue)
        return letters

    # -- Rules

    @property
    def epoch(self) -> int:
        """See ``Rules.epoch``."""
        epoch: int = self._inner.epoch if self._claims is None else self._claims.epoch
        return epoch

    @epoch.setter
    def epoch(self, epoch: int) -> None:
        (self._inner if self._claims is None else self._claims).epoch = epoch

    async def rules(self, after: int = 0) -> RulesRead:
        """See ``Rules.rules``."""
        read: RulesRead = await self._companion.rules(after)
        return read

    async def set_rules(self, changes: Sequence[RuleChange]) -> int:
        """See ``Rules.set_rules``."""
        epoch: int = await self._companion.set_rules(changes)
        return epoch

    async def withdraw(self, ids: Collection[str], queues: Sequence[str]) -> Sequence[Delivery]:
        """See ``Rules.withdraw``. A broker that cannot look into its queues finds nothing: what is revoked there is
        refused when it is claimed."""
        if not isinstance(self._inner, Rules):
            return ()
        return await self._inner.withdraw(ids, queues)

    # -- Ledger

    async def read_ledger(self, keys: Sequence[str]) -> Sequence[bytes | None]:
        """See ``Ledger.read_ledger``."""
        values: Sequence[bytes | None] = await self._companion.read_ledger(keys)
        return values

    async def change_ledger(self, changes: Sequence[Change]) -> Sequence[bool]:
        """See ``Ledger.change_ledger``."""
        made: Sequence[bool] = await self._companion.change_ledger(changes)
        return made

    # -- Limiter

    async def permit(self, asks: Sequence[Ask]) -> Sequence[Permit]:
        """See ``Limiter.permit``. Nothing is PARKED: what gets no seat may ask LATER."""
        permits = await self._limits.permit(asks)
        # Told in the time by which its due time will be looked at.
        ahead = self._local() - self._shared()
        return [replace(each, due=each.due + ahead) if each.due else each for each in permits]

    async def freed(self, seats: Sequence[Seats], forgone: Sequence[Ask] = ()) -> None:
        """See ``Limiter.freed``. Nobody is woken: those without a seat come by themselves."""
        if forgone:
            await self._limits.settled([ask.delivery for ask in forgone], forgone)


class _OnBus:
    """``Bus``, where the server of the queues has one."""

    _inner: Any

    async def emit(self, exchange: str, routing_key: str, payload: Any, headers: Mapping[str, Any]) -> None:
        """See ``Bus.emit``."""
        await self._inner.emit(exchange, routing_key, payload, headers)

    def listen(self, exchange: str) -> AsyncIterator[tuple[Any, Mapping[str, Any]]]:
        """See ``Bus.listen``."""
        heard: AsyncIterator[tuple[Any, Mapping[str, Any]]] = self._inner.listen(exchange)
        return heard

    async def reply(self, exchange: str, routing_key: str, payload: Any, headers: Mapping[str, Any]) -> None:
        """See ``Bus.reply``."""
        await self._inner.reply(exchange, routing_key, payload, headers)


class _Clocked:
    """``Timekeeper``, where the server of the queues has a clock."""

    _inner: Any

    def now(self) -> float:
        """See ``Timekeeper.now``."""
        now: float = self._inner.now()
        return now


class _Finishing:
    """``Unified``, where the server of the queues keeps the results."""

    _inner: Any
    _companion: Any
    _limits: Limits

    async def finish(self, completions: Sequence[Completion]) -> Sequence[Verdict]:
        """See ``Unified.finish``. What frees a lock on another server is STEPWISE: no step could do both."""
        apart = self._companion is not self._inner
        atomic = [each for each in completions if not (apart and each.frees)]
        verdicts = iter(await self._inner.finish(atomic) if atomic else ())
        found = [Verdict.STEPWISE if apart and each.frees else next(verdicts) for each in completions]
        over = {Verdict.DONE, Verdict.FENCED}
        done = [each.settlement.delivery for each, verdict in zip(completions, found, strict=True) if verdict in over]
        await self._limits.settled([each for each in done if each is not None])
        return found


class _Checking:
    """``Particular``, where the server of the queues is."""

    _inner: Any

    def check(self, message: Message) -> None:
        """See ``Particular.check``."""
        self._inner.check(message)


_KINDS: tuple[tuple[Any, type], ...] = (
    (Bus, _OnBus),
    (Particular, _Checking),
    (Timekeeper, _Clocked),
    (Unified, _Finishing),
)


def _time() -> float:
    """Looked up at each call: simulations replace it."""
    return time.time()
