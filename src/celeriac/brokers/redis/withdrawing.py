"""Messages of some tasks out of the midst of their queues: a search in pages, each of which is one script.

A page is as long as its texts allow, so that none holds the server up for much more than a millisecond.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterator, Sequence
from typing import Any

from celeriac.brokers.redis.claims import Claims, Read
from celeriac.brokers.redis.layout import Layout
from celeriac.brokers.redis.link import Link
from celeriac.brokers.redis.parks import queue_of
from celeriac.brokers.redis.scripts import WITHDRAW
from celeriac.brokers.redis.sockets import Word
from celeriac.codec.seeking import written
from celeriac.model.message import Delivery, Malformed
from celeriac.model.settle import Release

__all__ = ["withdraw"]

#: Messages that one script looks at: first, fewest, most; and how many bytes they may have.
_FIRST, _FEWEST, _MOST = 50, 5, 500
_BYTES = 500_000
#: Numbers for tokens that one script has: a scan may return more than it is asked for.
_TOKENS = 10_000
#: Pause between two of them in seconds: others have the server for as long.
_PAUSE = 0.001


async def withdraw(
    link: Link, layout: Layout, claims: Claims, read: Read, ids: Collection[str], queues: Sequence[str]
) -> tuple[list[Delivery], list[Release]]:
    """What was found, and what only looked so and goes back: see ``Rules.withdraw``."""
    forms = sorted(written(ids))
    found: list[Delivery] = []
    wrong: list[Release] = []
    parks = [field.decode() for field in await link.call("HKEYS", layout.parks) if queue_of(field) in queues]
    for queue, key, kind in _places(layout, queues, parks):
        at: Any = b"0"
        page = _FIRST
        while at:
            form, first = claims.reserve(_TOKENS)
            args: list[Word] = [form, first, layout.lease_shift, layout.tail(queue), kind, at, page, *forms]
            at, size, envelopes = await link.script(WITHDRAW, [layout.unacked, layout.index, key], args)
            for number, raw in enumerate(envelopes, first):
                delivery = read(raw, form % number, queue)
                message = delivery.message
                if not isinstance(message, Malformed) and message.id in ids:
                    found.append(delivery)
                else:
                    due = None if isinstance(message, Malformed) else message.due
                    wrong.append(Release(delivery, due=due))
            page = max(_FEWEST, min(_MOST, page * 2, int(page * _BYTES / max(size, 1))))
            await asyncio.sleep(_PAUSE)
    return found, wrong


def _places(layout: Layout, queues: Sequence[str], parks: Sequence[str]) -> Iterator[tuple[str, str, str]]:
    """Queue, key and kind of all places where messages wait. Parks come first: from there they go to ready."""
    for field in parks:
        yield queue_of(field.encode()) or "", layout.park(field), "park"
    for queue in dict.fromkeys(queues):
        yield queue, layout.schedule(queue), "zset"
        for name in layout.lists(queue):
            yield queue, name, "list"
