"""What results need of an app, on the memory adapter."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any
from uuid import uuid4

from celeriac import states
from celeriac.client import resolver
from celeriac.codec.results import encode_result
from celeriac.conf.settings import Settings
from celeriac.model.settle import StoredResult
from celeriac.result import AsyncResult, GroupResult


class App:
    """What a result needs of an app."""

    def __init__(self, **settings: Any) -> None:
        self.conf = Settings(settings)
        self.backend = Backend(resolver.reader(f"memory://{uuid4()}", resolver.store_options(self.conf)))
        self.revoked: list[Any] = []
        self.control = SimpleNamespace(revoke=lambda *args, **kwargs: self.revoked.append((args, kwargs)))

    def AsyncResult(self, task_id: str, **kwargs: Any) -> AsyncResult[Any]:
        return AsyncResult(task_id, app=self, **kwargs)

    def GroupResult(self, group_id: str | None = None, results: Any = (), **kwargs: Any) -> GroupResult[Any]:
        return GroupResult(group_id, results, app=self, **kwargs)

    def store(self, task_id: str, result: Any = None, state: str = states.SUCCESS, **more: Any) -> AsyncResult[Any]:
        body = encode_result(task_id=task_id, state=state, result=result, **more)
        self.put(task_id, body, state in states.READY_STATES)
        return self.AsyncResult(task_id)

    def put(self, task_id: str, body: bytes, terminal: bool = True) -> None:
        self.backend.reader.put([StoredResult(task_id, body, terminal)], timeout=1)


class Backend:
    def __init__(self, reader: Any) -> None:
        self.reader = reader
