"""The protocols that adapters implement. Every sentence here is a test in ``celeriac.testing.conformance``.

Asynchronous ports are used from one event loop, by workers: batch-first. Blocking ports are used by producers:
safe in threads, after forks and in greenlets. All raise ``OperationalError`` when the server cannot be reached or
refuses, never a driver's error; none hangs: blocking calls take a timeout in seconds.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from msgspec import Struct

from celeriac.model.chord import Closing, Gathered, NewChord, Part
from celeriac.model.message import Delivery, Message
from celeriac.model.settle import Completion, Settlement, StoredResult, Verdict

__all__ = [
    "CHORD_DONE",
    "CHORD_LOOK",
    "AdapterOptions",
    "Broker",
    "Bus",
    "Caller",
    "Clock",
    "DeadRecord",
    "Depth",
    "Publisher",
    "Reader",
    "ResultStore",
    "Timekeeper",
    "Traits",
    "Unified",
]


class Clock(Protocol):
    """Where time comes from."""

    def now(self) -> float:
        """Seconds since the epoch."""
        ...

    def monotonic(self) -> float:
        """Seconds of a clock that never jumps."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Suspend the current coroutine."""
        ...


class AdapterOptions(Struct, frozen=True, kw_only=True):
    """What an adapter is told besides its URL; all times in seconds."""

    #: Identifies the child that claims, part of every token: no other process ever uses it.
    owner: str = ""
    #: A delivery that was not extended for so long may go to another child.
    lease: float = 30.0
    #: Redis: age at which deliveries held by Celery workers are restored.
    visibility_timeout: float = 3600.0
    #: Redis: in front of every key and channel.
    key_prefix: str = ""
    dead_letter_expires: float = 14 * 86400.0
    dead_letter_limit: int = 10_000
    connect_timeout: float = 4.0
    #: Most connections a blocking adapter keeps.
    pool_limit: int = 10
    max_message_bytes: int = 32 * 1024 * 1024
    #: How long the one who completes a chord has to send its body before another may.
    chord_token: float = 10.0
    #: ``broker_transport_options`` or ``result_backend_transport_options`` as given.
    transport: Mapping[str, Any] = {}
    #: Time zone name for naive times in messages.
    zone: str = "UTC"
    #: ``broker_use_ssl`` or ``redis_backend_use_ssl`` as given.
    ssl: Mapping[str, Any] | bool | None = None


class Traits(Struct, frozen=True, kw_only=True):
    """What a broker can do, for those who must know."""

    #: Survives a restart of its process.
    durable: bool
    #: Keeps messages with a due time itself.
    native_delay: bool
    #: ``(server kind, address)``: equal for broker and store when they can finish plans in one step.
    server: tuple[str, str]


class Depth(Struct, frozen=True, kw_only=True):
    """How full a queue is."""

    ready: int = 0
    scheduled: int = 0
    leased: int = 0
    dead: int = 0
    #: Age in seconds of the oldest ready message where the server knows it, else None.
    oldest: float | None = None


class DeadRecord(Struct, frozen=True, kw_only=True):
    """One dead letter as it is read back."""

    key: str
    id: str
    task: str
    queue: str
    reason: str
    detail: str
    exception: str
    traceback: str
    worker: str
    at: float
    crashes: int
    raw: bytes


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
        waiting claim loses nothing. A message that a plain producer of Celery's layout put on ready may come before its
        ``due``: the caller releases it.
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
        """Due → ready; expired leases → ready with their marks advanced; dead letters past their time or number
        dropped. Any number of maintainers at once do no harm. Returns the seconds until it is useful again (0 or more,
        finite): not long after the end of a lease that nobody has renewed for a while.

        A delivery whose lease ran out goes to the front, redelivered: ``expired_leases`` + 1 and ``suspect``, without a
        crash. Only one that was suspect before, and the only delivery its owner held, gets ``crashes`` + 1. What is
        malformed goes back unchanged."""
        ...

    async def depth(self, queues: Sequence[str]) -> Mapping[str, Depth]:
        """How full each queue is."""
        ...

    async def purge(self, queue: str) -> int:
        """Drop all ready and scheduled messages of a queue; returns how many."""
        ...

    async def dead(self, *, limit: int = 100, queue: str | None = None) -> Sequence[DeadRecord]:
        """The newest dead letters, the newest first. ``raw`` holds the bytes as they were stored."""
        ...


@runtime_checkable
class Timekeeper(Protocol):
    """A server with a clock of its own, which counts where due times are compared. Without one it is the machine's."""

    def now(self) -> float:
        """The server's time as of the last claim, carried on by the monotonic clock: seconds since the epoch, never
        ahead of the server. Before the first claim: the machine's time. Asks nobody."""
        ...


@runtime_checkable
class Unified(Protocol):
    """Broker and result store on one server: finish plans atomically, many at a time."""

    async def finish(self, completions: Sequence[Completion]) -> Sequence[Verdict]:
        """Per completion: nothing when the delivery's token or that of the chord to close is gone (FENCED); else open
        chords, publish, store, join, close and settle in one atomic step. Verdicts come in the order of the
        completions; one that cannot be written does not disturb the others.

        A completion whose parts make chords complete takes their tokens, as ``ResultStore.join`` does with the
        delivery's token as ``token``, and is not settled: COMPLETES. Tried again, because the answer was lost, it
        COMPLETES again, and where answers can be lost its follow-ups are not published a second time. When several
        completions of one call join the same chord, the last of them completes it. A ``Hold`` without a delivery has no
        token of its own: its parts complete nothing here, the sweeper finds them (``ResultStore.overdue``).
        """
        ...


class ResultStore(Protocol):
    """Result records of workers. Records are opaque bytes to it."""

    traits: Traits

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    async def put(self, results: Sequence[StoredResult]) -> None:
        """Write records and wake their waiters. A record that is not terminal never replaces a stored SUCCESS; it does
        replace any other."""
        ...

    async def get(self, ids: Sequence[str]) -> Sequence[bytes | None]:
        """The records, None where there is none."""
        ...

    async def forget(self, ids: Sequence[str]) -> None:
        """Drop records."""
        ...

    async def sweep(self) -> int:
        """Drop expired records where the server does not do so itself; returns how many."""
        ...

    # -- chords: model/chord.py has the values

    async def open_chords(self, chords: Sequence[NewChord]) -> None:
        """Write chords before their members are sent. A chord that is there begins anew: whatever was joined or done
        under that id is forgotten, but not its members' ``grow``."""
        ...

    async def join(self, parts: Sequence[Part], *, token: str) -> Sequence[str]:
        """Add members to their chords, each ``(id, index)`` once: a later value of the same member is dropped. A member
        that is added makes its chord wait for ``Part.grows`` more. Parts that come before their chord is opened are
        kept; parts of a chord that is done are dropped, and so are those without a body of a chord that nobody opened.
        The life time of an opened chord is its own; ``Part.expires`` counts before that.

        Returns the ids of the chords that are complete now, were it by earlier calls, and whose token the caller holds
        from now on. Another one gets it when the holder's time is over (``AdapterOptions.chord_token`` seconds), or,
        where deliveries are on the same server, as soon as the delivery of that token is settled or restored. Who
        holds it already gets it again."""
        ...

    async def gather(self, chord: str, *, token: str) -> Gathered | None:
        """The complete chord, when ``token`` holds it; else None. Renews the token's time."""
        ...

    async def close_chord(self, closing: Closing) -> bool:
        """Forget the chord's members and remember for ``CHORD_DONE`` seconds that it is done, when the token still
        holds it; False when it does not, and nothing changes. For stores that are not the broker's server."""
        ...

    async def grow_chord(self, chord: str, by: int) -> None:
        """The chord waits for so many members more (``Task.add_to_chord``)."""
        ...

    async def overdue(self, *, token: str, limit: int = 10) -> Sequence[Gathered]:
        """Complete chords that nobody is about to close, found without any of their members: takes their tokens, as
        ``join`` does (``token`` is new, and none of a delivery). Any number of sweepers at once do no harm; cheap when
        there are none. A chord is looked at for
        the first time ``AdapterOptions.chord_token`` seconds after it was opened or first joined, then that long after
        its token was taken, and every ``CHORD_LOOK`` seconds while it is incomplete."""
        ...


#: Seconds between two looks at an incomplete chord, and for which a closed chord refuses late members.
CHORD_LOOK = 30.0
CHORD_DONE = 300.0


class Publisher(Protocol):
    """Blocking publishing for ``delay()``: thread-safe, survives forks and broken connections."""

    def publish(self, messages: Sequence[Message], *, timeout: float) -> None:
        """Durable when it returns. ``OperationalError`` within ``timeout`` seconds otherwise; its text never holds a
        password. All or none where the server can (Redis, SQLite, PostgreSQL)."""
        ...

    def purge(self, queue: str, *, timeout: float) -> int:
        """As ``Broker.purge``."""
        ...

    def depth(self, queues: Sequence[str], *, timeout: float) -> Mapping[str, Depth]:
        """As ``Broker.depth``."""
        ...

    def close(self) -> None:
        """Give the connections back. Idempotent; a later call connects anew."""
        ...


class Reader(Protocol):
    """Blocking access to results for ``.get()`` and ``update_state``: thread-safe, survives forks."""

    def get(self, ids: Sequence[str], *, timeout: float) -> Sequence[bytes | None]:
        """The records, None where there is none."""
        ...

    def wait(self, ids: Sequence[str], *, timeout: float | None) -> str | None:
        """Block until a record of one of the ids is written; returns that id, or None when the time is up. May wake
        early and without a reason: the caller reads the record and decides. Notices terminal records written before the
        call at once; one that is not terminal and was there before must not wake the caller again and again.
        After a lost connection it reconnects and reads again."""
        ...

    def put(self, results: Sequence[StoredResult], *, timeout: float) -> None:
        """As ``ResultStore.put``."""
        ...

    def forget(self, ids: Sequence[str], *, timeout: float) -> None: ...

    def open_chords(self, chords: Sequence[NewChord], *, timeout: float) -> None:
        """As ``ResultStore.open_chords``."""
        ...

    def grow_chord(self, chord: str, by: int, *, timeout: float) -> None:
        """As ``ResultStore.grow_chord``."""
        ...

    def save_group(self, group: str, body: bytes, *, expires: float | None, timeout: float) -> None:
        """Keep a group's result tuple (``GroupResult.save``), under Celery's key where the server has Celery's
        layout; ``expires`` in seconds, None: for ever."""
        ...

    def load_group(self, group: str, *, timeout: float) -> bytes | None:
        """What ``save_group`` has kept."""
        ...

    def drop_group(self, group: str, *, timeout: float) -> None:
        """Forget what ``save_group`` has kept."""
        ...

    def close(self) -> None:
        """Give the connections back. Idempotent; a later call connects anew."""
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


class Caller(Protocol):
    """Blocking side of remote control, for ``app.control`` and the CLI."""

    def call(
        self, request: Mapping[str, Any], *, timeout: float, limit: int | None = None, reply: bool = True
    ) -> Sequence[Mapping[str, Any]]:
        """Broadcast a request body (``celery-wire.md`` §3.7; ``ticket`` and ``reply_to`` are filled in here) and
        collect replies until ``timeout`` seconds passed or ``limit`` came. Without ``reply`` returns at once."""
        ...

    def close(self) -> None: ...
