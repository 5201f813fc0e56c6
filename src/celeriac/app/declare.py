"""From a function to a task: what ``@app.task`` does.

Tasks are made at once, which needs no configuration: attributes that follow settings look them up when used, and
annotations are applied when the task is bound. Called by the app and by ``shared_task``.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

from celeriac.app.arguments import argument_checker
from celeriac.exceptions import DuplicateTaskNameWarning

__all__ = ["task_from_function", "warn_of_duplicate"]


#: Options that tasks have only when they are given.
_NOT_DECLARED = (
    "autoretry_for", "compression", "dont_autoretry_for", "exchange", "pydantic", "pydantic_context",
    "pydantic_dump_kwargs", "pydantic_strict", "queue", "result_extended", "retry_backoff", "retry_backoff_max",
    "retry_jitter", "retry_kwargs", "routing_key",
)  # fmt: skip


def task_from_function(
    app: Any, fun: Callable[..., Any], *, name: str | None = None, base: Any = None, bind: bool = False, **options: Any
) -> Any:
    """The task of ``fun`` in ``app``: a new one, or the one that has the name already (with a warning if of another).

    ``options`` become attributes.
    """
    tasks = app._tasks
    name = name or app.gen_task_name(fun.__name__, fun.__module__)
    declared = fun
    if name in tasks:
        known = tasks[name]
        existing = getattr(known, "_declared", None)
        if existing is not None and existing is not declared:
            what = "The new one was not registered: calls under this name reach the first."
            warn_of_duplicate(app, name, existing, declared, what)
        return known
    _warn_of_typos(name, options, base or app.Task)
    if options.get("pydantic"):
        from celeriac.app.models import validating

        fun = validating(app, fun, name, options)
    if callable(options.get("unique")):
        options["unique"] = staticmethod(options["unique"])  # it gets the arguments of the call, not the task
    body = fun if bind else staticmethod(fun)
    cls = type(
        fun.__name__,
        (base or app.Task,),
        {
            "_app": app,
            "_declared": staticmethod(declared),
            "_decorated": True,
            "name": name,
            "run": body,
            "__doc__": fun.__doc__,
            "__module__": fun.__module__,
            "__annotations__": getattr(fun, "__annotations__", {}),
            "__header__": staticmethod(argument_checker(declared, bound=bind)),
            "__wrapped__": body,
            **options,
        },
    )
    task = cls()
    # In the class it names the class; functools.wraps looks for it here.
    task.__qualname__ = getattr(fun, "__qualname__", fun.__name__)
    tasks[name] = task
    if app.finalized:
        task.bind(app)
    return task


def _warn_of_typos(name: str, options: Mapping[str, Any], base: Any) -> None:
    """Options become attributes, so any name will do; but one that is nearly a known one is a slip."""
    unknown = [option for option in options if not hasattr(base, option) and option not in _NOT_DECLARED]
    if not unknown:
        return
    from difflib import get_close_matches

    known = [*_NOT_DECLARED, *(attribute for attribute in dir(base) if not attribute.startswith("_"))]
    for option in unknown:
        close = get_close_matches(option, known, n=1, cutoff=0.85)
        if close:
            warnings.warn(
                f"task {name}: there is no option {option!r} of a task, it has no effect; did you mean {close[0]!r}?",
                stacklevel=4,
            )


def warn_of_duplicate(app: Any, name: str, existing: Any, new: Any, consequence: str) -> None:
    """Say once per name that two callables want it."""
    if name in app._duplicates:
        return
    app._duplicates.add(name)
    warnings.warn(
        DuplicateTaskNameWarning(
            f"Task name {name!r} is already registered to a different callable: {_place(existing)}, now {_place(new)}. "
            f"{consequence} Give one of them another name, by name= or by renaming it."
        ),
        stacklevel=4,
    )


def _place(fun: Any) -> str:
    return f"{getattr(fun, '__module__', '?')}.{getattr(fun, '__qualname__', type(fun).__qualname__)}"
