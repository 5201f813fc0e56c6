"""The tasks that every app has, under the names that are on the wire."""

from __future__ import annotations

from typing import Any

from celeriac.app.state import connect_on_app_finalize
from celeriac.canvas import maybe_signature

__all__ = ["add_builtin_tasks"]


@connect_on_app_finalize
def add_builtin_tasks(app: Any) -> None:
    """Register the built-in tasks with an app."""

    @app.task(name="celery.backend_cleanup", shared=False)  # type: ignore[untyped-decorator]
    def backend_cleanup() -> None:
        """Drop expired results; stores whose server does so itself have nothing to do."""
        app.backend.cleanup()

    @app.task(name="celery.accumulate", shared=False)  # type: ignore[untyped-decorator]
    def accumulate(*args: Any, index: int | None = None, **kwargs: Any) -> Any:
        """The arguments, or the one at ``index``: what ``Task.replace`` puts behind a group."""
        return args if index is None else args[index]

    @app.task(name="celery.chain", shared=False)  # type: ignore[untyped-decorator]
    def chain(*args: Any, **kwargs: Any) -> None:
        """Only a name: a chain is sent step by step."""
        raise NotImplementedError("celery.chain is no task to run; send the chain's signature instead")

    @app.task(name="celery.map", shared=False)  # type: ignore[untyped-decorator]
    def xmap(task: Any, it: Any) -> list[Any]:
        """Call a task for each item, in this one task."""
        call = maybe_signature(task, app=app).type
        return [call(item) for item in it]

    @app.task(name="celery.starmap", shared=False)  # type: ignore[untyped-decorator]
    def xstarmap(task: Any, it: Any) -> list[Any]:
        """Call a task for each tuple of arguments, in this one task."""
        call = maybe_signature(task, app=app).type
        return [call(*item) for item in it]
