"""What follows from a task's name and options alone: destination, headers, serializer. Worked out by the sender once
per task, or per call that has options of its own.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from celeriac.client.current import worker_request
from celeriac.client.routes import Address
from celeriac.codec.json import plain
from celeriac.codec.serializers import find
from celeriac.conf.remarks import level_outside
from celeriac.exceptions import EncodeError

__all__ = ["PER_CALL", "Prepared", "followers", "prepare", "with_headers"]

#: Options that concern one message, not all of a task's.
PER_CALL = frozenset(
    {
        "argsrepr",
        "callbacks",
        "chain",
        "chord",
        "countdown",
        "errbacks",
        "eta",
        "expires",
        "group_id",
        "group_index",
        "kwargsrepr",
        "link",
        "link_error",
        "lock",
        "parent_id",
        "reply_to",
        "root_id",
        "task_id",
    }
)


#: Options that are read here or by the router.
_KNOWN = PER_CALL | {
    "add_to_parent",
    "compression",
    "connection",
    "declare",
    "delivery_mode",
    "exchange",
    "exchange_type",
    "headers",
    "ignore_result",
    "priority",
    "producer",
    "publisher",
    "queue",
    "replaced_task_nesting",
    "result_cls",
    "retries",
    "retry",
    "retry_policy",
    "route_name",
    "routing_key",
    "serializer",
    "shadow",
    "soft_time_limit",
    "stamped_headers",
    "time_limit",
    "timeout",
}


class Prepared(Struct, frozen=True):
    """What all messages of one task with the same options have in common."""

    #: Those in which ``None`` stands for what each message has of its own.
    headers: dict[str, Any]
    to: Address
    #: The queue, or the first of those that the exchange leads to.
    queue: str
    #: Options of the route that concern one message.
    call: Mapping[str, Any]
    priority: int | None
    serializer: str
    compression: str | None
    time_limit: float | None
    soft_time_limit: float | None
    retries: int
    #: Options that only receivers of signals see: Celery passes them to its transport.
    others: Mapping[str, Any]


def prepare(name: str, given: Mapping[str, Any], to: Address, queue: str, conf: Any, *, origin: str) -> Prepared:
    """``given`` are all options, the route's included; ``origin`` is the header of that name.

    Raises ``EncodeError`` for headers that JSON cannot hold, ``ImproperlyConfigured`` for an unknown serializer.
    """
    get = given.get
    others = {key: given[key] for key in given.keys() - _KNOWN}
    if others:
        _warn_of_typos(name, others.keys() - set(get("stamped_headers") or ()))
    return Prepared(
        headers=_headers(name, given, origin),
        to=to,
        queue=queue,
        call={key: given[key] for key in PER_CALL & given.keys() if given[key] is not None},
        priority=_priority(get("priority"), conf),
        serializer=find(get("serializer") or conf.task_serializer).name,
        compression=get("compression") or conf.task_compression,
        time_limit=get("time_limit"),
        soft_time_limit=get("soft_time_limit"),
        retries=get("retries") or 0,
        others=others,
    )


def with_headers(prepared: Prepared, name: str, own: Mapping[str, Any]) -> Prepared:
    """The same with headers of a call's own. Raises ``EncodeError`` for those that JSON cannot hold."""
    try:
        return replace(prepared, headers={**prepared.headers, **plain(dict(own))})
    except EncodeError as error:
        raise EncodeError(f"cannot send {name}: headers: {error}") from error


def followers(call: Mapping[str, Any]) -> dict[str, Any] | None:
    """The third part of a body: what is sent when the task has ended; None: nothing."""
    get = call.get
    embed = {
        "callbacks": _listed(get("link") or get("callbacks")),
        "errbacks": _listed(get("link_error") or get("errbacks")),
        "chain": get("chain"),
        "chord": get("chord"),
    }
    return embed if any(embed.values()) else None


def _listed(value: Any) -> list[Any] | None:
    """Celery takes one signature where a list is meant; a signature is a mapping."""
    if not value:
        return None
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _warn_of_typos(name: str, options: Iterable[str]) -> None:
    """Celery passes options that it does not know to its transport; one that is nearly ours is a slip."""
    from difflib import get_close_matches

    for option in options:
        close = get_close_matches(option, [*_KNOWN, "idempotency_key", "idempotency_ttl"], n=1, cutoff=0.8)
        if close:
            warnings.warn(
                f"task {name}: there is no option {option!r} of apply_async, it has no effect; "
                f"did you mean {close[0]!r}?",
                stacklevel=level_outside(),
            )


def _priority(priority: int | None, conf: Any) -> int | None:
    if priority is None and conf.task_inherit_parent_priority:
        request = worker_request()
        priority = (request.delivery_info or {}).get("priority") if request is not None else None
    return conf.task_default_priority if priority is None else priority


def _headers(name: str, given: Mapping[str, Any], origin: str) -> dict[str, Any]:
    """All headers in Celery's order; those of one message are null and filled in later."""
    get = given.get
    stamped = get("stamped_headers")
    headers = {
        "lang": "py",
        "task": name,
        "id": None,
        "shadow": get("shadow"),
        "eta": None,
        "expires": None,
        "group": None,
        "group_index": None,
        "retries": get("retries") or 0,
        "timelimit": [get("time_limit"), get("soft_time_limit")],
        "root_id": None,
        "parent_id": None,
        "argsrepr": None,
        "kwargsrepr": None,
        "origin": origin,
        "ignore_result": get("ignore_result"),
        "replaced_task_nesting": get("replaced_task_nesting") or 0,
        "stamped_headers": list(stamped) if stamped is not None else None,
        "stamps": {stamp: given[stamp] for stamp in stamped or ()},
    }
    own = get("headers")
    if own:
        headers.update(own)
    if own or stamped:
        try:
            return dict(plain(headers))
        except EncodeError as error:
            raise EncodeError(f"cannot send {name}: headers: {error}") from error
    return headers
