"""Reading result records for whoever waits: decoded, failures rebuilt, one wait for one record or many at once.

Sits on the blocking ``Reader`` port. Called by ``celeriac.result``.
"""

from __future__ import annotations

import builtins
import os
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, ref

from celeriac.client.payloads import Payloads, payloads_of
from celeriac.codec.failures import data_to_exception
from celeriac.codec.results import decode_result
from celeriac.codec.signing import signer_of, unseal
from celeriac.exceptions import (
    CeleryError,
    DecodeError,
    OperationalError,
    SecurityError,
    TimeoutError,  # noqa: A004 - Celery's name
)
from celeriac.ports import Reader
from celeriac.states import EXCEPTION_STATES, READY_STATES

if TYPE_CHECKING:
    import asyncio

__all__ = ["Awaiter", "Meta", "awaiter", "decode", "fetch", "forget", "wait"]

#: A record as Celery's users know it: ``status``, ``result`` (an exception when it failed), ``traceback`` …
Meta = dict[str, Any]

#: Seconds that a single read may take; waits have limits of their own.
READ_TIMEOUT = 10.0
#: What a record holds around its value.
_ENVELOPE_BYTES = 65536
#: How long the thread below waits before it looks for newcomers: what a second concurrent wait may be late by.
_SLICE = 0.03


def decode(data: bytes, conf: Any, task_id: str) -> Meta:
    """The record in the bytes stored for a task.

    Raises ``DecodeError``, ``ContentDisallowed``, where results are signed ``SecurityError``, and for a result in the
    payload store ``PayloadLost``, ``MessageTooLarge`` and ``OperationalError``; nothing else.
    """
    if len(data) > conf.max_message_bytes + _ENVELOPE_BYTES:
        raise DecodeError(
            f"the result of {task_id!r:.80} has {len(data)} bytes, more than max_message_bytes={conf.max_message_bytes}"
        )
    data = unseal(signer_of(conf), "result", task_id, data)
    meta = decode_result(data, accept=frozenset(conf.result_accept_content), serializer=conf.result_serializer)
    if meta["status"] in EXCEPTION_STATES:
        meta["result"] = data_to_exception(meta["result"])
    elif "payload" in meta:
        meta["result"] = _payloads(conf).get_result(meta["payload"], frozenset(conf.result_accept_content))
    return meta


def _payloads(conf: Any) -> Payloads:
    payloads = payloads_of(conf)
    if payloads is None:
        raise DecodeError("the result lies in a payload store: set payload_store here as its worker has it")
    return payloads


def forget(reader: Reader, task_id: str, conf: Any) -> None:
    """Drop the record of a task, and the result that it refers to. Raises ``OperationalError``."""
    payloads = payloads_of(conf)
    if payloads is not None:
        (data,) = reader.get((task_id,), timeout=READ_TIMEOUT)
        if data is not None:
            try:
                data = unseal(signer_of(conf), "result", task_id, data)
                meta = decode_result(
                    data, accept=frozenset(conf.result_accept_content), serializer=conf.result_serializer
                )
                if "payload" in meta:
                    payloads.drop_result(meta["payload"])
            except (DecodeError, SecurityError):
                pass  # whatever it is, it is to be forgotten
    reader.forget((task_id,), timeout=READ_TIMEOUT)


def fetch(reader: Reader, task_id: str, conf: Any) -> Meta | None:
    """The record of a task as it is now, None when there is none. Raises ``OperationalError`` and as ``decode``."""
    (data,) = reader.get((task_id,), timeout=READ_TIMEOUT)
    return None if data is None else decode(data, conf, task_id)


def wait(
    reader: Reader,
    task_id: str,
    conf: Any,
    *,
    timeout: float | None,
    interval: float | None = None,
    on_change: Callable[[str], None] | None = None,
) -> Meta:
    """The record of a task once it is terminal.

    ``on_change`` is called with the id when the record has changed, and with ``""`` each ``interval`` seconds; what it
    raises ends the wait. Raises ``TimeoutError`` after ``timeout`` seconds.
    """
    deadline = None if timeout is None else time.monotonic() + timeout
    ids = (task_id,)
    while True:
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        if interval is not None:
            left = interval if left is None else min(left, interval)
        changed = reader.wait(ids, timeout=left)
        meta = fetch(reader, task_id, conf)
        if meta is not None and meta["status"] in READY_STATES:
            return meta
        if on_change is not None:
            on_change(changed or "")
        if deadline is not None and time.monotonic() >= deadline:
            raise TimeoutError(_too_late(task_id, timeout))


def _too_late(task_id: str, timeout: float | None) -> str:
    return (
        f"The operation timed out: task {task_id} has no result after {timeout or 0:g} s; "
        "it waits or runs, unless no worker takes its queue"
    )


class Awaiter:
    """Lets any number of coroutines wait for records, with one thread and one connection.

    Made per process by ``awaiter``. The thread lives while somebody waits.
    """

    def __init__(self, reader: Callable[[], Reader], conf: Any) -> None:
        self._reader = reader
        self._conf = conf
        self.pid = os.getpid()
        self._lock = threading.Lock()
        self._waiting: dict[str, list[asyncio.Future[Meta]]] = {}
        self._running = False

    async def wait(self, task_id: str, *, timeout: float | None) -> Meta:
        """The record once it is terminal. Raises ``celeriac.exceptions.TimeoutError``; cancelling it is harmless."""
        import asyncio

        future: asyncio.Future[Meta] = asyncio.get_running_loop().create_future()
        with self._lock:
            self._waiting.setdefault(task_id, []).append(future)
            if not self._running:
                self._running = True
                threading.Thread(target=self._serve, name="celeriac-results", daemon=True).start()
        try:
            async with asyncio.timeout(timeout):
                return await future
        except builtins.TimeoutError:
            raise TimeoutError(_too_late(task_id, timeout)) from None
        finally:
            with self._lock:
                left = [other for other in self._waiting.get(task_id, ()) if other is not future]
                if left:
                    self._waiting[task_id] = left
                else:
                    self._waiting.pop(task_id, None)

    def _serve(self) -> None:
        while True:
            with self._lock:
                ids = tuple(self._waiting)
                if not ids:
                    self._running = False
                    return
            try:
                reader = self._reader()
                if reader.wait(ids, timeout=_SLICE) is not None:
                    for task_id, data in zip(ids, reader.get(ids, timeout=READ_TIMEOUT), strict=True):
                        self._deliver(task_id, data)
            except Exception as error:  # noqa: BLE001 - whoever waits is told, and the next wait starts a new thread
                for task_id in ids:
                    self._resolve(task_id, error)

    def _deliver(self, task_id: str, data: bytes | None) -> None:
        if data is None:
            return
        try:
            meta = decode(data, self._conf, task_id)
        except CeleryError as error:
            self._resolve(task_id, error)
            return
        if meta["status"] in READY_STATES:
            self._resolve(task_id, meta)

    def _resolve(self, task_id: str, outcome: Meta | Exception) -> None:
        with self._lock:
            futures = self._waiting.pop(task_id, [])
        for future in futures:
            try:
                future.get_loop().call_soon_threadsafe(_set, future, outcome)
            except RuntimeError:
                pass  # its loop was closed meanwhile


_awaiters: WeakKeyDictionary[Any, Awaiter] = WeakKeyDictionary()


def awaiter(backend: Any, conf: Any) -> Awaiter:
    """The awaiter of a backend in this process; its ``reader`` is asked for first, and says so when there is none."""
    backend.reader  # noqa: B018
    found = _awaiters.get(backend)
    if found is None or found.pid != os.getpid():
        # No strong reference to the key from its value.
        found = _awaiters[backend] = Awaiter(_reader_of(ref(backend)), conf)
    return found


def _reader_of(backend: ref[Any]) -> Callable[[], Reader]:
    def reader() -> Reader:
        owner = backend()
        if owner is None:
            raise OperationalError("the app that waits for results is gone")
        found: Reader = owner.reader
        return found

    return reader


def _set(future: asyncio.Future[Meta], outcome: Meta | Exception) -> None:
    if future.done():
        return
    if isinstance(outcome, Exception):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)
