"""Counting, purging and reading dead letters, for the blocking and the asynchronous side alike.

Each function is a generator: it yields ``(script, keys, args)`` or ``(None, words, ())`` for a plain command, is sent
the reply, and returns the answer; whoever has a connection drives it.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Mapping, Sequence
from typing import Any

from celeriac.brokers.redis.endings import dead_record
from celeriac.brokers.redis.layout import Layout
from celeriac.brokers.redis.ledger_keys import change_args
from celeriac.brokers.redis.parks import queue_of
from celeriac.brokers.redis.scripts import DEPTH, LEASED, LEDGER_CHANGE, PURGE, PURGE_PARK, PURGED, Script
from celeriac.codec import envelope
from celeriac.model.ledger import lock_of
from celeriac.ports import DeadRecord, Depth

__all__ = ["Ask", "dead", "depth", "purge"]

Ask = tuple[Script | None, Sequence[Any], Sequence[Any]]

_PAGE = 500
#: Most messages that one step of a purge searches for locks.
_PURGE_PAGE = 2000
#: Milliseconds after which the server drops what a purge that broke off has left.
_KEEP_PURGED = 600_000


def depth(layout: Layout, queues: Sequence[str]) -> Generator[Ask, Any, Mapping[str, Depth]]:
    """How full each queue is."""
    names = list(dict.fromkeys(queues))
    if not names:
        return {}
    keys = [layout.dead_counts]
    for queue in names:
        keys += (layout.schedule(queue), *layout.lists(queue))
    counted = yield DEPTH, keys, [len(layout.steps), *names]
    parked = dict.fromkeys(names, 0)
    for field in (yield None, ["HKEYS", layout.parks], []):
        owner = queue_of(field)
        if owner in parked:
            parked[owner] += yield None, ["LLEN", layout.park(field.decode())], []
    leased = [0] * len(names)
    # kombu writes entries with the stdlib's json, hence with spaces, and not always for exchange "".
    ends = [end for queue in names for end in (layout.tail(queue), f", {json.dumps(queue)}]")]
    cursor: Any = 0
    while True:
        cursor, page = yield LEASED, [layout.unacked], [cursor, _PAGE, *ends]
        leased = [total + more for total, more in zip(leased, page, strict=True)]
        if int(cursor) == 0:
            break
    return {
        queue: Depth(
            ready=counted[3 * i],
            scheduled=counted[3 * i + 1] + parked[queue],
            dead=max(counted[3 * i + 2], 0),
            leased=leased[i],
        )
        for i, queue in enumerate(names)
    }


def purge(layout: Layout, ledger: Layout, queue: str) -> Generator[Ask, Any, int]:
    """Drop what waits in a queue in one step, then free its locks, which have the names of ``ledger``; returns how much
    that was."""
    fields = [field.decode() for field in (yield None, ["HKEYS", layout.parks], []) if queue_of(field) == queue]
    number = envelope.new_id()
    parks = [layout.park(field) for field in fields]
    parks_aside = [layout.purged_park(queue, number, index) for index in range(len(fields))]
    # First those that may be woken meanwhile.
    parked = (yield PURGE_PARK, [layout.parks, *parks, *parks_aside], [_KEEP_PURGED, *fields]) if fields else 0
    aside = layout.purged(queue, number)
    count = yield PURGE, [layout.schedule(queue), *layout.lists(queue), *aside], [_KEEP_PURGED]
    for key in (*(parks_aside if parked else ()), *(aside if count else ())):
        left = 1
        while left:
            left, *texts = yield PURGED, [key], [_PURGE_PAGE, envelope.LOCK_MARK]
            # What was parked has its step and its id in front.
            yield from _free(ledger, queue, [text[max(text.find(b"{"), 0) :] for text in texts])
    return int(parked) + int(count)


def _free(ledger: Layout, queue: str, texts: Sequence[bytes]) -> Generator[Ask, Any, None]:
    """Free the locks of dropped messages."""
    messages = [envelope.decode(text, queue=queue) for text in texts]
    locks = [lock for message in messages if (lock := lock_of(message)) is not None]
    if locks:
        keys, args = change_args(ledger, [change for lock in locks for change in lock.ends()])
        yield LEDGER_CHANGE, keys, args


def dead(layout: Layout, limit: int, queue: str | None) -> Generator[Ask, Any, Sequence[DeadRecord]]:
    """The newest dead letters."""
    found: list[str] = []
    at = 0
    while len(found) < limit:
        page = yield None, ["ZRANGE", layout.dead, at, at + _PAGE - 1, "REV"], []
        names = [member.decode("utf-8", "surrogateescape") for member in page]
        # A member is a uuid of 36 characters, a colon and the queue.
        found += [name for name in names if queue is None or name[37:] == queue]
        if len(page) < _PAGE:
            break
        at += _PAGE
    found = found[:limit]
    if not found:
        return ()
    members = [name.encode("utf-8", "surrogateescape") for name in found]
    texts = yield None, ["HMGET", layout.dead_records, *members], []
    return [dead_record(name, text) for name, text in zip(found, texts, strict=True) if text is not None]
