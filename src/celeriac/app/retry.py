"""The next attempt of a task: its signature, and ``self.retry()``.

When to try again is arithmetic in ``model/retry.py``; that a retry follows is ``plan``'s word. Called by ``Task.retry``
and by the tracer; sends nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, NoReturn

from celeriac.exceptions import MaxRetriesExceededError, Retry
from celeriac.model.ledger import LOCK
from celeriac.model.limits import SEAT
from celeriac.model.retry import delay

__all__ = ["ask_for_retry", "next_attempt", "signature_from_request"]


def signature_from_request(
    task: Any, request: Any, args: Any, kwargs: Any, queue: str | None, options: Mapping[str, Any]
) -> Any:
    """A signature that would send the request's message once more, with ``options`` on top."""
    merged = request.as_execution_options()
    asked = request.asks_to_ignore_result
    merged["ignore_result"] = task.ignore_result if asked is None else asked
    merged.update(options)
    _keep_holds(request, merged)
    info = request.delivery_info or {}
    if info.get("priority") is not None:
        merged["priority"] = info["priority"]
    routing_key, exchange = info.get("routing_key"), info.get("exchange")
    if queue:
        merged["queue"] = queue
    elif routing_key and not exchange:
        merged["queue"] = routing_key
    elif routing_key:
        merged.update(exchange=exchange, routing_key=routing_key)
    return task.signature(
        request.args if args is None else args, request.kwargs if kwargs is None else kwargs, merged, type=task
    )


def _keep_holds(request: Any, options: dict[str, Any]) -> None:
    """The lock of a unique task goes on with it, and a seat, also when the caller gave headers of his own."""
    kept = {name: value for name in (LOCK, SEAT) if (value := request.get(name)) is not None}
    if kept:
        options["headers"] = {**(options.get("headers") or {}), **kept}


def next_attempt(task: Any, request: Any, *, countdown: float | None = None, **options: Any) -> Any:
    """The signature of the attempt after ``request``: same id, one retry more, same limits, links and headers."""
    queue = options.pop("queue", None)
    args, kwargs = options.pop("args", None), options.pop("kwargs", None)
    args, kwargs = _new_arguments(task, request, args, kwargs)
    options = {"countdown": countdown, "eta": None, "retries": request.retries + 1, **options}
    return signature_from_request(task, request, args, kwargs, queue, options)


def ask_for_retry(
    task: Any,
    args: Any,
    kwargs: Any,
    exc: BaseException | None,
    throw: bool,
    eta: datetime | None,
    countdown: float | None,
    max_retries: int | None,
    options: dict[str, Any],
) -> Retry:
    """``Task.retry``: raises Retry carrying the next attempt's signature, or what ended the retries."""
    request = task.request
    if request.called_directly:
        _raise(exc or Retry("Task can be retried", None))
    declared = task.options()
    limit = declared.max_retries if max_retries is None else max_retries
    if eta is None and countdown is None:
        from random import random

        countdown = delay(declared, request.retries, random())
    signature = next_attempt(task, request, args=args, kwargs=kwargs, countdown=countdown, eta=eta, **options)
    if limit is not None and request.retries + 1 > limit:
        if exc is not None:
            _raise(exc)
        raise MaxRetriesExceededError(
            f"Can't retry {task.name}[{request.id}] args:{signature.args} kwargs:{signature.kwargs}",
            task_args=signature.args,
            task_kwargs=signature.kwargs,
        )
    retry = Retry(exc=exc, when=eta if eta is not None else countdown, is_eager=request.is_eager, sig=signature)
    if throw:
        raise retry
    # The attempt goes on; whoever runs it sends what is listed here when it is over.
    request.sends.append(signature)
    return retry


def _raise(exc: BaseException) -> NoReturn:
    """Raise ``exc``, with the exception that is being handled as its cause."""
    import sys

    handled = sys.exc_info()[1]
    if handled is None or handled is exc or exc.__cause__ is handled:
        raise exc
    raise exc from handled


def _new_arguments(task: Any, request: Any, args: Any, kwargs: Any) -> tuple[Any, Any]:
    """Arguments of the next attempt when the call replaces some: a value may be given by position first, then by name.

    Replaced ones must not meet inherited ones of the same name (celery#6494).
    """
    if args is not None and kwargs is None and request.kwargs:
        taken = _positional_names(task)[: len(args)]
        return args, {name: value for name, value in request.kwargs.items() if name not in taken}
    if kwargs is not None and args is None and request.args:
        names = _positional_names(task)
        values = list(request.args)
        rest = dict(kwargs)
        for index, name in enumerate(names[: len(values)]):
            if name in rest:
                values[index] = rest.pop(name)
        return values, rest
    return args, kwargs


def _positional_names(task: Any) -> list[str]:
    """Names of the parameters that take a value by position or by name, positional-only ones as empty texts."""
    import inspect

    try:
        parameters = inspect.signature(task.run).parameters.values()
    except (TypeError, ValueError):
        return []
    kinds = {inspect.Parameter.POSITIONAL_ONLY: "", inspect.Parameter.POSITIONAL_OR_KEYWORD: None}
    return [p.name if kinds[p.kind] is None else "" for p in parameters if p.kind in kinds]
