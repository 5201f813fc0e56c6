"""Celery's protocol 1, read only: old Celery and clients in other languages still send it (``celery-wire.md`` §3.2).

Called by ``codec.envelope`` for messages without a ``task`` header.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from celeriac.codec import serializers
from celeriac.codec.json import dumps
from celeriac.codec.saferepr import saferepr
from celeriac.exceptions import CeleryError

__all__ = ["upgrade"]

_SAFE = frozenset({"application/json", "application/x-msgpack"})


def upgrade(body: bytes, content_type: str) -> tuple[dict[str, Any], bytes] | str:
    """Headers and JSON body in protocol 2, or the reason why this is no protocol-1 message. Never raises.

    Only JSON and msgpack are read: to decode more before ``accept_content`` was asked would be a hole.
    """
    if content_type not in _SAFE:
        return f"no header 'task', and a body of {content_type!r:.60} is not read without one"
    try:
        payload = serializers.loads(body, content_type, "utf-8", _SAFE)
        if not isinstance(payload, Mapping):
            return "no header 'task', and the body is no protocol-1 task either"
        if not isinstance(payload.get("task"), str) or not isinstance(payload.get("id"), str):
            return "no header 'task', and the body lacks the texts 'task' and 'id'"
        return _headers(payload), _body(payload)
    except CeleryError as error:
        return f"no header 'task', and the body cannot be read: {error}"


def _headers(payload: Mapping[str, Any]) -> dict[str, Any]:
    get = payload.get
    utc = bool(get("utc", True))
    return {
        "lang": "py",
        "task": payload["task"],
        "id": payload["id"],
        "shadow": None,
        "eta": _aware(get("eta"), utc),
        "expires": _aware(get("expires"), utc),
        "group": get("group") or get("taskset"),
        "group_index": get("group_index"),
        "retries": get("retries") or 0,
        "timelimit": get("timelimit") or [None, None],
        "root_id": payload["id"],
        "parent_id": None,
        "argsrepr": saferepr(get("args") or []),
        "kwargsrepr": saferepr(get("kwargs") or {}),
        "origin": None,
        "ignore_result": bool(get("ignore_result")),
        "replaced_task_nesting": 0,
        "stamped_headers": None,
        "stamps": {},
    }


def _aware(value: Any, utc: bool) -> Any:
    """Protocol 1 writes times without a zone and says ``utc`` beside them."""
    if not utc or not isinstance(value, str):
        return value
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        return value  # refused where headers are checked
    return value if moment.tzinfo is not None else moment.replace(tzinfo=UTC).isoformat()


def _body(payload: Mapping[str, Any]) -> bytes:
    get = payload.get
    embed = {"callbacks": get("callbacks"), "errbacks": get("errbacks"), "chain": None, "chord": get("chord")}
    return dumps([get("args") or [], get("kwargs") or {}, embed])
