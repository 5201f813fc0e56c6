"""Brokers, as workers use them: queues, leases, schedule, and what else a server of queues may do."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from celeriac.model.dead import DeadRecord
from celeriac.model.ledger import Change
from celeriac.model.limits import Ask, Permit, Seats
from celeriac.model.message import Delivery, Message
from celeriac.model.rules import RuleChange, RulesRead
from celeriac.model.settle import Completion, Settlement, Verdict
from celeriac.ports.facts import Depth, Traits

__all__ = ["Broker", "Bus", "Ledger", "Limiter", "Particular", "Rules", "Timekeeper", "Unified"]


class Broker(Protocol):
    """Queues, leases and the schedule of one server. One instance serves one event loop."""

    traits: Traits

    async def open(self) -> None:
        """Connect. Idempotent. Later losses of the connection raise ``OperationalError`` from the call that meets them;
        the next call connects anew."""
        ...

    async def close(self) -> None:
        """Close the connections; leases stay until they expire. Idempotent. A claim that waits meanwhile ends at once
        (nothing, or ``OperationalError``); calls on a closed broker raise ``OperationalError`` until it is opened
        again."""
        ...

    async def declare(self, queues: Sequence[str]) -> None:
        """Make sure that the queues exist. Idempotent."""
        ...

    async def publish(self, messages: Sequence[Message]) -> None:
        """All messages durable, or ``OperationalError`` (then any of them may be). A message whose ``due`` is in the
        future goes to the schedule, unless the server keeps Celery's layout and the caller is a plain producer. A
        header that cannot be encoded raises ``TypeError`` or ``ValueError``, and none of the call is published."""
        ...

    async def claim(self, queues: Sequence[str], *, limit: int, wait: float) -> Sequence[Delivery]:
        """Take up to ``limit`` deliveries under leases of this owner, oldest first within a priority, first queue first
        within one priority step (the caller rotates). Messages whose time has come are taken from the schedule, the
        earliest first, never early. Priorities 0-9 are kombu's steps 0, 3, 6, 9, rounded down, the lower first, across
        all ``queues``.

        Returns fewer than ``limit`` only when no more is ready, except around suspects: an adapter may lend one alone.
        With nothing there, waits up to ``wait`` seconds for something to become ready (published, released or due),
        then returns what is there. Never raises on a malformed message: it is returned as ``Malformed``. Cancelling a
        waiting claim loses nothing: what it has taken comes with the next claim, or goes back when none follows soon.
        A message that a plain producer of Celery's layout put on ready may come before its ``due``: the caller
        releases it.
        """
        ...

    async def settle(self, settlements: Sequence[Settlement]) -> Sequence[Settlement]:
        """End deliveries. Returns those that were refused because their token is no longer held; a refused one changes
        nothing. Settling twice is a refusal, not an error. Any child may settle any held token (the agent does so for
        the dead). Deliveries released to the front in one call stand there in the order of the call."""
        ...

    async def extend(self, deliveries: Sequence[Delivery]) -> Sequence[Delivery]:
        """Renew the leases from now. Returns the lost ones. A lease that ran out counts as held until a maintainer has
        restored its delivery: until then nobody else can have it."""
        ...

    async def orphans(self, owner: str) -> Sequence[Delivery]:
        """All deliveries that a dead owner still holds, under its tokens, for the agent to settle."""
        ...

    async def maintain(self) -> float:
        """Due → ready; expired leases → ready with their marks advanced; dead letters past their time, number or total
        size dropped, the oldest first. Any number of maintainers at once do no harm. Returns the seconds until it is
        useful again (0 or more, finite): not long after the end of a lease that nobody has renewed for a while.

        A delivery whose lease ran out goes to the front, redelivered: ``expired_leases`` + 1 and ``suspect``, without a
        crash. Only one that was suspect before, and the only delivery its owner held, gets ``crashes`` + 1. What is
        malformed goes back unchanged."""
        ...

    async def depth(self, queues: Sequence[str]) -> Mapping[str, Depth]:
        """How full each queue is."""
        ...

    async def purge(self, queue: str) -> int:
        """Drop all ready, scheduled and parked messages of a queue, and the locks that their tasks hold; returns how
        many messages that were."""
        ...

    async def dead(self, *, limit: int = 100, queue: str | None = None) -> Sequence[DeadRecord]:
        """The newest dead letters, the newest first. ``raw`` holds the bytes as they were stored."""
        ...


@runtime_checkable
class Unified(Protocol):
    """Broker and result store on one server: finish plans atomically, many at a time."""

    async def finish(self, completions: Sequence[Completion]) -> Sequence[Verdict]:
        """Per completion: nothing when the delivery's token or that of the chord to close is gone (FENCED); else open
        chords, publish, store, join, close and settle in one atomic step. Verdicts come in the order of the
        completions; one that cannot be written does not disturb the others. ``frees`` drops a lock that its task
        still holds, and leaves that of another alone; a completion that is FENCED or STEPWISE frees nothing.

        A completion whose parts make chords complete takes their tokens, as ``ResultStore.join`` does with the
        delivery's token as ``token``, and is not settled: COMPLETES. Tried again, because the answer was lost, it
        COMPLETES again, and where answers can be lost its follow-ups are not published a second time. When several
        completions of one call join the same chord, the last of them completes it. A ``Hold`` without a delivery has no
        token of its own: its parts complete nothing here, the sweeper finds them (``ResultStore.overdue``).
        """
        ...


@runtime_checkable
class Limiter(Protocol):
    """A broker that limits tasks across workers. What may not run now waits in the server, never in a worker.

    ``Broker.maintain`` looks after what waits for seats: it wakes those for whom there is one, within a second of the
    moment at which a lease of a holder has ended. ``Broker.depth`` counts them as scheduled, ``Broker.purge`` drops
    them.
    """

    async def permit(self, asks: Sequence[Ask]) -> Sequence[Permit]:
        """Whether deliveries that are held here may start now, judged in their order, in one atomic step; no GO costs
        the others anything.

        LOST where the token is no longer held. PARKED where no seat is free: the delivery is no longer leased and
        waits behind those that wait for a seat of the same key in its queue, the first first. A limiter that cannot
        park (``celeriac.beside``) says LATER instead, without ``Permit.reserved``: it stays leased, and the caller
        releases it to that time, unchanged. Then LATER where the
        rate allows no start yet: ``due`` is the next free time of its bucket, which nobody else gets; the delivery
        stays leased, and the caller releases it to that time with ``Marks.reserved``. Coming back in time it is held to
        the pace alone, not to the line of those that wait. Starts keep their interval, but for ``SLACK``.

        GO takes a seat until the delivery's lease ends, however it ends. Asking again for one that has a seat is GO,
        takes no second seat and no time of its rate: a request that comes late must not end what was allowed. (What
        cannot park writes by compare-and-set, so a late request changes nothing: there the rate is asked again.)"""
        ...

    async def freed(self, seats: Sequence[Seats], forgone: Sequence[Ask] = ()) -> None:
        """Leases of holders have ended: as many of those parked as there are seats go to the front of ready, in their
        order. Their seats are kept for them for ``AdapterOptions.seat_promise`` seconds; what asks later and gets none
        waits in front. Those parked in queues that are paused (``pause:<queue>``) wait on, and others pass them.

        ``forgone`` are deliveries that will not ask, or not now: a seat that was kept for one is free as if its time
        was over."""
        ...


@runtime_checkable
class Rules(Protocol):
    """Rules of the fleet, kept beside the queues (``model/rules.py``): for workers."""

    #: The epoch of the rules at the moment of the last claim, 0 while none was ever written: a claim that takes a
    #: message after a rule was written tells that rule's epoch, or a later one. Only equality means anything to the
    #: caller. A claim that waits ends, with nothing, within a second after the rules have changed.
    epoch: int

    async def rules(self, after: int = 0) -> RulesRead:
        """The rules that were written or dropped after that epoch, in the order of their changes; all that are in force
        (``complete``) when ``after`` is 0, is none of this server's epochs, or is so old that dropped rules were
        forgotten since (``TOMBSTONE`` seconds). Expired rules may be among them: the reader looks at ``expires``."""
        ...

    async def set_rules(self, changes: Sequence[RuleChange]) -> int:
        """Write or drop rules, all or none; durable when it returns. Each change begins an epoch of its own, later than
        all before; returns the last. Of rules about revoked tasks the newest ``RULES_LIMIT`` are kept."""
        ...

    async def withdraw(self, ids: Collection[str], queues: Sequence[str]) -> Sequence[Delivery]:
        """Take the messages with these task ids that wait, are scheduled or are parked (``Limiter``) in these queues,
        under leases of this owner. Leaves all others where they are. Messages that arrive or move meanwhile may be
        missed. Looks at every message of the queues, in steps that hold the server up for a few milliseconds each."""
        ...


@runtime_checkable
class Ledger(Protocol):
    """Small values under keys, on the broker's server: compare-and-set, each with a life time. Used by workers."""

    async def read_ledger(self, keys: Sequence[str]) -> Sequence[bytes | None]:
        """What stands under each key, None where nothing does or its time is over."""
        ...

    async def change_ledger(self, changes: Sequence[Change]) -> Sequence[bool]:
        """Make changes in order, each in one atomic step and only when the key holds what is expected; for each whether
        it was made. A change that is made replaces the life time too."""
        ...


@runtime_checkable
class Particular(Protocol):
    """A broker whose server cannot hold every message that can be made. Used by workers, before they write an end."""

    def check(self, message: Message) -> None:
        """Raises ``TypeError`` or ``ValueError`` for a message that ``Broker.publish`` would refuse so. Asks nobody;
        safe in threads."""
        ...


@runtime_checkable
class Timekeeper(Protocol):
    """A server with a clock of its own, which counts where due times are compared. Without one it is the machine's."""

    def now(self) -> float:
        """The server's time as of the last claim or reading of rules, carried on by the monotonic clock: seconds since
        the epoch, never ahead of the server. Before the first: the machine's time. Asks nobody."""
        ...


@runtime_checkable
class Bus(Protocol):
    """Fan-out for events and remote control on Celery's wire: lossy, never durable. Used by workers.

    A topic is an exchange and a routing key: ``("celery.pidbox", "")``, ``("celeryev", "worker.heartbeat")``.
    Payloads are dicts in JSON, headers as in ``celery-wire.md`` §3.6 and §3.7.
    """

    async def emit(self, exchange: str, routing_key: str, payload: Any, headers: Mapping[str, Any]) -> None:
        """Send to whoever listens now."""
        ...

    def listen(self, exchange: str) -> AsyncIterator[tuple[Any, Mapping[str, Any]]]:
        """Payload and headers of everything sent from now on; reconnects by itself; ends when closed. Undecodable
        messages are skipped."""
        ...

    async def reply(self, exchange: str, routing_key: str, payload: Any, headers: Mapping[str, Any]) -> None:
        """Answer a request: to the reply queue bound to ``routing_key`` of ``exchange``."""
        ...
