"""The tasks that every app has, under the names that are on the wire."""

from __future__ import annotations

from typing import Any

from celeriac.app.state import connect_on_app_finalize
from celeriac.canvas import chunks as Chunks  # noqa: N812 - the name is the task's here
from celeriac.canvas import maybe_signature
from celeriac.exceptions import ChordError
from celeriac.result import allow_join_result, result_from_tuple

__all__ = ["add_builtin_tasks"]


@connect_on_app_finalize
def add_builtin_tasks(app: Any) -> None:
    """Register the built-in tasks with an app."""
    _add_tasks(app)
    _add_unlock(app)
    _add_names(app)


def _add_tasks(app: Any) -> None:
    """Those of our own workflows and schedules."""

    @app.task(name="celery.backend_cleanup", shared=False)  # type: ignore[untyped-decorator]
    def backend_cleanup() -> None:
        """Drop expired results; stores whose server does so itself have nothing to do."""
        app.backend.cleanup()

    @app.task(name="celery.accumulate", shared=False)  # type: ignore[untyped-decorator]
    def accumulate(*args: Any, index: int | None = None, **kwargs: Any) -> Any:
        """The arguments, or the one at ``index``: what ``Task.replace`` puts behind a group."""
        return args if index is None else args[index]

    @app.task(name="celery.chunks", shared=False)  # type: ignore[untyped-decorator]
    def chunks(task: Any, it: Any, n: int) -> Any:
        """Send a task per chunk; the result is the group's tuple. Our own chains send the group itself."""
        return Chunks.apply_chunks(maybe_signature(task, app=app), it, n, app=app).as_tuple()

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


def _add_unlock(app: Any) -> None:
    """Celery's way of joining a chord."""

    @app.task(name="celery.chord_unlock", bind=True, max_retries=None, ignore_result=True, shared=False)  # type: ignore[untyped-decorator]
    def chord_unlock(
        self: Any,
        group_id: str,
        callback: Any,
        interval: Any = None,
        max_retries: Any = None,
        result: Any = (),
        **_celery: Any,
    ) -> None:
        """What Celery's senders send where their result backend cannot count: look until all are there."""
        header = app.GroupResult(group_id, [result_from_tuple(each, app) for each in result or ()])
        body = maybe_signature(callback, app=app)
        if not header.ready():
            raise self.retry(countdown=interval or app.conf.result_chord_retry_interval, max_retries=max_retries)
        try:
            with allow_join_result():
                values = header.join(timeout=app.conf.result_chord_join_timeout)
        except Exception as error:  # noqa: BLE001 - whatever a task of the header raised
            failed = next((each.id for each in header if each.failed()), group_id)
            app.backend.mark_as_failure(body.id, ChordError(f"Dependency {failed} raised {error!r}"))
        else:
            body.delay(values)


def _add_names(app: Any) -> None:
    """Names on the wire that are never run."""

    @app.task(name="celery.chain", shared=False)  # type: ignore[untyped-decorator]
    def chain(*args: Any, **kwargs: Any) -> None:
        """Only a name: a chain is sent step by step."""
        raise NotImplementedError("celery.chain is no task to run; send the chain's signature instead")

    @app.task(name="celery.group", shared=False)  # type: ignore[untyped-decorator]
    def group(*args: Any, **kwargs: Any) -> None:
        """Only a name: a group is sent task by task."""
        raise NotImplementedError("celery.group is no task to run; send the group's signature instead")

    @app.task(name="celery.chord", shared=False)  # type: ignore[untyped-decorator]
    def chord(*args: Any, **kwargs: Any) -> None:
        """Only a name: a chord is sent task by task."""
        raise NotImplementedError("celery.chord is no task to run; send the chord's signature instead")
