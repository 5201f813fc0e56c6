"""Sending many signatures in few round trips.

The fast way makes messages directly. Where an add-on or a subclass has its own ``apply_async`` or ``send_task``, each
signature goes through it, with a producer that collects. Called by ``Celery.send_many``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from celeriac.canvas import Signature, maybe_signature
from celeriac.client.current import worker_request
from celeriac.exceptions import NotRegistered
from celeriac.model.message import Message
from celeriac.result import AsyncResult

__all__ = ["calls_of", "send_many"]

_OURS = frozenset({"celeriac.app.sending", "celeriac.app.task"})


class _Batch:
    """A producer that keeps messages until there are enough of them."""

    def __init__(self, sender: Any, chunk: int, producer: Any) -> None:
        self.messages: list[Message] = []
        self._sender = sender
        self._chunk = chunk
        self._producer = producer

    def collect(self, message: Message) -> None:
        """Take a message; send the batch when it is full."""
        self.messages.append(message)
        if len(self.messages) >= self._chunk:
            self.flush()

    def flush(self) -> None:
        """Send what is there."""
        if self.messages:
            batch, self.messages = self.messages, []
            self._sender.send(batch, producer=self._producer)


def send_many(app: Any, signatures: Iterable[Any], chunk: int, producer: Any) -> list[AsyncResult[Any]]:
    """See ``Celery.send_many``."""
    if chunk < 1:
        raise ValueError(f"chunk must be at least 1, not {chunk}")
    batch = _Batch(app.sender, chunk, producer)
    direct = not app.conf.task_always_eager and type(app).send_task.__module__ in _OURS
    results: list[AsyncResult[Any]] = []
    add, message_of, collect = results.append, app.sender.message, batch.collect
    known: dict[str, Any] = {}
    request = worker_request()
    for signature in signatures:
        if not isinstance(signature, Signature):
            signature = maybe_signature(signature, app=app)
        if not direct or type(signature) is not Signature:
            add(signature.apply_async(producer=batch))
            continue
        name = signature["task"]
        if name not in known:
            known[name] = _direct(signature)
        task = known[name]
        if task is False:
            add(signature.apply_async(producer=batch))
            continue
        args, kwargs, options = signature["args"], signature["kwargs"], signature["options"]
        if task is not None:
            if task.argument_check is not None:
                task.argument_check(*args, **kwargs)
            options = {**task.send_defaults, **options} if options else task.send_defaults
        message = message_of(name, args, kwargs, options, task=task)
        collect(message)
        result: AsyncResult[Any] = AsyncResult(message.id, app=app)
        result.ignored = options.get("ignore_result")
        if request is not None:
            request._task.add_trail(result)
        add(result)
    batch.flush()
    return results


def _direct(signature: Any) -> Any:
    """The task whose messages may be made directly; None for an unknown one, False where its own code has to run."""
    try:
        task = signature.type
    except NotRegistered:
        return None
    plain = type(task).apply_async.__module__ in _OURS and "apply_async" not in vars(task)
    return task if plain and not task.names_shadows else False


def calls_of(task: Any, calls: Iterable[Any], options: dict[str, Any]) -> Iterator[Signature[Any]]:
    """One signature of ``task`` per element of ``calls``; see ``Task.delay_many``."""
    for call in calls:
        args, kwargs = call, None
        if len(call) == 2 and isinstance(call[1], dict) and isinstance(call[0], (list, tuple)):
            args, kwargs = call
        yield Signature(task, args, kwargs, options or None)
