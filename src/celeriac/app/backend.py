"""``app.backend``: reading and writing result records directly, under the names of Celery's backends.

For ``update_state`` and for users who look behind ``AsyncResult``. Sits on the blocking ``Reader``; knows no server.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from celeriac import states
from celeriac.app.starts import Starts
from celeriac.client import records, resolver
from celeriac.client.connections import PerProcess
from celeriac.client.transactions import outlet_of
from celeriac.codec.chords import decode_shape
from celeriac.codec.json import dumps
from celeriac.codec.results import encode_result
from celeriac.codec.signing import seal, signer_of, unseal
from celeriac.exceptions import DecodeError
from celeriac.model.chord import NewChord
from celeriac.model.settle import StoredResult
from celeriac.ports import Reader
from celeriac.result import result_from_tuple

__all__ = ["Backend"]

#: Seconds that one operation may take.
_TIMEOUT = 10.0


class Backend:
    """The result records of an app. Without a result backend storing does nothing and reading says so."""

    def __init__(self, app: Any, url: str | None) -> None:
        self.app = app
        self.url = url
        self.starts = Starts()
        self._reader: PerProcess[Reader] | None = None
        #: Any process can read any record; False: the one that has sent the task alone (``rpc://``).
        self.shared = not str(url).startswith("rpc:")
        if url is not None:
            self._reader = PerProcess(lambda: resolver.reader(url, app.sender.replies.options()))

    @property
    def enabled(self) -> bool:
        """Results are stored."""
        return self._reader is not None

    @property
    def persistent(self) -> bool:
        """Results survive the process that stored them."""
        return self.enabled and not str(self.url).startswith(("memory", "rpc"))

    @property
    def reader(self) -> Reader:
        """The reader of this process. Raises ``NotImplementedError`` when there is no result backend."""
        if self._reader is None:
            raise NotImplementedError(
                "No result backend is configured.\nSet `result_backend`, or pass backend=... to Celery()."
            )
        return self._reader.get()

    def as_uri(self, include_password: bool = False) -> str:
        """The URL, its password masked."""
        if self.url is None:
            return "disabled://"
        return self.url if include_password else resolver.mask(self.url)

    def store_result(
        self, task_id: str, result: Any, state: str, traceback: str | None = None, request: Any = None, **kwargs: Any
    ) -> Any:
        """Store a record; ``result`` is a value, an exception, or the meta data of a state of one's own.

        Raises ``NotImplementedError`` with ``rpc://`` when no ``request`` says who waits for it."""
        if self._reader is None:
            return result
        if request is None and not self.shared:
            raise NotImplementedError(
                f"rpc:// does not know who waits for task {task_id!r:.80}: store its state inside the task, or set "
                "result_backend to a store, such as redis://"
            )
        conf = self.app.conf
        terminal = state in states.READY_STATES
        body = encode_result(
            task_id=task_id,
            state=state,
            result=result,
            traceback=traceback,
            children=[child.as_tuple() for child in request.children] if request is not None else (),
            date_done=datetime.now(UTC).isoformat() if terminal else None,
            group_id=request.group if request is not None else None,
            parent_id=request.parent_id if request is not None else None,
            extended=_extended(request) if conf.result_extended and request is not None else None,
            serializer=conf.result_serializer,
        )
        body = seal(signer_of(conf), "result", task_id, body)
        reply_to = getattr(request, "reply_to", None) or ""
        record = StoredResult(task_id, body, terminal, conf.seconds("result_expires"), reply_to)
        self.starts.overtake(record)
        self.reader.put([record], timeout=_TIMEOUT)
        return result

    def mark_as_started(self, task_id: str, **meta: Any) -> Any:
        """Store STARTED."""
        return self.store_result(task_id, meta, states.STARTED)

    def mark_as_done(self, task_id: str, result: Any, request: Any = None, store_result: bool = True) -> None:
        """Store SUCCESS."""
        if store_result:
            self.store_result(task_id, result, states.SUCCESS, request=request)

    def mark_as_failure(
        self, task_id: str, exc: BaseException, traceback: str | None = None, request: Any = None, **kwargs: Any
    ) -> None:
        """Store FAILURE."""
        self.store_result(task_id, exc, kwargs.get("state", states.FAILURE), traceback=traceback, request=request)

    def mark_as_retry(
        self, task_id: str, exc: BaseException, traceback: str | None = None, request: Any = None
    ) -> None:
        """Store RETRY."""
        self.store_result(task_id, exc, states.RETRY, traceback=traceback, request=request)

    def mark_as_revoked(self, task_id: str, reason: str = "", request: Any = None, **kwargs: Any) -> None:
        """Store REVOKED."""
        from celeriac.exceptions import TaskRevokedError

        self.store_result(task_id, TaskRevokedError(reason), states.REVOKED, request=request)

    def get_task_meta(self, task_id: str, cache: bool = True) -> dict[str, Any]:
        """The record; PENDING when there is none."""
        meta = records.fetch(self.reader, task_id, self.app.conf)
        return {"status": states.PENDING, "result": None, "task_id": task_id} if meta is None else meta

    def get_state(self, task_id: str) -> str:
        """The state."""
        return str(self.get_task_meta(task_id)["status"])

    get_status = get_state

    def get_result(self, task_id: str) -> Any:
        """The result, or the exception."""
        return self.get_task_meta(task_id)["result"]

    def get_traceback(self, task_id: str) -> str | None:
        """The traceback of a failure."""
        traceback = self.get_task_meta(task_id).get("traceback")
        return None if traceback is None else str(traceback)

    def get_children(self, task_id: str) -> Any:
        """Result tuples of what the task has sent."""
        return self.get_task_meta(task_id).get("children")

    def forget(self, task_id: str) -> None:
        """Drop the record, with a result in the payload store."""
        records.forget(self.reader, task_id, self.app.conf)

    # ------------------------------------------------------------ groups and chords

    def open_chord(self, chord: NewChord) -> None:
        """Write a chord before its tasks are sent: ``open_chords`` for one."""
        self.open_chords([chord])

    def open_chords(self, chords: Sequence[NewChord]) -> None:
        """Write chords before their tasks are sent. Raises ``NotImplementedError`` when there is no result backend."""
        if self._reader is None:
            raise NotImplementedError(
                "Chords need a result backend, where their tasks wait for each other.\n"
                "Set `result_backend`, or pass backend=... to Celery()."
            )
        self.ensure_chords_allowed()
        outlet = outlet_of(self.app.conf)
        if outlet is not None:
            outlet.open_chords(chords)
        else:
            self.write_chords(chords)

    def write_chords(self, chords: Sequence[NewChord]) -> None:
        """``open_chords`` whatever transaction the application is in."""
        self.reader.open_chords(chords, timeout=_TIMEOUT)

    def add_to_chord(self, group_id: str, result: Any) -> None:
        """The chord waits for one task more (``Task.add_to_chord``)."""
        self.reader.grow_chord(group_id, 1, timeout=_TIMEOUT)

    def save_group(self, group_id: str, result: Any) -> Any:
        """Keep a ``GroupResult``."""
        body = seal(signer_of(self.app.conf), "group", group_id, dumps({"result": result.as_tuple()}))
        self.reader.save_group(
            group_id, body, expires=self.app.conf.seconds("result_expires") or None, timeout=_TIMEOUT
        )
        return result

    def restore_group(self, group_id: str, cache: bool = True) -> Any:
        """The ``GroupResult`` that was saved under that id, None when there is none. Raises ``DecodeError`` and, where
        results are signed, ``SecurityError``."""
        body = self.reader.load_group(group_id, timeout=_TIMEOUT)
        if body is None:
            return None
        body = unseal(signer_of(self.app.conf), "group", group_id, body)
        try:
            return result_from_tuple(decode_shape(body), self.app)
        except (TypeError, ValueError, LookupError, RecursionError) as error:
            raise DecodeError(f"what is kept as group {group_id!r:.80} is no result tuple: {error!r:.200}") from error

    def delete_group(self, group_id: str) -> None:
        """Forget a saved group."""
        self.reader.drop_group(group_id, timeout=_TIMEOUT)

    def ensure_chords_allowed(self) -> None:
        """Celery asks here whether chords work: they do, wherever results are kept. Raises ``NotImplementedError`` with
        ``rpc://``, which keeps none."""
        if not self.shared:
            raise NotImplementedError(
                "rpc:// cannot count the tasks of a chord, nor of a group with a step behind it: set result_backend to "
                "a store, such as redis://"
            )

    def cleanup(self) -> None:
        """Drop expired records. Workers do so by themselves; here for Celery's task ``celery.backend_cleanup``."""

    def process_cleanup(self) -> None:
        """Celery calls this after each task; there is nothing to do."""

    def close(self) -> None:
        """Give the connections back."""
        if self._reader is None:
            return
        reader = None if self.shared else self._reader.present()
        if reader is not None:
            reader.close()  # what came is in it, and nowhere else
        else:
            self._reader.close()


def _extended(request: Any) -> dict[str, Any]:
    info = request.delivery_info or {}
    return {
        "name": request.task,
        "args": request.args,
        "kwargs": request.kwargs,
        "worker": request.hostname,
        "retries": request.retries,
        "queue": info.get("routing_key"),
    }
