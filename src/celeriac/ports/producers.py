"""The blocking side of brokers: for producers, for control, for whoever looks after dead letters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from celeriac.exceptions import OperationalError
from celeriac.model.dead import DeadFilter, DeadPage, DeadRecord, Replay, Stayed
from celeriac.model.ledger import Change
from celeriac.model.message import Message
from celeriac.model.rules import RuleChange, RulesRead
from celeriac.ports.facts import Depth

__all__ = [
    "STAGE_EXPIRES",
    "BlockingLedger",
    "Caller",
    "DeadLetters",
    "EachPublisher",
    "OncePublisher",
    "Publisher",
    "RulesDesk",
    "Stepwise",
    "Timed",
]


class Publisher(Protocol):
    """Blocking publishing for ``delay()``: thread-safe, survives forks and broken connections."""

    def publish(self, messages: Sequence[Message], *, timeout: float) -> None:
        """Durable when it returns. ``OperationalError`` within ``timeout`` seconds otherwise; its text never holds a
        password. All or none where the server can (Redis, SQLite, PostgreSQL)."""
        ...

    def stage(self, messages: Sequence[Message], *, stage: str, timeout: float) -> None:
        """Put messages aside under the name ``stage``, behind those of earlier calls: nobody can claim or purge them.
        They are forgotten, all together, ``STAGE_EXPIRES`` seconds after the last call, at the earliest."""
        ...

    def launch(self, stage: str, *, count: int, timeout: float) -> None:
        """Publish the ``count`` messages of a stage in one step, in order. ``OperationalError`` when there are not so
        many, and nothing is published."""
        ...

    def publish_if(
        self, message: Message, changes: Sequence[Change], *, timeout: float
    ) -> Sequence[bytes | None] | None:
        """Publish a message and make changes of the ledger in one atomic step, or nothing of it when one of the keys
        does not hold what is expected. None: it is published, else what stands under the keys. A key of a change
        appears once. ``OperationalError`` as ``publish``; when ``uncertain``, both may have happened, never one."""
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


@runtime_checkable
class OncePublisher(Protocol):
    """A ``Publisher`` with a ledger may have this: many messages in one call, each under a key of its own."""

    def publish_once(self, messages: Mapping[str, Message], *, expires: float, timeout: float) -> Sequence[str]:
        """Publish each message whose key holds nothing, and write the key for ``expires`` seconds in the same step; in
        order. Returns the keys of those that are published now. ``OperationalError`` as ``Publisher.publish``: any of
        them may be, and is not again when the call is repeated."""
        ...


@runtime_checkable
class EachPublisher(Protocol):
    """A ``Publisher`` whose ``publish_if`` is one step may have this: many such steps in one call."""

    def publish_each_if(
        self, sendings: Sequence[tuple[Message, Sequence[Change]]], *, timeout: float
    ) -> Sequence[Sequence[bytes | None] | OperationalError | None]:
        """``publish_if`` for each: a message with its changes, or neither, whatever becomes of the others. Returns the
        answer to each; where the server can, an ``OperationalError`` for one that it refuses. Raises
        ``OperationalError`` as ``publish``; when ``uncertain``, any may have happened, each whole or not, else none.
        A message that cannot be encoded raises ``TypeError`` or ``ValueError``, and nothing of the call happens."""
        ...


#: Seconds for which a stage waits for its producer's next call.
STAGE_EXPIRES = 3600.0


@runtime_checkable
class RulesDesk(Protocol):
    """The blocking side of ``Rules``; a ``Publisher`` may have it. Safe in threads."""

    def rules(self, prefix: str, *, timeout: float) -> RulesRead:
        """All rules in force whose keys begin with ``prefix``."""
        ...

    def set_rules(self, changes: Sequence[RuleChange], *, timeout: float) -> int:
        """As ``Rules.set_rules``, within ``timeout`` seconds."""
        ...


class DeadLetters(Protocol):
    """Blocking access to the dead letters, for ``app.dead_letters`` and the CLI: thread-safe. A broker without it lets
    nobody look. The first page begins at the newest letter."""

    def page(self, wanted: DeadFilter, *, limit: int, after: str = "", timeout: float) -> DeadPage:
        """The next letters that are wanted, the newest first, up to ``limit``, behind the page whose ``after`` is
        given.

        Looks at a bounded number of letters and bytes: a page may hold few or none while more follows; ``after`` is
        empty only at the end. Who follows ``after`` sees each letter that stays exactly once, whatever is added and
        dropped meanwhile. One that is added meanwhile is not seen.
        """
        ...

    def get(self, keys: Sequence[str], *, timeout: float) -> Sequence[DeadRecord | None]:
        """The letters of these keys, None where there is none."""
        ...

    def replay(self, replays: Sequence[Replay], *, timeout: float) -> Sequence[Stayed]:
        """Publish each message, make its change of the ledger and drop its letter, all in one step or nothing: whoever
        is killed here has lost nothing and sent nothing twice. Returns those of which nothing happened, for the letter
        is not there or its change is not allowed. When only the answer was lost, the letter is told as sent, or
        ``OperationalError`` is ``uncertain``. ``due`` as in ``Publisher.publish``. A header that cannot be encoded
        raises ``TypeError`` or ``ValueError``, and nothing of the call happens."""
        ...

    def drop(self, keys: Sequence[str], *, timeout: float) -> int:
        """Forget letters; returns how many there were."""
        ...

    def close(self) -> None:
        """Give the connections back. Idempotent; a later call connects anew."""
        ...


class BlockingLedger(Protocol):
    """Blocking access to the ledger of a server, for the steps of running tasks: thread-safe, survives forks."""

    def read(self, keys: Sequence[str], *, timeout: float) -> Sequence[bytes | None]:
        """As ``Ledger.read_ledger``."""
        ...

    def change(self, changes: Sequence[Change], *, timeout: float) -> Sequence[bool]:
        """As ``Ledger.change_ledger``."""
        ...

    def close(self) -> None:
        """Give the connections back. Idempotent; a later call connects anew."""
        ...


@runtime_checkable
class Timed(Protocol):
    """A ``BlockingLedger`` whose server has a clock of its own may have this."""

    def time(self, *, timeout: float) -> float:
        """The server's time, in seconds since the epoch."""
        ...


@runtime_checkable
class Stepwise(Protocol):
    """A ``Publisher`` whose ``publish_if`` takes several steps, of which a crash may leave some, says so by this."""

    stepwise: bool


class Caller(Protocol):
    """Blocking side of remote control, for ``app.control`` and the CLI."""

    def call(
        self, request: Mapping[str, Any], *, timeout: float, limit: int | None = None, reply: bool = True
    ) -> Sequence[Mapping[str, Any]]:
        """Broadcast a request body (``celery-wire.md`` §3.7; ``ticket`` and ``reply_to`` are filled in here unless the
        request has its own, which a signature covers) and collect replies until ``timeout`` seconds passed or ``limit``
        came. Without ``reply`` returns at once."""
        ...

    def close(self) -> None: ...
