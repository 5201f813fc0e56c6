"""Steps of a task that are not run again: ``self.once("charge", fn, …)``.

What a step returned is recorded in the ledger under the task's id, so that a later attempt (a retry, a redelivery after
a crash) gets it without running the step. Two runs of one task at a time agree on what was recorded first. Where no
worker runs the task, records are kept in memory. ``Steps`` belongs to the app, ``Stepping`` is its face on a task.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec, TypeVar, cast

from celeriac.app.arguments import is_coroutine_function
from celeriac.app.unique import key_text
from celeriac.client import resolver
from celeriac.client.connections import PerProcess
from celeriac.codec.json import dumps, loads
from celeriac.exceptions import EncodeError, ImproperlyConfigured, OperationalError
from celeriac.model.ledger import Change
from celeriac.ports import BlockingLedger

__all__ = ["Stepping", "Steps"]

P = ParamSpec("P")
R = TypeVar("R")

#: Seconds for which a step that has run is recorded again and again while the ledger is away, and between two tries.
_PERSIST, _PAUSE = 30.0, 0.25
#: Records of tasks that run in place; the oldest is forgotten.
_LOCAL_LIMIT = 10_000


class Steps:
    """The records of one app's steps."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self._ledger: PerProcess[BlockingLedger] = PerProcess(self._open)
        self._local: dict[str, bytes] = {}

    def _open(self) -> BlockingLedger:
        conf = self._app.conf
        messages = self._app.broker_url
        url = resolver.ledger_url(conf, messages)
        if url is None:
            raise ImproperlyConfigured(
                f"self.once() needs a ledger, and neither {resolver.mask(messages)} nor the result backend keeps one: "
                "set ledger_url to a server that does, such as Redis"
            )
        own = url == messages
        return resolver.ledger(url, resolver.adapter_options(conf, url) if own else resolver.ledger_options(conf, url))

    def close(self) -> None:
        """Give the connections back."""
        self._ledger.close()

    def run(self, request: Any, step: str, fn: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """What the step returned, now or in an earlier attempt."""
        key, local = self._place(request, step)
        known = self._read(key, local)
        if known is None:
            known = self._record(key, local, _encoded(step, fn(*args, **kwargs)))
        return loads(known)

    async def arun(
        self, request: Any, step: str, fn: Callable[..., Coroutine[Any, Any, Any]], args: Any, kwargs: Any
    ) -> Any:
        """As ``run``, for coroutine functions; the ledger is asked on a thread."""
        import asyncio

        key, local = self._place(request, step)
        known = await asyncio.to_thread(self._read, key, local)
        if known is None:
            body = _encoded(step, await fn(*args, **kwargs))
            # What has run must be recorded, even when the task is being cancelled.
            known = await asyncio.shield(asyncio.to_thread(self._record, key, local, body))
        return loads(known)

    def _place(self, request: Any, step: str) -> tuple[str, dict[str, bytes] | None]:
        """The key of a step, and the dict that has it where no worker runs the task: of the call, or of the app."""
        name = key_text(step, "the name of a step")
        if not name:
            raise ValueError("the name of a step must not be empty")
        if request.called_directly or request.id is None:
            own: dict[str, bytes] = request.__dict__.setdefault("_steps", {})
            return name, own
        return f"step:{request.id}:{name}", self._local if request.is_eager else None

    @property
    def _timeout(self) -> float:
        return float(self._app.conf.seconds("broker_publish_timeout"))

    def _read(self, key: str, local: dict[str, bytes] | None) -> bytes | None:
        if local is not None:
            return local.get(key)
        return self._ledger.get().read([key], timeout=self._timeout)[0]

    def _record(self, key: str, local: dict[str, bytes] | None, body: bytes) -> bytes:
        """Record a step, unless somebody was faster; returns what is recorded. Raises ``OperationalError``."""
        if local is not None:
            while len(local) >= _LOCAL_LIMIT:
                del local[next(iter(local))]
            return local.setdefault(key, body)
        life = self._app.conf.seconds("task_step_expires")
        deadline = time.monotonic() + _PERSIST
        while True:
            try:
                ledger = self._ledger.get()
                if ledger.change([Change(key, body, None, life)], timeout=self._timeout)[0]:
                    return body
                there = ledger.read([key], timeout=self._timeout)[0]
            except OperationalError:
                # It has run: what is not recorded now runs again.
                if time.monotonic() >= deadline:
                    raise
                time.sleep(_PAUSE)
            else:
                if there is not None:
                    return there


class Stepping:
    """The steps of a task: a base of ``Task`` only."""

    app: Any
    name: str
    request: Any
    is_async: Any

    def once(self, step: str, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run ``fn(*args, **kwargs)`` unless an earlier attempt of this task has: then return what it returned.

        For bound tasks: ``self.once("charge", charge, order)``, and ``await self.once(…)`` with a coroutine function in
        an ``async def`` task. ``step`` names it within the task. The value is recorded as JSON for
        ``task_step_expires``; what ``fn`` raises is not. A crash between the effect of ``fn`` and its record runs it
        again: hand ``self.step_key(step)`` to what it calls.

        Raises ``EncodeError`` when JSON cannot hold the value, ``OperationalError`` when the ledger cannot be reached.
        """
        steps, is_async = self.app.task_steps, is_coroutine_function(fn)
        if is_async is not self.is_async:
            wanted = "a coroutine function" if self.is_async else "a plain function"
            raise TypeError(f"task {self.name}: once() takes {wanted} here, as the task is one; step {step!r} is none")
        run = steps.arun if is_async else steps.run
        return cast(R, run(self.request, step, fn, args, kwargs))

    def step_key(self, step: str) -> str:
        """A text that is the same in all attempts of this task and in no other: an idempotency key for remote calls."""
        return f"{self.request.id}:{step}"


def _encoded(step: str, value: Any) -> bytes:
    try:
        return dumps(value)
    except EncodeError as error:
        raise EncodeError(f"what the step {step!r} returned cannot be recorded: {error}") from error
