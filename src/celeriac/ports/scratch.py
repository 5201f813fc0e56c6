"""A place of its own on a server that is in use, for ``celeriac broker test``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

__all__ = ["Scratch"]


class Scratch(Protocol):
    """Made by ``scratch(url, options, name)`` of an adapter's module, where it can: nothing in it is anybody else's."""

    #: Where adapters reach it, and the fields of ``AdapterOptions`` that lead there.
    url: str
    options: Mapping[str, Any]
    #: What it puts there, for people: ``keys celeriac-test-1:*``.
    what: str
    #: A URL like it behind which nothing answers, with the password ``s3cret-word`` where URLs have one; or None.
    unreachable: str | None
    #: Messages with a due time that a plain ``Publisher`` sends go to the schedule (not so in Celery's layout).
    publisher_schedules: bool
    #: Queues and results lie together, so that one step may write both, and limited tasks wait there.
    one_server: bool

    def exempt(self, beside: bool) -> Mapping[str, str]:
        """Sentences that this server cannot keep, and why (``Harness.exempt``); ``beside``: with the ledger of another
        beside it."""
        ...

    def inject(self, queue: str, raw: bytes) -> None:
        """Put bytes behind the messages of a queue."""
        ...

    def clear(self) -> None:
        """Take away what was made there, and nothing else. Idempotent. Raises ``OperationalError``."""
        ...
