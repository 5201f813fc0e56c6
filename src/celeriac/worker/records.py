"""Result records of a worker: which facts of a task go into the bytes that ``codec/results.py`` encodes."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from celeriac import states
from celeriac.codec.chords import encode_body, encode_part
from celeriac.codec.failures import exception_to_data
from celeriac.codec.results import encode_result
from celeriac.codec.signing import seal, signer_of
from celeriac.model.chord import Part
from celeriac.model.message import Message
from celeriac.model.options import TaskOptions
from celeriac.model.plan import Plan
from celeriac.model.settle import StoredResult
from celeriac.model.workflow import Abandoned, Join

__all__ = ["Recorder"]

#: Chords whose encoded bodies are kept.
_BODIES = 64


class Recorder:
    """Makes the records of one node."""

    def __init__(self, hostname: str, conf: Any) -> None:
        self._hostname = hostname
        self._serializer: str = conf.result_serializer
        self._signer = signer_of(conf)
        self._expires: float | None = conf.seconds("result_expires") or None
        self._bodies: dict[str, bytes] = {}
        self._chord_expires: float | None = conf.seconds("result_chord_expires") or self._expires
        #: The newest second and its text, replaced as one: several threads read it.
        self._second = (0, "")

    def record(self, message: Message, decided: Plan, options: TaskOptions, request: Any, now: float) -> StoredResult:
        """The record of a decided state. ``request`` is None when the task did not run. Raises ``EncodeError``."""
        state, value = decided.state, decided.value
        assert state is not None
        get = message.headers.get
        terminal = state in states.READY_STATES
        extended: dict[str, Any] | None = None
        if options.result_extended:
            extended = self._extended(message, request)
        elif state == states.RETRY:
            # How a redelivered copy of this attempt is recognised as done.
            extended = {"retries": message.retries}
        children = request.__dict__.get("children") if request is not None else None
        body = encode_result(
            task_id=message.id,
            state=state,
            result=value if state == states.SUCCESS else exception_to_data(value),
            traceback=decided.traceback,
            children=[child.as_tuple() for child in children] if children else (),
            date_done=self._instant(now) if terminal else None,
            group_id=get("group"),
            parent_id=get("parent_id"),
            extended=extended,
            serializer=self._serializer,
        )
        return self._stored(message.id, body, terminal, options.result_expires)

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
        return self._stored(message.id, body, False, options.result_expires)

    def _stored(self, task_id: str, body: bytes, terminal: bool, expires: float | None) -> StoredResult:
        return StoredResult(task_id, seal(self._signer, "result", task_id, body), terminal, expires)

    def others(self, tasks: Iterable[Abandoned], state: str, exc: BaseException) -> list[StoredResult]:
        """The records of tasks that will never run. Raises ``EncodeError``."""
        data, done = exception_to_data(exc), self._instant(time.time())
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
