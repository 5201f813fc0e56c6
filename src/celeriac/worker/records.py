"""Result records of a worker: which facts of a task go into the bytes that ``codec/results.py`` encodes."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from celeriac import states
from celeriac.client.payloads import Payloads
from celeriac.codec.chords import encode_body, encode_part
from celeriac.codec.escape import one_line
from celeriac.codec.failures import exception_to_data
from celeriac.codec.results import encode_result
from celeriac.codec.signing import seal, signer_of
from celeriac.exceptions import MessageTooLarge, OperationalError
from celeriac.model.chord import Part
from celeriac.model.message import Message
from celeriac.model.options import TaskOptions
from celeriac.model.plan import Plan
from celeriac.model.settle import StoredResult
from celeriac.model.workflow import Abandoned, Join

__all__ = ["Recorder"]

logger = logging.getLogger("celery.worker")

#: Records up to so many bytes are never looked at again.
_SMALL = 1024
#: Chords whose encoded bodies are kept.
_BODIES = 64


class Recorder:
    """Makes the records of one node."""

    def __init__(
        self, hostname: str, conf: Any, now: Callable[[], float] = time.time, payloads: Payloads | None = None
    ) -> None:
        self._hostname = hostname
        self._now = now
        self._payloads = payloads
        self._max_bytes: int = conf.max_message_bytes
        self._serializer: str = conf.result_serializer
        self._signer = signer_of(conf)
        self._expires: float | None = conf.seconds("result_expires") or None
        self._bodies: dict[str, bytes] = {}
        self._chord_expires: float | None = conf.seconds("result_chord_expires") or self._expires
        #: The newest second and its text, replaced as one: several threads read it.
        self._second = (0, "")

    def record(self, message: Message, decided: Plan, options: TaskOptions, request: Any, now: float) -> StoredResult:
        """The record of a decided state. ``request`` is None when the task did not run.

        Raises ``EncodeError``, ``MessageTooLarge``.
        """
        state, value = decided.state, decided.value
        assert state is not None
        terminal = state in states.READY_STATES
        extended: dict[str, Any] | None = None
        if options.result_extended:
            extended = self._extended(message, request)
        elif state == states.RETRY:
            # How a redelivered copy of this attempt is recognised as done.
            extended = {"retries": message.retries}
        children = request.__dict__.get("children") if request is not None else None
        trail = [child.as_tuple() for child in children] if children else ()
        done = self._instant(now) if terminal else None
        result = value if state == states.SUCCESS else exception_to_data(value)
        body = self._encoded(message, decided, result, trail, done, extended)
        if len(body) > _SMALL and state == states.SUCCESS:
            place = self._place(message, decided, len(body), options)
            if place is not None:
                body = self._encoded(message, decided, None, trail, done, {**(extended or {}), "payload": place})
        return self._stored(message.id, body, terminal, options.result_expires, message.reply_to)

    def _encoded(
        self, message: Message, decided: Plan, result: Any, children: Any, done: str | None, extended: Any
    ) -> bytes:
        get = message.headers.get
        return encode_result(
            task_id=message.id,
            state=decided.state or "",
            result=result,
            traceback=decided.traceback,
            children=children,
            date_done=done,
            group_id=get("group"),
            parent_id=get("parent_id"),
            extended=extended,
            serializer=self._serializer,
        )

    def _place(self, message: Message, decided: Plan, size: int, options: TaskOptions) -> dict[str, Any] | None:
        """Where a result was put that is too large for its record of ``size`` bytes; None: it may stay there.

        The members of a chord keep theirs: a repeated one tells its chord what its record says.
        """
        payloads = self._payloads
        if payloads is not None and size > payloads.min_bytes and not decided.joins:
            try:
                return payloads.put_result(decided.value, self._serializer, options.result_expires)
            except OperationalError as error:
                # The task has done its work: a store that is away must not undo it.
                name = one_line(f"{message.task}[{message.id}]")
                logger.warning("The result of %s stays in its record: %s", name, error)
        if size > self._max_bytes:
            raise MessageTooLarge(
                f"the result of {message.task} is {size} bytes, more than max_message_bytes={self._max_bytes}"
            )
        return None

    def started(self, message: Message, options: TaskOptions) -> StoredResult:
        """The record of a task that runs in this process (``task_track_started``)."""
        body = encode_result(
            task_id=message.id,
            state=states.STARTED,
            result={"pid": os.getpid(), "hostname": self._hostname},
            group_id=message.headers.get("group"),
            parent_id=message.headers.get("parent_id"),
            serializer=self._serializer,
        )
        return self._stored(message.id, body, False, options.result_expires, message.reply_to)

    def _stored(self, task_id: str, body: bytes, terminal: bool, expires: float | None, reply_to: str) -> StoredResult:
        return StoredResult(task_id, seal(self._signer, "result", task_id, body), terminal, expires, reply_to)

    def others(
        self, tasks: Iterable[Abandoned], state: str, exc: BaseException, reply_to: str = ""
    ) -> list[StoredResult]:
        """The records of tasks that will never run; ``reply_to`` is that of the one that ended them. Raises
        ``EncodeError``."""
        data, done = exception_to_data(exc), self._instant(self._now())
        return [
            self._stored(
                each.id,
                encode_result(
                    task_id=each.id,
                    state=state,
                    result=data,
                    date_done=done,
                    group_id=each.group,
                    serializer=self._serializer,
                ),
                True,
                self._expires,
                reply_to,
            )
            for each in tasks
        ]

    def parts(self, joins: Iterable[Join], grows: int = 0, content_type: str = "application/json") -> list[Part]:
        """What chords are told; ``grows`` members were added by the first. Raises ``EncodeError``."""
        parts = []
        for join in joins:
            parts.append(
                Part(
                    chord=join.chord,
                    id=join.id,
                    index=join.index,
                    value=self._value(join),
                    grows=grows,
                    body=self._body(join.chord, join.body, content_type) if join.body is not None else b"",
                    expires=self._chord_expires,
                )
            )
            grows = 0
        return parts

    def _value(self, join: Join) -> bytes:
        value = encode_part(join.id, join.state, join.value, self._serializer)
        return seal(self._signer, "part", join.chord, value)

    def _body(self, chord: str, body: Mapping[str, Any], content_type: str) -> bytes:
        """The encoded body of a chord: the same for all its members, so it is encoded for the first."""
        known = self._bodies.get(chord)
        if known is None:
            if len(self._bodies) >= _BODIES:
                self._bodies.clear()
            known = self._bodies[chord] = seal(self._signer, "chord", chord, encode_body(body, content_type))
        return known

    def _instant(self, now: float) -> str:
        """ISO 8601 in UTC with microseconds; ``datetime.isoformat`` for each task costs five times as much."""
        second, text = self._second
        if second != int(now):
            second = int(now)
            text = datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")
            self._second = (second, text)
        return f"{text}.{int((now - second) * 1_000_000):06d}+00:00"

    def _extended(self, message: Message, request: Any) -> dict[str, Any]:
        """The fields of ``result_extended``; a task that did not run has no arguments to show."""
        known = request is not None
        return {
            "name": message.task,
            "args": list(request.args or ()) if known else None,
            "kwargs": request.kwargs if known else None,
            "worker": self._hostname,
            "retries": message.retries,
            "queue": message.routing_key or message.queue,
        }
