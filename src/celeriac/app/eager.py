"""Running a task where it is called, as a worker would: ``apply()`` and ``task_always_eager``.

The same tracer and the same ``plan`` as in a worker, without message, broker and delays. Called by ``Task``.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from time import monotonic, time
from typing import Any

from celeriac import states
from celeriac.app.arguments import takes_several
from celeriac.app.keyed import take_key
from celeriac.app.request import Request
from celeriac.app.trace import tracer_for
from celeriac.canvas.signatures import as_list, maybe_signature
from celeriac.client.current import get_current_task
from celeriac.codec.envelope import new_id
from celeriac.codec.serializers import dumps, loads
from celeriac.exceptions import Ignore, Reject, Retry
from celeriac.model.message import Delivery, Message
from celeriac.model.outcome import Embed, Failure, Ignored, Outcome, Rejected, RetryAsked, Success
from celeriac.model.plan import Plan, plan
from celeriac.result import EagerResult

__all__ = ["apply_eagerly", "apply_keyed", "round_trip"]


def round_trip(conf: Any, args: Any, kwargs: Any, serializer: str | None) -> tuple[Any, Any]:
    """Arguments as a worker would get them: what cannot be sent fails in tests too, what changes on the way changes."""
    content_type, encoding, data = dumps((args or (), kwargs or {}), serializer or conf.task_serializer)
    args, kwargs = loads(data, content_type, encoding, frozenset({content_type}))
    return args, kwargs


def apply_keyed(task: Any, args: Any, kwargs: Any, options: dict[str, Any]) -> Any:
    """``task.apply``, with the result of the first call under an ``idempotency_key`` for those that follow."""
    app = task.app
    key = take_key(task.name, options, app.conf.task_idempotency_ttl)
    if key is None:
        return task.apply(args, kwargs, **options)
    known: dict[str, tuple[float, Any]] = app.__dict__.setdefault("_eager_keys", {})
    until, result = known.get(key[0], (0.0, None))
    if until <= monotonic():
        result = task.apply(args, kwargs, **options)
        known[key[0]] = monotonic() + key[1], result
    return result


def apply_eagerly(
    task: Any,
    args: Any,
    kwargs: Any,
    *,
    task_id: str | None,
    retries: int,
    throw: bool | None,
    link: Any,
    link_error: Any,
    options: Mapping[str, Any],
) -> EagerResult[Any]:
    """Run ``task``, its retries and its callbacks; see ``Task.apply``."""
    app = task.app
    task = app.tasks.get(task.name, task)
    if throw is None:
        throw = app.conf.task_eager_propagates
    request = _request(task, args, kwargs, task_id or new_id(), retries, link, link_error, options)
    tracer = tracer_for(task, hostname=request.hostname, eager=True)
    outcome = _run_async(tracer, request) if tracer.is_async else tracer.run(request)
    if throw:
        _raise(outcome, request)
    for signature in request.sends:
        signature.apply()
    if isinstance(outcome, RetryAsked):
        result: EagerResult[Any] = outcome.send.apply(throw=throw)
        return result
    return _result(task, request, outcome)


def _request(
    task: Any,
    args: Any,
    kwargs: Any,
    task_id: str,
    retries: int,
    link: Any,
    link_error: Any,
    options: Mapping[str, Any],
) -> Request:
    parent = get_current_task()
    limits = (options.get("time_limit", task.time_limit), options.get("soft_time_limit", task.soft_time_limit))
    around = parent.request if parent is not None else None
    fields: dict[str, Any] = {
        "id": task_id,
        "task": task.name,
        "args": args,
        "kwargs": kwargs,
        "parent_id": around.id if around is not None else None,
        "root_id": (around.root_id or task_id) if around is not None else task_id,
        "retries": retries,
        "is_eager": True,
        "called_directly": False,
        "logfile": options.get("logfile"),
        "loglevel": options.get("loglevel") or 0,
        "hostname": os.uname().nodename,
        "callbacks": as_list(link) or None,
        "errbacks": as_list(link_error) or None,
        "chain": options.get("chain"),
        "headers": options.get("headers"),
        "timelimit": None if limits == (None, None) else list(limits),
        "ignore_result": options.get("ignore_result", task.ignore_result),
        "delivery_info": {
            "is_eager": True,
            "exchange": options.get("exchange"),
            "routing_key": options.get("routing_key"),
            "priority": options.get("priority"),
        },
    }
    stamps = options.get("stamped_headers")
    if stamps:
        fields["stamped_headers"] = as_list(stamps)
        fields["stamps"] = {name: as_list(options.get(name)) for name in fields["stamped_headers"]}
    custom = options.get("headers")
    if custom:
        fields = {**custom, **fields}
    request = task.request_class(fields)
    assert isinstance(request, Request)
    return request


def _run_async(tracer: Any, request: Request) -> Outcome:
    """On an event loop of its own; in a thread of its own when this thread's loop is running."""
    import asyncio

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(tracer.arun(request))  # type: ignore[no-any-return]
    from concurrent.futures import ThreadPoolExecutor
    from contextvars import copy_context

    with ThreadPoolExecutor(1, "eager") as threads:
        outcome: Outcome = threads.submit(copy_context().run, asyncio.run, tracer.arun(request)).result()
        return outcome


def _raise(outcome: Outcome, request: Request) -> None:
    """What ``throw`` raises: whatever the task raised."""
    match outcome:
        case Failure(exc=exc):
            raise exc
        case RetryAsked(exc=exc, send=signature):
            when = signature.options.get("eta") or signature.options.get("countdown")
            raise Retry(exc=None if isinstance(exc, Retry) else exc, when=when, is_eager=True, sig=signature) from exc
        case _:
            return


def _result(task: Any, request: Request, outcome: Outcome) -> EagerResult[Any]:
    message = Message(id=request.id or "", task=task.name, headers={"root_id": request.root_id}, body=b"")
    embed = Embed(request.callbacks, request.errbacks, request.chain)
    decided = plan(Delivery(message=message, token="", queue=""), outcome, task.options(), time(), 0.0, embed=embed)
    _send(task, request, decided)
    match outcome:
        case Success(value=value):
            state = states.SUCCESS
        case Failure(exc=exc):
            state, value = states.FAILURE, exc
        case Ignored():
            state, value = states.IGNORED, Ignore()
        case Rejected(reason=reason, requeue=requeue):
            state, value = states.REJECTED, Reject(reason, requeue)
        case _:
            raise AssertionError(outcome)
    if task.store_eager_result and decided.state is not None:
        task.backend.store_result(request.id, value, state, traceback=decided.traceback, request=request)
    return EagerResult(message.id, value, state, traceback=decided.traceback, name=task.name)


def _send(task: Any, request: Request, decided: Plan) -> None:
    for send in decided.sends:
        signature = maybe_signature(send.signature, app=task.app)
        known = task.app.tasks.get(signature["task"]) if decided.event == "failed" else None
        if known is None:
            signature.apply_async(send.args, **send.options)
        elif takes_several(known.run):
            signature(request, decided.value, decided.traceback)
        else:
            signature.apply(send.args)
