"""``shared_task``: tasks of libraries, which every app has. The name stands for the current app's copy."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, TypeVar, overload

from celeriac.app.proxy import Proxy
from celeriac.app.state import active_apps, connect_on_app_finalize, get_current_app

if TYPE_CHECKING:
    from celeriac.app.decorators import AsyncTask, BoundDecorator, Decorator
    from celeriac.app.task import Task

__all__ = ["shared_task"]

P = ParamSpec("P")
R = TypeVar("R")


@overload
def shared_task(fun: Callable[P, Coroutine[Any, Any, R]], /) -> AsyncTask[P, R]: ...
@overload
def shared_task(fun: Callable[P, R], /) -> Task[P, R]: ...
@overload
def shared_task(*, bind: Literal[True], name: str | None = ..., **options: Any) -> BoundDecorator: ...
@overload
def shared_task(*, name: str | None = ..., bind: Literal[False] = ..., **options: Any) -> Decorator: ...


def shared_task(*args: Any, **options: Any) -> Any:
    """Declare a task that every app has, those made later too; takes what ``app.task`` takes.

    What it returns stands for the task of the app that is current when it is used.
    """

    def declare(fun: Any) -> Any:
        if type(fun) is Proxy:
            raise TypeError("@shared_task was applied more than once to the same function: remove the extra decorator")
        name = options.get("name")

        def register(app: Any) -> Any:
            return app._task_from_fun(fun, **options)

        connect_on_app_finalize(register)
        for app in active_apps():
            if app.finalized:
                register(app)

        def lookup() -> Any:
            app = get_current_app()
            return app.tasks[name or app.gen_task_name(fun.__name__, fun.__module__)]

        return Proxy(lookup, doc=fun.__doc__, module=fun.__module__)

    if len(args) == 1 and callable(args[0]):
        return declare(args[0])
    if args:
        raise TypeError("@shared_task takes a function, or options by name")
    return declare
