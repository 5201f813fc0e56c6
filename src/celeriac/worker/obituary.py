"""The record of a task that was acknowledged before it ran, when its process died: whoever waits for it is told.

Its message is gone, so all that is known is what the slot has kept: its id, and where ``rpc://`` sends results. Nothing
follows, and no chord is told. Used by ``burial.py``.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from celeriac import states
from celeriac.codec.escape import one_line
from celeriac.codec.results import decode_result
from celeriac.codec.signing import unseal
from celeriac.exceptions import CeleryError, TaskRevokedError, TimeLimitExceeded, WorkerLostError
from celeriac.model import outcome as o
from celeriac.model.settle import StoredResult
from celeriac.model.workflow import Abandoned
from celeriac.ports import ResultStore
from celeriac.worker.records import Recorder
from celeriac.worker.runner import Runner

__all__ = ["Obituary"]

logger = logging.getLogger("celery.worker")


class Obituary:
    """Of one node; ``put`` takes the records."""

    def __init__(
        self, store: ResultStore | None, runner: Runner, put: Callable[[Sequence[StoredResult]], None]
    ) -> None:
        self._store = store
        self._put = put
        conf = runner.app.conf
        self._recorder = Recorder(runner.options.hostname, conf, runner.now)
        self._signer = runner.signer
        self._accept = frozenset(conf.result_accept_content or conf.accept_content)
        self._serializer: str = conf.result_serializer

    async def write(self, task_id: str, outcome: o.Outcome, reply_to: str = "") -> None:
        """Record what a death says of a task, unless its end is stored. Raises ``OperationalError``."""
        if self._store is None:
            return
        (raw,) = await self._store.get([task_id])
        if raw is None or self._is_open(task_id, raw):
            state, exc = _end(outcome)
            why = one_line(f"{type(exc).__name__}: {exc}")
            logger.error("Task %s was acknowledged before it ran, and is lost: %s", one_line(task_id), why)
            self._put(self._recorder.others([Abandoned(task_id)], state, exc, reply_to))

    def _is_open(self, task_id: str, raw: bytes) -> bool:
        """It says of no end; it may be a state of the task's own. What cannot be read stays: somebody wrote it."""
        try:
            body = unseal(self._signer, "result", task_id, raw)
            status = decode_result(body, accept=self._accept, serializer=self._serializer)["status"]
        except CeleryError:
            return False
        return status not in states.READY_STATES


def _end(outcome: o.Outcome) -> tuple[str, Exception]:
    match outcome:
        case o.TimedOut(limit):
            return states.FAILURE, TimeLimitExceeded(limit)
        case o.Revoked():
            return states.REVOKED, TaskRevokedError(str(outcome))
        case o.Crashed(how):
            return states.FAILURE, WorkerLostError(f"Worker exited prematurely: its process died by {how}")
        case _:
            return states.FAILURE, WorkerLostError("Worker exited prematurely: its process was ended for another task")
