"""What producers hand over and workers are lent: Message, Malformed, Delivery.

Pure values. The codec makes them from bytes; adapters carry them; ``plan`` decides about them. They are outside the
garbage collector (``gc=False``): they are made by the thousand, and none can be part of a cycle.
"""

from __future__ import annotations

from typing import Any

from msgspec import Struct

__all__ = ["MARK", "NO_MARKS", "Delivery", "Malformed", "Marks", "Message"]

#: The one header of our own: what restores have written about earlier deliveries (``Marks``, as a JSON object).
MARK = "celeriac"


class Message(Struct, frozen=True, kw_only=True, gc=False):
    """A task message: Celery protocol 2, whatever came in (``celery-wire.md`` §3.1).

    ``headers`` holds every header as it is on the wire; the typed fields repeat those that decisions are made on,
    already checked. ``body`` is the serialized and, when ``headers['compression']`` says so, compressed payload
    ``[args, kwargs, embed]``. Times are seconds since the epoch.
    """

    id: str
    task: str
    headers: dict[str, Any]
    body: bytes
    queue: str = ""
    content_type: str = "application/json"
    content_encoding: str = "utf-8"
    exchange: str = ""
    routing_key: str = ""
    #: 0-9; on Redis 0 is taken first, as in kombu.
    priority: int = 0
    correlation_id: str = ""
    reply_to: str = ""
    delivery_mode: int = 2
    #: Earliest start (header ``eta``), or None.
    due: float | None = None
    #: Latest start (header ``expires``), or None.
    expires: float | None = None
    retries: int = 0
    #: Limits of this message in seconds (header ``timelimit``), or None.
    time_limit: float | None = None
    soft_time_limit: float | None = None


class Malformed(Struct, frozen=True, kw_only=True, gc=False):
    """Bytes that are no task message, and why. Goes to the dead letters with ``raw``."""

    reason: str
    raw: bytes
    #: What could be read, for the log and the dead letter; may be empty.
    id: str = ""
    task: str = ""


class Marks(Struct, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """What is known of earlier deliveries of a message (header ``celeriac``); written on the rare restore path only."""

    #: Crashes attributed to this task.
    crashes: int = 0
    #: It was lost with a whole node, so it may be what killed the node: it is claimed alone.
    suspect: bool = False
    #: Unknown task: the moment at which it is given up, seconds since the epoch.
    parked_until: float | None = None
    #: Times the lease ran out without a known culprit.
    expired_leases: int = 0
    #: It has waited for its turn under a rate limit, and comes back when it is due.
    reserved: bool = False
    #: Token of the delivery whose crash was counted last: that verdict is about no other (``worker/verdicts.py``).
    judged: str = ""


#: Shared by all deliveries without a past.
NO_MARKS = Marks()


class Delivery(Struct, frozen=True, kw_only=True, gc=False):
    """A message lent to one child under a lease.

    ``token`` is the fencing token: the server refuses any write under a token that is no longer held.
    ``redelivered`` says that an earlier delivery may have run; ``returned`` that this process had given it back, and
    that it is not known whether another has had it since. ``raw`` is what the broker stored.
    """

    message: Message | Malformed
    token: str
    queue: str
    raw: bytes = b""
    redelivered: bool = False
    returned: bool = False
    marks: Marks = NO_MARKS
