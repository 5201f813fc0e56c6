"""Result records: what a result store keeps per task, with Celery's keys in Celery's order (``celery-wire.md`` §3.5).

Written by the worker and by ``update_state``, read by ``AsyncResult`` and by workers that recognise repeats. Stores
carry the bytes unread.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from celeriac.codec import json, serializers
from celeriac.codec.failures import exception_to_data
from celeriac.exceptions import DecodeError, EncodeError

__all__ = ["decode_result", "encode_result"]

_is_plain = json.is_plain
_encode_plain = msgspec.json.Encoder().encode


class _Record(Struct):
    """A record without the keys that most results lack."""

    status: str
    result: Any
    traceback: str | None
    children: Sequence[Any] | None
    date_done: str | None
    task_id: str


def encode_result(
    *,
    task_id: str,
    state: str,
    result: Any,
    traceback: str | None = None,
    children: Sequence[Any] | None = (),
    date_done: str | None = None,
    group_id: str | None = None,
    parent_id: str | None = None,
    extended: Mapping[str, Any] | None = None,
    serializer: str = "json",
) -> bytes:
    """The record of one task. ``result`` is a value, or an exception, which is stored as data (pickle: as it is).

    ``children`` are result tuples, ``date_done`` is ISO 8601 text and None before the end, ``extended`` holds name,
    args, kwargs, worker, retries and queue with ``result_extended``. Raises ``EncodeError`` naming the type that cannot
    be encoded.
    """
    if isinstance(result, BaseException):
        result = _failure(result, serializer)
    if serializer == "json" and group_id is None and parent_id is None and extended is None and _is_plain(result):
        try:
            return _encode_plain(_Record(state, result, traceback, children, date_done, task_id))
        except (TypeError, ValueError, OverflowError, RecursionError):
            pass  # the careful encoder knows, or says what is wrong
    record: dict[str, Any] = {
        "status": state,
        "result": result,
        "traceback": traceback,
        "children": children if children is None else list(children),
        "date_done": date_done,
    }
    if group_id:
        record["group_id"] = group_id
    if parent_id:
        record["parent_id"] = parent_id
    if extended:
        record.update(extended)
    record["task_id"] = task_id
    return serializers.dumps(record, serializer)[2]


def _failure(exc: BaseException, serializer: str) -> Any:
    if serializer == "pickle":
        try:
            serializers.dumps(exc, "pickle")
        except EncodeError:
            pass
        else:
            return exc
    return exception_to_data(exc, serializer)


def decode_result(data: bytes, *, accept: frozenset[str], serializer: str = "json") -> dict[str, Any]:
    """The record in stored bytes, with ``status`` (text), ``result``, ``traceback``, ``children``, ``date_done`` and
    ``task_id`` at least. A failure's ``result`` is left as data for ``data_to_exception``.

    Raises ``DecodeError`` (``ContentDisallowed`` when ``accept`` lacks the serializer), nothing else.
    """
    if serializer == "json" and ("application/json" in accept or "json" in accept):
        record = json.loads(data)
    else:
        record = serializers.loads(data, serializer, "", accept)
    if not isinstance(record, dict) or not isinstance(record.get("status"), str):
        raise DecodeError("not a result record")
    for key in ("result", "traceback", "children", "date_done", "task_id"):
        if key not in record:
            record[key] = None
    return record
