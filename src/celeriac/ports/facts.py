"""What adapters are told, and what they tell of themselves."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol

from msgspec import Struct

__all__ = ["AdapterOptions", "BindingFacts", "Clock", "Declaration", "Depth", "ReplyQueue", "Traits"]


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


class BindingFacts(Struct, frozen=True, kw_only=True):
    """A way into a queue: an exchange as it is declared, and the key."""

    exchange: str = ""
    type: str = "direct"
    routing_key: str = ""
    durable: bool = True
    auto_delete: bool = False
    arguments: Mapping[str, Any] = {}
    exchange_arguments: Mapping[str, Any] = {}
    #: The exchange is somebody else's affair.
    undeclared: bool = False


class Declaration(Struct, frozen=True, kw_only=True):
    """A queue as the app declares it, for servers that keep declarations."""

    name: str
    durable: bool = True
    exclusive: bool = False
    auto_delete: bool = False
    arguments: Mapping[str, Any] = {}
    bindings: tuple[BindingFacts, ...] = ()
    consumer_arguments: Mapping[str, Any] = {}
    #: The queue is somebody else's affair.
    undeclared: bool = False


class ReplyQueue(Struct, frozen=True, kw_only=True):
    """Where the results of the tasks that a process sends wait for it (``rpc://``), and how they are written."""

    #: Of this process; "": it is one that only writes results.
    name: str = ""
    #: Whether this process has sent a task whose result comes here.
    used: Callable[[], bool] = bool
    #: Life of the queue without a reader, and of what is kept of it, in seconds; None: for ever.
    expires: float | None = 86400.0
    #: Results outlive a restart of the server.
    persistent: bool = False
    #: Content type and encoding of the records.
    content: tuple[str, str] = ("application/json", "utf-8")


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
    #: Of messages and tracebacks as they are stored, in all queues together.
    dead_letter_max_bytes: int = 256 * 1024 * 1024
    connect_timeout: float = 4.0
    #: Most connections a blocking adapter keeps.
    pool_limit: int = 10
    max_message_bytes: int = 32 * 1024 * 1024
    #: How long the one who completes a chord has to send its body before another may.
    chord_token: float = 10.0
    #: How long a freed seat is kept for the delivery that was woken for it. Longer, and what was revoked or purged
    #: meanwhile leaves the seat empty; shorter, and a fleet that is busy wakes others in vain.
    seat_promise: float = 5.0
    #: ``broker_transport_options`` or ``result_backend_transport_options`` as given.
    transport: Mapping[str, Any] = {}
    #: Other addresses of the same server, or of the one that takes its place: URLs, tried in this order, round and
    #: round, when the one before cannot be reached.
    alternates: Sequence[str] = ()
    #: The server whose ledger stands beside this one's queues, and what its adapter is told; "": there is none, or
    #: this server keeps its own. The resolver puts the two together (``celeriac.beside``); no adapter looks at it.
    ledger_url: str = ""
    ledger_options: AdapterOptions | None = None
    #: Time zone name for naive times in messages.
    zone: str = "UTC"
    #: ``broker_use_ssl`` or ``redis_backend_use_ssl`` as given.
    ssl: Mapping[str, Any] | bool | None = None
    #: RabbitMQ: how the app declares a queue; None, also as its answer: as a durable queue and nothing else.
    declarations: Callable[[str], Declaration | None] | None = None
    #: RabbitMQ: most seconds between two heartbeats, 0: none; the server may want fewer.
    heartbeat: float = 60.0
    #: RabbitMQ: PLAIN or EXTERNAL; None: PLAIN.
    login_method: str | None = None
    #: RabbitMQ: type of the queues in which delayed messages wait.
    delay_queue_type: str = "quorum"
    #: RabbitMQ: awaited for each new connection over which deliveries come, before the first, with what tells its
    #: descriptor (below 0: it is closed). Whoever keeps a copy of that keeps the server from giving back.
    lifeline: Callable[[Callable[[], int]], Awaitable[None]] | None = None
    #: RabbitMQ: where results go with ``rpc://``; None: to a store.
    replies: ReplyQueue | None = None


class Traits(Struct, frozen=True, kw_only=True):
    """What a broker can do, for those who must know."""

    #: Survives a restart of its process.
    durable: bool
    #: Keeps messages with a due time itself.
    native_delay: bool
    #: ``(server kind, address)``: equal for broker and store when they can finish plans in one step.
    server: tuple[str, str]
    #: Gives back by itself what a dead connection held, and tells nobody whose it was: ``Broker.orphans`` is empty.
    requeues: bool = False
    #: Values of its ledger go by themselves when their time is over, without maintenance.
    expires: bool = False


class Depth(Struct, frozen=True, kw_only=True):
    """How full a queue is."""

    ready: int = 0
    #: What waits for its time, or for a seat (``Limiter``).
    scheduled: int = 0
    leased: int = 0
    dead: int = 0
    #: Age in seconds of the oldest ready message where the server knows it, else None.
    oldest: float | None = None
