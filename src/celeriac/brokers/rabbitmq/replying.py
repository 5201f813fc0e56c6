"""How results travel with ``rpc://``: the reply queue of a process, and a record as a message to it. On Celery's wire
(``celery-wire.md`` §3.5). Pure but for the goodbye at the end of a process.

The queue is durable and expires unused, as Celery's; it is not ``auto-delete`` as Celery's, for RabbitMQ deletes such
a queue, with the results in it, as soon as the connection of its reader is lost.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Generator
from typing import Any

from celeriac.brokers.rabbitmq import methods as m
from celeriac.brokers.rabbitmq.address import Address
from celeriac.brokers.rabbitmq.fields import Properties, decode_header, encode_header
from celeriac.brokers.rabbitmq.frames import Event
from celeriac.brokers.rabbitmq.layout import declare_queue
from celeriac.brokers.rabbitmq.outgoing import Outgoing
from celeriac.codec import json
from celeriac.exceptions import CeleryError, OperationalError
from celeriac.model.settle import StoredResult
from celeriac.ports import ReplyQueue

__all__ = ["addressee", "declaring_replies", "drop_at_exit", "letter_of"]

#: RabbitMQ allows no longer lives: milliseconds, in 32 bits.
_LONGEST = 2**32 - 1
#: Seconds for the goodbye.
_GOODBYE = 1.0
#: Reply queues that are deleted when this process ends.
_queues: set[tuple[int, tuple[Address, ...], str]] = set()


def declaring_replies(replies: ReplyQueue) -> Generator[tuple[Any, ...], Any, None]:
    """The reply queue of this process."""
    arguments = {} if not replies.expires else {"x-expires": _milliseconds(replies.expires)}
    yield from declare_queue(replies.name, True, False, False, arguments)


def letter_of(result: StoredResult, replies: ReplyQueue) -> Outgoing:
    """A record on its way. When its queue is gone, for its reader is, it is dropped by the server, as in Celery."""
    content_type, encoding = replies.content
    properties = Properties(
        content_type=content_type,
        content_encoding=encoding,
        delivery_mode=2 if replies.persistent else 1,
        priority=0,
        correlation_id=result.id if len(result.id.encode("utf-8", "surrogatepass")) <= 255 else "",
        expiration=str(_milliseconds(result.expires)) if result.expires else "",
    )
    header = encode_header(properties, len(result.body))
    return Outgoing("", result.reply_to, "", header, result.body, mandatory=False)


def addressee(event: Event) -> str:
    """The id of the task whose record came in; empty when it cannot be told."""
    try:
        task_id = decode_header(event.header).correlation_id
        if not task_id:
            record = json.loads(event.body)
            task_id = str(record.get("task_id") or "") if isinstance(record, dict) else ""
    except (CeleryError, ValueError, RecursionError):
        return ""
    return task_id


def _milliseconds(seconds: float) -> int:
    return min(max(int(seconds * 1000), 1), _LONGEST)


# ---------------------------------------------------------------- the end of a process


def drop_at_exit(addresses: tuple[Address, ...], name: str) -> None:
    """Delete this process's reply queue when it ends in good order: nobody else can read it. After any other end it
    expires."""
    if not _queues:
        atexit.register(_drop_all)
    _queues.add((os.getpid(), addresses, name))


def _drop_all() -> None:
    from celeriac.brokers.rabbitmq.blocking import Line, monotonic

    for pid, addresses, name in tuple(_queues):
        if pid != os.getpid():
            continue  # that of the process we were forked from
        line = Line(addresses)
        try:
            with line.use(monotonic() + _GOODBYE) as connection:
                connection.ask((m.QUEUE_DELETE, 0, name, False, False, False), monotonic() + _GOODBYE)
        except OperationalError:
            pass  # it expires
        finally:
            line.close()
    _queues.clear()
