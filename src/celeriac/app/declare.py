"""From a function to a task: what ``@app.task`` does.

Tasks are made at once, which needs no configuration: attributes that follow settings look them up when used, and
annotations are applied when the task is bound. Called by the app and by ``shared_task``.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

from celeriac.app.arguments import argument_checker
from celeriac.exceptions import DuplicateTaskNameWarning

__all__ = ["task_from_function", "warn_of_duplicate"]


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
