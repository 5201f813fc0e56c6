"""The messages of a periodic task, made as a call of the task makes them: ``apply_async`` with a collecting producer.

So overridden ``apply_async``, routers and ``before_task_publish`` receivers run as for any call. Called by
``firing.py``.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from celeriac.beat.due import next_slot
from celeriac.beat.entry import Entry
from celeriac.beat.lazy import evaluated
from celeriac.beat.state import short
from celeriac.client.payloads import payloads_of
from celeriac.codec.reference import CONTENT_TYPE as REFERENCE
from celeriac.exceptions import CeleryError, ImproperlyConfigured
from celeriac.model.limits import SEAT
from celeriac.model.message import Message

__all__ = ["LEAST", "NAME_HEADER", "SLOT_HEADER", "Collected", "check", "drop", "lasts", "messages_of"]

#: Headers with the name of the entry, as django-celery-beat has it, and with the slot in ISO 8601, in UTC.
NAME_HEADER: Final = "periodic_task_name"
SLOT_HEADER: Final = "periodic_slot"
#: Seconds for which a run may start at least, when nobody said how long: a worker that is busy for a moment must not
#: lose runs of short intervals.
LEAST: Final = timedelta(seconds=60)


class Collected:
    """A producer that keeps what is to be sent."""

    def __init__(self) -> None:
        self.messages: list[Message] = []

    def collect(self, message: Message) -> None:
        """See ``Sender.send``."""
        self.messages.append(message)


def messages_of(
    app: Any, entry: Entry, slot: datetime, now: datetime, headers: Mapping[str, Any], task_id: str | None = None
) -> list[Message]:
    """What is to be sent for a slot: one message, several where an exchange leads to several queues, none where the
    task's own ``apply_async`` sends nothing through its producer. ``headers`` come over those of the entry;
    ``task_id`` is a new one by default.

    Raises whatever making a message raises.
    """
    args, kwargs = evaluated(entry.args, entry.kwargs)
    task = app.tasks.get(entry.task)
    own = {NAME_HEADER: entry.name, SLOT_HEADER: slot.isoformat(), **(entry.options.get("headers") or {}), **headers}
    if entry.overlap == "queue":
        own[SEAT] = f"beat:{short(entry.name)}"
    options = {**entry.options, "headers": own}
    if task_id is not None:
        options["task_id"] = task_id
    if not _expires_anyway(entry, task):
        expires = _expires(entry, slot, now)
        if expires is not None:
            options["expires"] = expires
    producer = Collected()
    if task is None:
        app.send_task(entry.task, args, kwargs, producer=producer, **options)
    else:
        task.apply_async(args, kwargs, producer=producer, **options)
    return producer.messages


def _expires_anyway(entry: Entry, task: Any) -> bool:
    """The options say until when a run may start, or the task does where the entry says nothing."""
    return "expires" in entry.options or (entry.expires is None and getattr(task, "expires", None) is not None)


def _expires(entry: Entry, slot: datetime, now: datetime) -> datetime | None:
    """Until when a run may start. A slot that is caught up behind later ones has as long as one in time."""
    if entry.expires is not None:
        return now + timedelta(seconds=entry.expires) if entry.expires else None
    following = next_slot(entry, slot)
    if following is None:
        return None
    if following <= now:
        return now + max(following - slot, LEAST)
    return max(following.astimezone(UTC), now + LEAST)


def lasts(app: Any, entry: Entry, slot: datetime, now: float) -> float | None:
    """Seconds for which a run may start; None: for ever, or nobody can say yet."""
    given = entry.options.get("expires")
    if isinstance(given, timedelta):
        return given.total_seconds()
    if _expires_anyway(entry, app.tasks.get(entry.task)):
        return float(given) if isinstance(given, int | float) else None
    moment = datetime.fromtimestamp(now, UTC)
    until = _expires(entry, slot, moment)
    return None if until is None else (until - moment).total_seconds()


def drop(app: Any, messages: list[Message]) -> None:
    """Forget the stored payloads of messages that are not sent."""
    payloads = payloads_of(app.conf)
    for message in messages:
        if payloads is not None and message.content_type == REFERENCE:
            try:
                payloads.drop_body(message)
            except CeleryError:
                pass  # it goes with its day


def check(app: Any, entry: Entry) -> None:
    """Raise ``ImproperlyConfigured`` for what an entry asks and cannot get."""
    for option in ("idempotency_key", "idempotency_ttl", "producer", "task_id"):
        if option in entry.options:
            raise ImproperlyConfigured(
                f"entry {entry.name!r}: options: {option!r} cannot be given, for each slot is a task of its own, sent "
                "once"
            )
    task = app.tasks.get(entry.task)
    if task is None or entry.overlap == "allow":
        return
    if getattr(task, "unique_rule", None) is not None:
        raise ImproperlyConfigured(
            f"entry {entry.name!r}: overlap={entry.overlap!r} cannot go with a unique task ({entry.task}): its own "
            "lock keeps runs apart already; take one of the two away"
        )
    if entry.overlap == "queue" and getattr(task, "max_concurrency", None) is not None:
        raise ImproperlyConfigured(
            f"entry {entry.name!r}: overlap='queue' cannot go with max_concurrency of {entry.task}: a run has one "
            "seat; take one of the two away"
        )
    if entry.overlap == "queue" and not task.acks_late:
        raise ImproperlyConfigured(
            f"entry {entry.name!r}: overlap='queue' counts unacknowledged deliveries, so it needs acks_late=True of "
            f"{entry.task}"
        )
