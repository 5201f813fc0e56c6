"""Sending under a key: ``idempotency_key`` and unique tasks. Message and key are written in one step, or neither.

Who holds the key is asked by the same step that would take it. A lock whose task is over, for a worker that knew
nothing of locks ran it, is taken over. Called by ``Celery.send_task``; the ledger itself is the adapters'.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from celeriac import states
from celeriac.app.unique import Unique, key_text
from celeriac.canvas import Signature
from celeriac.canvas.steps import refuse_key
from celeriac.client.conditional import send_if
from celeriac.client.payloads import payloads_of
from celeriac.client.records import fetch
from celeriac.client.transactions import outlet_of
from celeriac.codec.reference import CONTENT_TYPE as REFERENCE
from celeriac.conf.check import in_seconds
from celeriac.exceptions import CeleryError, OperationalError, TaskNotUnique, TaskRevokedError
from celeriac.model.ledger import LOCK, Change, Lock, replaced_key, waiting_id
from celeriac.model.message import Message

__all__ = ["Sent", "in_workflow", "is_over", "send_keyed", "take_key"]

#: Seconds for which it is remembered that a task was replaced: it may be met that long after.
_REPLACED_LIFE = 30 * 86400.0
#: Between two looks somebody else may have taken the key.
_TRIES = 10
_WORKFLOW = ("chain", "chord", "group_id")


class Sent(Struct, frozen=True):
    """The task to wait for, and whether this call has sent it."""

    id: str
    new: bool


def in_workflow(options: Mapping[str, Any], producer: Any) -> bool:
    """Others wait for just this message: it is part of a chain, group or chord, or is sent with a task's end."""
    return hasattr(producer, "collect") or any(options.get(name) for name in _WORKFLOW)


def take_key(name: str, options: dict[str, Any], default: Any) -> tuple[str, float] | None:
    """Take key and life time in seconds out of the options. Raises ``TypeError`` or ``ValueError`` for bad ones."""
    key, ttl = options.pop("idempotency_key", None), options.pop("idempotency_ttl", None)
    if key is None:
        if ttl is not None:
            raise ValueError(f"task {name}: idempotency_ttl means nothing without idempotency_key")
        return None
    if key == "":
        raise ValueError(f"task {name}: idempotency_key must not be empty")
    life = in_seconds(default if ttl is None else ttl)
    if life is None or not 0 < life < 1e10:
        raise ValueError(f"task {name}: idempotency_ttl must be a number of seconds above 0, not {life!r}")
    return f"key:{name}:{key_text(key, f'idempotency_key of task {name}')}", life


def send_keyed(
    app: Any,
    name: str,
    args: Any,
    kwargs: Any,
    options: dict[str, Any],
    *,
    task: Any,
    rule: Unique | None,
    producer: Any,
    **publishing: Any,
) -> Sent:
    """Send a task unless one that counts as the same is on its way. ``publishing`` are options of ``Sender.send``.

    Raises ``TaskNotUnique`` when the task asks for it, ``ValueError`` for a key in a workflow, else as ``send_task``.
    """
    key = take_key(name, options, app.conf.task_idempotency_ttl)
    if in_workflow(options, producer):
        if key is not None:
            refuse_key(Signature(name, options={"idempotency_key": key[0]}))
        rule = None
    elif LOCK in (options.get("headers") or ()):
        rule = None  # another attempt of the task that holds the lock
    if (key is not None or rule is not None) and outlet_of(app.conf) is not None:
        raise ValueError(
            f"task {name} cannot be sent in app.transaction(): {'its key' if key is not None else 'its lock'} would be "
            "taken in the broker, whatever the database does; send it after the commit"
        )
    lock = None
    if rule is not None:
        lock = Lock(rule.key(args or (), kwargs or {}), "", rule.life, rule.until_start)
        options["lock"] = lock.header()
    message: Message = app.sender.message(name, args, kwargs, options, task=task)
    changes: list[Change] = []
    if key is not None:
        changes.append(Change(key[0], message.id.encode(), None, key[1]))
    if lock is not None:
        wait = 0.0 if message.due is None else max(0.0, message.due - time.time())
        changes.append(Change(lock.key, replace(lock, holder=message.id).waiting, None, lock.life + wait))
    if not changes:
        app.sender.send(message, producer=producer, **publishing)
        return Sent(message.id, True)
    return _Conversation(app, message, key is not None, rule, publishing).hold(changes)


def is_over(app: Any, task_id: str) -> bool:
    """The record of a task says that it has ended, so that its lock may be taken. Without records nobody knows."""
    backend = app.backend
    if not backend.enabled or not backend.shared:
        return False
    try:
        record = fetch(backend.reader, task_id, app.conf)
    except CeleryError:  # away, or not to be read: the lock stands
        return False
    return record is not None and record["status"] in states.READY_STATES


class _Conversation:
    """One send, until its keys are taken or somebody else's stand."""

    def __init__(
        self, app: Any, message: Message, keyed: bool, rule: Unique | None, publishing: Mapping[str, Any]
    ) -> None:
        self._app = app
        self._message = message
        self._keyed = keyed
        self._rule = rule
        self._publishing = publishing

    def hold(self, changes: list[Change]) -> Sent:
        """Publish with these changes; the lock's is the last. The stored payload of a message that is not sent goes."""
        try:
            sent = self._hold(changes)
        except TaskNotUnique:
            self._drop_payload()
            raise
        if sent.id != self._message.id:
            self._drop_payload()
        return sent

    def _drop_payload(self) -> None:
        payloads = payloads_of(self._app.conf)
        if payloads is not None and self._message.content_type == REFERENCE:
            try:
                payloads.drop_body(self._message)
            except CeleryError:
                pass  # it goes with its day

    def _hold(self, changes: list[Change]) -> Sent:
        replaced = None
        for _ in range(_TRIES):
            there = send_if(self._app.sender, self._message, changes, again=self._keyed, **self._publishing)
            if there is None:
                if replaced is not None:
                    self._tell_replaced(replaced)
                return Sent(self._message.id, True)
            if self._keyed and there[0] is not None:
                holder = there[0].decode("utf-8", "replace")
                return Sent(holder, holder == self._message.id)
            if self._rule is None:
                continue  # the key's time ended between two looks
            at = int(self._keyed)
            holder, replaced, changes = self._judge(there[at], changes[: at + 1])
            if changes:
                continue
            if self._rule.conflict == "raise" and holder != self._message.id:
                raise TaskNotUnique(self._message.task, holder)
            return Sent(holder, holder == self._message.id)
        raise OperationalError(
            f"task {self._message.task} is not sent: its key changed hands {_TRIES} times meanwhile; try again"
        )

    def _judge(self, value: bytes | None, changes: list[Change]) -> tuple[str, str | None, list[Change]]:
        """Who holds the lock, whom this message replaces, and with what changes to try again; none: it stands."""
        lock = changes[-1]
        if value is None:
            return "", None, [*changes[:-1], Change(lock.key, lock.value, None, lock.expires)]
        holder, waits = waiting_id(value)
        if holder == self._message.id:
            return holder, None, []
        take = [*changes[:-1], Change(lock.key, lock.value, value, lock.expires)]
        if is_over(self._app, holder):
            return holder, None, take
        if waits and self._rule is not None and self._rule.conflict == "replace":
            note = Change(replaced_key(holder), self._message.id.encode(), expires=_REPLACED_LIFE)
            return holder, holder, [*take, note]
        return holder, None, []

    def _tell_replaced(self, task_id: str) -> None:
        """Whoever waits for the replaced task hears of it now; its worker says so again when it meets the message."""
        if self._message.headers.get("ignore_result") or not self._app.backend.shared:
            return
        try:
            self._app.backend.store_result(task_id, TaskRevokedError(f"replaced by {self._message.id}"), states.REVOKED)
        except OperationalError:
            pass
