"""Sends the task of an entry now, besides its slots, as far as its ``overlap`` lets it. Called by ``desk.py``.

What the entry says of overlapping runs is said of this one too: who has ``skip`` there has it since two runs at once do
harm, and who pushes the button twice is no exception. The lock and the seat are those of the slots (``firing.py``,
``making.py``).
"""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from celeriac.beat.entry import Entry
from celeriac.beat.lazy import evaluated
from celeriac.beat.making import NAME_HEADER, Collected, drop
from celeriac.beat.places import publisher_of
from celeriac.beat.state import running_key, short
from celeriac.exceptions import CeleryError
from celeriac.model.ledger import LOCK, LOCK_LIFE, Change, Lock, waiting_id
from celeriac.model.limits import SEAT
from celeriac.model.message import Message
from celeriac.ports import Publisher, Stepwise
from celeriac.result import AsyncResult

__all__ = ["EntryRuns", "send_now"]


class EntryRuns(CeleryError):
    """Not sent: the entry has ``overlap="skip"``, and its run ``task_id`` waits or runs."""

    def __init__(self, name: str, task_id: str) -> None:
        super().__init__(
            f"entry {name!r} is not sent: its run before has not ended (task {task_id}), and it has overlap='skip'; "
            "force=True (--force) sends it all the same"
        )
        self.task_id = task_id


def send_now(app: Any, entry: Entry, now: float, *, force: bool = False) -> AsyncResult[Any]:
    """Send it, and return its result. With ``overlap="queue"`` it starts when the run before has ended. ``force``: as
    with ``overlap="allow"``. Raises ``EntryRuns``, and what sending raises."""
    headers = {NAME_HEADER: entry.name, **(entry.options.get("headers") or {})}
    overlap = "allow" if force else entry.overlap
    if overlap == "queue":
        headers[SEAT] = f"beat:{short(entry.name)}"
    if overlap != "skip":
        return _applied(app, entry, headers)
    publisher = publisher_of(app)
    lock = Lock(running_key(entry.name), "", LOCK_LIFE, sole=isinstance(publisher, Stepwise) and publisher.stepwise)
    producer = Collected()
    result = _applied(app, entry, {**headers, LOCK: lock.header()}, producer=producer)
    if not producer.messages:
        return result  # it ran here (task_always_eager), or its own apply_async has sent it in a way of its own
    _publish(app, publisher, entry, producer.messages, lock, now)
    return result


def _applied(app: Any, entry: Entry, headers: dict[str, Any], **more: Any) -> AsyncResult[Any]:
    args, kwargs = evaluated(entry.args, entry.kwargs)
    options = {**entry.options, "headers": headers, **more}
    task = app.tasks.get(entry.task)
    result: AsyncResult[Any] = (
        app.send_task(entry.task, args, kwargs, **options)
        if task is None
        else task.apply_async(args, kwargs, **options)
    )
    return result


def _publish(app: Any, publisher: Publisher, entry: Entry, messages: list[Message], lock: Lock, now: float) -> None:
    """The first message and the lock in one step, or neither; then those to other queues."""
    message, *others = messages
    if message.expires is None:
        life = lock.life + max(0.0, (message.due or 0.0) - now)
    else:
        life = max(1.0, message.expires - now)  # nobody takes it afterwards
    timeout = app.conf.seconds("broker_publish_timeout")
    take = Change(lock.key, replace(lock, holder=message.id).waiting, None, life)
    there = publisher.publish_if(message, [take], timeout=timeout)
    if there is not None:
        drop(app, messages)
        raise EntryRuns(entry.name, waiting_id(there[0])[0] if there[0] is not None else "that has just ended")
    if others:
        app.sender.publisher.publish(others, timeout=timeout)
    app.sender.announce(messages)
