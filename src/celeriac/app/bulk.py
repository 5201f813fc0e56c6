"""Sending many calls in few round trips.

The fast way makes messages directly. Where an add-on or a subclass has its own ``apply_async`` or ``send_task``, each
call goes through it, with a producer that collects. Called by ``Celery.send_many`` and ``Task.delay_many``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from celeriac.app.keyed import in_workflow
from celeriac.canvas import Signature, maybe_signature
from celeriac.client.current import worker_request
from celeriac.client.prepared import PER_CALL
from celeriac.codec.envelope import new_id
from celeriac.exceptions import NotRegistered
from celeriac.model.chord import NewChord
from celeriac.model.message import Message
from celeriac.result import AsyncResult
from celeriac.signals import after_task_publish

__all__ = ["delay_many", "send_many"]

#: Where apply_async and send_task live unless somebody has replaced them.
_OURS = frozenset({"celeriac.app.sending", "celeriac.app.task"})


class _Batch:
    """Messages that wait for company, and the results of all; also a producer."""

    def __init__(self, app: Any, chunk: int, producer: Any, add_to_parent: bool = True, together: bool = False) -> None:
        if chunk < 1:
            raise ValueError(f"chunk must be at least 1, not {chunk}")
        self.results: list[AsyncResult[Any]] = []
        self._app = app
        self._sender = app.sender
        self._make = app.sender.message
        self._chunk = chunk
        self._producer = producer
        self._parent = worker_request() if add_to_parent else None
        self._messages: list[Message] = []
        #: All or none: what does not fit one call is put aside, and sent with the last.
        self._together = together and producer is None
        self._stage = ""
        self._staged = 0
        self._unannounced: list[Message] = []
        self._chords: list[NewChord] = []

    def add(
        self,
        name: str,
        task: Any,
        args: Any,
        kwargs: Any,
        options: Mapping[str, Any],
        call: Mapping[str, Any] | None = None,
    ) -> None:
        """Make the message of one call and its result. ``options`` are the call's over the task's; ``call`` those of
        ``PER_CALL``, when they are told apart."""
        message = self._make(name, args, kwargs, options, task=task, call=call)
        result: AsyncResult[Any] = (task or self._app).AsyncResult(message.id)
        if options.get("ignore_result"):
            result.ignored = True
        if self._parent is not None:
            self._parent._task.add_trail(result)
        self.results.append(result)
        self.collect(message)

    def collect(self, message: Message) -> None:
        """Take a message; send all when there are enough."""
        if self._together and len(self._messages) >= self._chunk:
            self._put_aside()
        self._messages.append(message)
        if not self._together and len(self._messages) >= self._chunk:
            self.flush()

    def _put_aside(self) -> None:
        self._stage = self._stage or new_id()
        messages, self._messages = self._messages, []
        self._staged += self._sender.stage(messages, self._stage)
        if after_task_publish.receivers:
            self._unannounced += messages

    def open_chord(self, chord: NewChord) -> None:
        """Take a chord, which has to be there before its tasks."""
        self._chords.append(chord)

    def flush(self) -> None:
        """Send what is there."""
        if self._chords:
            chords, self._chords = self._chords, []
            if hasattr(self._producer, "open_chord"):
                for chord in chords:
                    self._producer.open_chord(chord)
            else:
                self._app.backend.open_chords(chords)
        if self._stage:
            self._put_aside()
            self._sender.launch(self._stage, self._staged)
            self._sender.announce(self._unannounced)
        elif self._messages:
            messages, self._messages = self._messages, []
            self._sender.send(messages, producer=self._producer)


def _is_direct(app: Any) -> bool:
    return not app.conf.task_always_eager and type(app).send_task.__module__ in _OURS


def _is_plain(task: Any) -> bool:
    """No code of the user's runs when this task is sent."""
    ours = type(task).apply_async.__module__ in _OURS and "apply_async" not in vars(task)
    return ours and not task.names_shadows and task.unique_rule is None


def send_many(
    app: Any,
    signatures: Iterable[Any],
    chunk: int,
    producer: Any,
    add_to_parent: bool = True,
    together: bool = False,
) -> list[AsyncResult[Any]]:
    """See ``Celery.send_many``. A signature without options may come in a pair with those that it gets."""
    batch = _Batch(app, chunk, producer, add_to_parent, together)
    direct = _is_direct(app)
    # Name → (task or None, its check, its options), None where code of its own has to run.
    known: dict[str, tuple[Any, Any, Any] | None] = {}
    for signature in signatures:
        own: Any = None
        if type(signature) is tuple:
            signature, own = signature
        elif not isinstance(signature, Signature):
            signature = maybe_signature(signature, app=app)
        way, name = None, signature["task"]
        if direct and type(signature) is Signature:
            if name not in known:
                known[name] = _way(signature)
            way = known[name]
        options = own or signature["options"]
        if way is None or "idempotency_key" in options:
            alone = _goes_alone(app, name, options) and not hasattr(producer, "collect")
            more = {**(own or {}), "producer": producer if alone else batch}
            if not add_to_parent:
                more["add_to_parent"] = False
            batch.results.append(signature.apply_async(**more))
            continue
        task, check, defaults = way
        args, kwargs = signature["args"], signature["kwargs"]
        if check is not None:
            check(*args, **kwargs)
        if options and PER_CALL.issuperset(options) and PER_CALL.isdisjoint(defaults):
            batch.add(name, task, args, kwargs, defaults, options)
        else:
            batch.add(name, task, args, kwargs, {**defaults, **options} if options else defaults)
    batch.flush()
    return batch.results


def _goes_alone(app: Any, name: str, options: Mapping[str, Any]) -> bool:
    """It is sent under a key, which is answered for each on its own; not so as a part of a workflow."""
    if in_workflow(options, None):
        return False
    task = app.tasks.get(name)
    return "idempotency_key" in options or (task is not None and task.unique_rule is not None)


def _way(signature: Any) -> tuple[Any, Any, Any] | None:
    try:
        task = signature.type
    except NotRegistered:
        return None, None, {}
    return (task, task.argument_check, task.send_defaults) if _is_plain(task) else None


def delay_many(task: Any, calls: Iterable[Any], chunk: int, options: dict[str, Any]) -> list[AsyncResult[Any]]:
    """See ``Task.delay_many``."""
    app = task.app
    producer = options.pop("producer", None)
    if "idempotency_key" in options:
        raise ValueError(
            f"task {task.name}: many calls under one idempotency_key would be one; give apply_async a key for each"
        )
    if not (_is_direct(app) and _is_plain(task)):
        signatures: Iterator[Signature[Any]] = (
            Signature(task, args, kwargs, options, app=app) for args, kwargs in _pairs(calls)
        )
        return send_many(app, signatures, chunk, producer)
    batch = _Batch(app, chunk, producer)
    name, check, defaults = task.name, task.argument_check, task.send_defaults
    merged = {**defaults, **options} if options else defaults
    for args, kwargs in _pairs(calls):
        if check is not None:
            check(*args, **(kwargs or {}))
        batch.add(name, task, args, kwargs, merged)
    batch.flush()
    return batch.results


def _pairs(calls: Iterable[Any]) -> Iterator[tuple[Any, Any]]:
    """Arguments and keyword arguments of each call."""
    for call in calls:
        if len(call) == 2 and isinstance(call[1], dict) and isinstance(call[0], (list, tuple)):
            yield call[0], call[1]
        else:
            yield call, None
