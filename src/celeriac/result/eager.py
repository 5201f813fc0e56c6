"""The result of a task that ran where it was called (``apply``, ``task_always_eager``)."""

from __future__ import annotations

from typing import Any, TypeVar

from celeriac import states
from celeriac.client.records import Meta
from celeriac.exceptions import TaskRevokedError
from celeriac.result.single import AsyncResult

__all__ = ["EagerResult"]

R = TypeVar("R")


class EagerResult(AsyncResult[R]):
    """The result of a task that ran here and now (``apply``, ``task_always_eager``)."""

    def __init__(
        self,
        id: str,  # noqa: A002 - Celery's name
        ret_value: Any,
        state: str,
        traceback: str | None = None,
        name: str | None = None,
    ) -> None:
        self.id = id
        self.app = None
        self.parent = None
        self.ignored = False
        self._backend = None
        self._then = None
        self._cache = {
            "status": state,
            "result": ret_value,
            "traceback": traceback,
            "children": None,
            "task_id": id,
            "name": name,
        }

    def _get_task_meta(self) -> Meta:
        return self._cache or {}

    def ready(self) -> bool:
        """It is."""
        return True

    def forget(self) -> None:
        """Nothing is stored, so nothing is dropped."""

    def revoke(self, *args: Any, **kwargs: Any) -> None:
        """Make this a revoked result; the task has run all the same."""
        self._cache = {
            **self._get_task_meta(),
            "status": states.REVOKED,
            "result": TaskRevokedError("revoked"),
            "traceback": None,
        }

    def __copy__(self) -> EagerResult[R]:
        return type(self)(*self.__reduce_args__())

    def __reduce_args__(self) -> tuple[Any, ...]:
        meta = self._get_task_meta()
        return self.id, meta["result"], meta["status"], meta["traceback"], meta["name"]
