"""Tasks that look now and then whether somebody wants them to stop: ``celery.contrib.abortable``.

``result.abort()`` stores the state ``ABORTED`` in the result's record, and a task derived from ``AbortableTask`` asks
``self.is_aborted()``. Nothing ends such a task but itself: what it has begun it can bring to a good end. To end a task
that does not ask use ``result.revoke(terminate=True)``.

Needs a result backend that all processes share, and results that are kept: not ``rpc://``, not ``ignore_result``.
"""

from __future__ import annotations

from typing import Any

from celeriac.app.task import Task
from celeriac.exceptions import ImproperlyConfigured
from celeriac.result import AsyncResult

__all__ = ["ABORTED", "AbortableAsyncResult", "AbortableTask"]

#: The state of a task that somebody wants to stop.
ABORTED = "ABORTED"


class AbortableAsyncResult(AsyncResult[Any]):
    """A result whose task can be asked to stop."""

    def is_aborted(self) -> bool:
        """Somebody wants it to stop, and it has not ended since."""
        return self.state == ABORTED

    def abort(self) -> Any:
        """Ask the task to stop, whether it waits or runs; one that has ended keeps its end, but for a failure of this
        very moment. Raises ``ImproperlyConfigured`` where no result backend keeps the wish."""
        backend = self.backend
        if not (backend.enabled and backend.shared):
            raise ImproperlyConfigured(
                "abort() stores its wish with the result, which needs a result_backend that all processes share, such "
                "as redis://"
            )
        if self.ready():
            return None
        return backend.store_result(self.id, None, ABORTED)


class AbortableTask(Task[..., Any]):
    """Base class of tasks that ask whether to stop: ``@app.task(bind=True, base=AbortableTask)``."""

    abstract = True

    def AsyncResult(self, task_id: str, **kwargs: Any) -> AbortableAsyncResult:  # noqa: N802 - Celery's name
        """The result of one of its runs."""
        return AbortableAsyncResult(task_id, **{"app": self.app, **kwargs})

    def is_aborted(self, task_id: str | None = None, **kwargs: Any) -> bool:
        """Somebody wants this run (or another one) to stop. One question to the result backend: not for each turn of a
        tight loop."""
        asked = task_id or self.request.id
        if asked is None or self.request.is_eager:
            return False
        return self.AsyncResult(asked).is_aborted()
