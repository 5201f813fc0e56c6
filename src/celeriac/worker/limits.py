"""Asks the server whether limited tasks may run, and tells it when their seats are free.

On the I/O loop, but for keys whose arguments lie in a payload store. The fetcher calls ``permit`` before it hands
limited deliveries over, and ``forgo`` for those that end without; child and agent call ``ended`` and ``buried`` when
deliveries are over. It knows what a limit is made of; who may run is the server's word.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Callable, Sequence
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from celeriac.codec.body import NO_EMBED
from celeriac.codec.failures import format_traceback
from celeriac.exceptions import (
    ContentDisallowed,
    DecodeError,
    InvalidTaskError,
    MessageTooLarge,
    OperationalError,
    PayloadLost,
)
from celeriac.model import outcome as o
from celeriac.model.limits import Ask, Permission, Permit, Rate, Seats, seat_of
from celeriac.model.message import Delivery, Malformed, Message
from celeriac.model.options import TaskOptions
from celeriac.model.settle import Completion, Release
from celeriac.ports import Broker, Clock, Limiter
from celeriac.worker.closer import Aside
from celeriac.worker.concluding import is_far
from celeriac.worker.outage import Outage
from celeriac.worker.runner import STORE_AWAY, Runner

__all__ = ["Limits", "Permitted"]

#: Longer keys, in bytes, are hashed.
_LONGEST_KEY = 200

logger = logging.getLogger("celery.worker")


class Permitted(Struct):
    """What becomes of limited deliveries."""

    go: list[Delivery]
    #: Those that wait for their time, and those whose keys cannot be told.
    concluded: list[Completion]
    #: No longer held here: parked in the server, or lost.
    gone: list[Delivery]
    #: How many of ``go`` have a seat.
    seated: int = 0


class Limits:
    """The limits of one process. Where the broker cannot keep any there are none: such a node does not start."""

    def __init__(self, broker: Broker, runner: Runner, aside: Aside = asyncio.to_thread) -> None:
        """``aside`` reads arguments that lie in a payload store."""
        self._limiter: Limiter | None = broker if isinstance(broker, Limiter) else None
        self._runner = runner
        self._aside = aside
        #: Token → the seat that its delivery has.
        self._seats: dict[str, Seats] = {}
        self._freed: set[Seats] = set()
        #: Deliveries that will not ask: what is kept for them is given up.
        self._forgone: list[Delivery] = []
        self._waking: asyncio.Task[None] | None = None
        #: Some task has ``max_concurrency``.
        self.seated = any(task.max_concurrency is not None for task in runner.app.tasks.values())

    async def permit(self, deliveries: Sequence[Delivery]) -> Permitted:
        """Who may run now. Raises ``OperationalError``; what was judged then is judged again."""
        permitted = Permitted([], [], [])
        asks: list[Ask] = []
        for delivery, asked in zip(deliveries, await self._each(self._ask, deliveries), strict=True):
            if isinstance(asked, Ask):
                asks.append(asked)
            elif asked is not None:
                permitted.concluded.append(asked)
            else:
                permitted.go.append(delivery)
        if not asks or self._limiter is None:
            permitted.go.extend(ask.delivery for ask in asks)
            return permitted
        for ask, permit in zip(asks, await self._limiter.permit(asks), strict=True):
            delivery = ask.delivery
            if permit.permission is Permission.GO:
                permitted.go.append(delivery)
                if ask.seats is not None:
                    self._seats[delivery.token] = ask.seats
                    permitted.seated += 1
            elif permit.permission is Permission.LATER:
                permitted.concluded.append(_later(delivery, permit))
            else:
                permitted.gone.append(delivery)
        return permitted

    async def permitted(
        self, deliveries: Sequence[Delivery], backoff: Outage, stopping: Callable[[], bool], clock: Clock
    ) -> Permitted | None:
        """``permit``, however long the broker is away; None when ``stopping()`` is true before it has answered."""
        while not stopping():
            try:
                return await self.permit(deliveries)
            except OperationalError as error:
                delay = backoff.next()
                count = len(deliveries)
                backoff.tell(
                    logger, "Cannot ask for the limits of %d tasks, next try in %.1f s: %s", count, delay, error
                )
                await clock.sleep(delay)
        return None

    async def _each(self, look: Callable[[Delivery], Any], deliveries: Sequence[Delivery]) -> list[Any]:
        """What ``look`` says to each; on threads where it reads from a payload store."""
        far = [each for each in deliveries if is_far(self._runner, each) and self._is_keyed(each)]
        read = await asyncio.gather(*(self._aside(look, each) for each in far)) if far else ()
        known = dict(zip((each.token for each in far), read, strict=True))
        return [known[each.token] if each.token in known else look(each) for each in deliveries]

    def _is_keyed(self, delivery: Delivery) -> bool:
        entry = self._runner.entry(delivery.message.task)
        return entry is not None and not (entry.options.rate_key is None and entry.options.concurrency_key is None)

    def _ask(self, delivery: Delivery) -> Ask | Completion | None:
        """What to ask for a delivery; None: nothing, it runs as it is; a completion when its key cannot be told."""
        try:
            return self._limits_of(delivery)
        except OperationalError:  # of the payload store: nobody knows yet which limit it is
            return self._runner.conclude(delivery, o.Postponed(STORE_AWAY), embed=NO_EMBED)
        except Exception as error:  # noqa: BLE001 - the user's callable
            return self._runner.conclude(delivery, o.Failure(error, format_traceback(error)))

    def _limits_of(self, delivery: Delivery) -> Ask | None:
        """None when there are none, or what they depend on cannot be read. Raises what the user's key raises."""
        message = delivery.message
        entry = self._runner.entry(message.task)
        if entry is None or isinstance(message, Malformed):
            return None
        options = entry.options
        own = _own_seat(options, message)
        if own is not None:
            self.seated = True
        arguments: tuple[Any, Any] | None = None
        if options.rate_key is not None or options.concurrency_key is not None:
            try:
                args, kwargs, _ = self._runner.decoded(message)
            except (DecodeError, ContentDisallowed, MessageTooLarge, InvalidTaskError, PayloadLost):
                return None  # the runner will say why
            arguments = args, kwargs
        return Ask(delivery, _rate(options, arguments), own or _seats(options, arguments))

    def ended(self, deliveries: Sequence[Delivery]) -> None:
        """These are over, however: who waits for their seats is woken soon."""
        if self._seats:
            self.free({seats for each in deliveries if (seats := self._seats.pop(each.token, None)) is not None})

    def buried(self, deliveries: Sequence[Delivery]) -> None:
        """As ``ended``, for deliveries that another process held, or that nobody had asked for."""
        if self.seated:
            self.free(set(), [each for each in deliveries if self._has_seats(each)])

    def forgo(self, deliveries: Sequence[Delivery]) -> None:
        """These will not ask, or not now: a seat that was kept for one is given to the next."""
        if self.seated:
            self.free(set(), [each for each in deliveries if each.token not in self._seats and self._has_seats(each)])

    def _has_seats(self, delivery: Delivery) -> bool:
        entry = self._runner.entry(delivery.message.task)
        return entry is not None and (
            entry.options.max_concurrency is not None or seat_of(delivery.message) is not None
        )

    def _seats_of(self, delivery: Delivery) -> Seats | None:
        message, signer = delivery.message, self._runner.signer
        if signer is not None and not isinstance(message, Malformed) and signer.refusal(message) is not None:
            return None  # nobody has checked it before: a stranger's is not decoded, and never had a seat
        try:
            ask = self._limits_of(delivery)
        except Exception:  # noqa: BLE001 - the user's callable; such a delivery never had a seat
            return None
        return None if ask is None else ask.seats

    def free(self, seats: set[Seats], forgone: Sequence[Delivery] = ()) -> None:
        """Tell the server, all at once what comes while it answers."""
        self._freed |= seats
        self._forgone += forgone
        if (self._freed or self._forgone) and self._waking is None:
            self._waking = asyncio.ensure_future(self._wake())

    async def _wake(self) -> None:
        try:
            while (self._freed or self._forgone) and self._limiter is not None:
                freed, self._freed = self._freed, set()
                forgone, self._forgone = self._forgone, []
                found = await self._each(self._seats_of, forgone)
                asks = [Ask(each, None, seats) for each, seats in zip(forgone, found, strict=True) if seats is not None]
                if freed or asks:
                    await self._limiter.freed(list(freed), asks)
        except OperationalError as error:
            logger.debug("Cannot wake who waits for a seat, maintenance will: %s", error)
        finally:
            self._waking = None


def _rate(options: TaskOptions, arguments: tuple[Any, Any] | None) -> Rate | None:
    if options.rate is None:
        return None
    return Rate(_key(options.name, options.rate_key, arguments), 1.0 / options.rate)


def _own_seat(options: TaskOptions, message: Message) -> Seats | None:
    """The seat that the message itself asks for. A limit of its task's own comes first: there is one seat a run."""
    return seat_of(message) if options.max_concurrency is None else None


def _seats(options: TaskOptions, arguments: tuple[Any, Any] | None) -> Seats | None:
    if options.max_concurrency is None:
        return None
    return Seats(_key(options.name, options.concurrency_key, arguments), options.max_concurrency)


def _key(name: str, make: Callable[..., Any] | None, arguments: tuple[Any, Any] | None) -> str:
    if make is None or arguments is None:
        return name
    args, kwargs = arguments
    # Whatever the arguments hold: servers take names that are valid Unicode and not too long.
    data = str(make(*args, **kwargs)).encode("utf-8", "backslashreplace")
    key = data.decode() if len(data) <= _LONGEST_KEY else hashlib.sha256(data).hexdigest()
    return f"{name}[{key}]"


def _later(delivery: Delivery, permit: Permit) -> Completion:
    """Back until its turn comes; it keeps its place in the line then, where it has one."""
    marks, reserved = delivery.marks, permit.reserved
    changed = None if marks.reserved == reserved else replace(marks, reserved=reserved)
    return Completion(settlement=Release(delivery, due=permit.due, marks=changed))
