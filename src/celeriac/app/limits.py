"""What a task's declaration says of limits across workers, checked: the fields of ``TaskOptions`` that concern them.

Called once per task. A wrong limit is an error where the task is declared or first used, not where it would run.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from celeriac.exceptions import ImproperlyConfigured
from celeriac.model.limits import per_second

__all__ = ["check_limits", "limit_options"]


def check_limits(app: Any) -> bool:
    """Whether a task of the app is limited. Raises as ``limit_options``: before a worker starts, not when the task
    comes along."""
    limited = [task for task in app.tasks.values() if task.rate_limit or task.max_concurrency is not None]
    return any([task.options().limited for task in limited])


def limit_options(task: Any) -> dict[str, Any]:
    """Raises ``ImproperlyConfigured`` naming the task and the option."""
    try:
        rate = per_second(task.rate_limit)
    except ValueError as error:
        raise ImproperlyConfigured(f"task {task.name!r}: {error}") from None
    if task.app.conf.worker_disable_rate_limits or task.name.startswith("celery."):
        rate = None  # the default is for the user's tasks
    most = task.max_concurrency
    if most is not None and (isinstance(most, bool) or not isinstance(most, int) or most < 1):
        raise ImproperlyConfigured(f"task {task.name!r}: max_concurrency is a whole number from 1 on, not {most!r}")
    if most is not None and not task.acks_late:
        raise ImproperlyConfigured(
            f"task {task.name!r}: max_concurrency counts unacknowledged deliveries, so it needs acks_late=True"
        )
    return {
        "limited": rate is not None or most is not None,
        "rate": rate,
        "rate_key": _key(task, "rate_limit_key"),
        "max_concurrency": most,
        "concurrency_key": _key(task, "max_concurrency_key"),
    }


def _key(task: Any, option: str) -> Callable[..., Any] | None:
    """What makes the key of a call's arguments: the user's callable, or one that picks a parameter."""
    # A function in a class would come bound to the task.
    value = inspect.getattr_static(task, option, None)
    if isinstance(value, staticmethod):
        value = value.__func__
    if value is None or (callable(value) and not isinstance(value, str)):
        return value
    if isinstance(value, str):
        parameter = _parameter(task, value)
        if parameter is not None:
            return parameter
        raise ImproperlyConfigured(f"task {task.name!r}: {option}={value!r} is none of its parameters")
    raise ImproperlyConfigured(f"task {task.name!r}: {option} is a parameter's name or a callable, not {value!r}")


def _parameter(task: Any, name: str) -> Callable[..., Any] | None:
    """The argument of that name in a call."""
    signature = inspect.signature(task.run)
    known = signature.parameters.get(name)
    if known is None or known.kind in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD):
        return None
    place = list(signature.parameters).index(name)
    by_place = known.kind is not inspect.Parameter.KEYWORD_ONLY
    default = known.default

    def pick(*args: Any, **kwargs: Any) -> Any:
        if by_place and place < len(args):
            return args[place]
        return kwargs.get(name, default)

    return pick
