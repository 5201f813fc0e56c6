"""From a call to a message on the broker: what ``delay()`` does behind the façade.

``message`` turns a task name, arguments and options into a ``Message`` (Celery's protocol 2, headers in its order),
``send`` publishes. Everything that follows from the task's name and declared options alone is worked out once and kept.
Knows neither tasks nor apps; called by ``Task.apply_async`` and ``Celery.send_task``. Thread-safe; survives forks.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, tzinfo
from typing import Any, Protocol

from msgspec import Struct

from celeriac import signals
from celeriac.client import resolver
from celeriac.client.connections import PerProcess
from celeriac.client.current import request_var, worker_request
from celeriac.client.routes import Destination, Router
from celeriac.client.times import earliest, latest
from celeriac.codec.body import decode_body, encode_body
from celeriac.codec.envelope import new_id
from celeriac.codec.json import is_plain, plain
from celeriac.codec.saferepr import saferepr
from celeriac.codec.serializers import find
from celeriac.exceptions import EncodeError, MessageTooLarge, OperationalError
from celeriac.model.message import Message
from celeriac.ports import Publisher

__all__ = ["Collector", "Sender"]

_NO_OPTIONS: Mapping[str, Any] = {}
_REPR_LENGTH = 1024
_DELIVERY_MODES = {"transient": 1, "persistent": 2}

#: Options that concern one message, not all of a task's.
_PER_CALL = frozenset(
    {
        "argsrepr",
        "callbacks",
        "chain",
        "chord",
        "countdown",
        "errbacks",
        "eta",
        "expires",
        "kwargsrepr",
        "link",
        "link_error",
        "parent_id",
        "reply_to",
        "root_id",
        "task_id",
    }
)  # fmt: skip


class Collector(Protocol):
    """A producer that takes messages instead of a broker: the worker's, which sends them with the task's plan."""

    def collect(self, message: Message) -> None: ...


class _Prepared(Struct, frozen=True):
    """What all messages of one task with the same options have in common."""

    defaults: Mapping[str, Any]
    #: The rest of the options.
    call: Mapping[str, Any]
    headers: dict[str, Any]
    to: Destination
    priority: int | None
    delivery_mode: int
    serializer: str
    compression: str | None
    zone: tzinfo
    time_limit: float | None
    soft_time_limit: float | None
    retries: int


class Sender:
    """Makes and sends the messages of one app."""

    def __init__(self, conf: resolver.Conf, *, router: Router, default_url: Callable[[], str]) -> None:
        self.conf = conf
        self.router = router
        self.default_url = default_url
        #: Where replies would go: Celery's rpc backend reads it, ours do not.
        self.oid = new_id()
        self._pid = 0
        self._origin = ""
        self._prepared: dict[str, _Prepared] = {}
        self._publisher: PerProcess[Publisher] = PerProcess(self._open)
        conf.bind_to(self._forget)

    # ------------------------------------------------------------ making

    def message(
        self,
        name: str,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] = _NO_OPTIONS,
        *,
        defaults: Mapping[str, Any] = _NO_OPTIONS,
        task: Any = None,
    ) -> Message:
        """The message of one call.

        ``options`` are those of ``apply_async`` under Celery's names, as this call gave them; ``defaults`` those that
        the task declares, always the same object for the same task. ``task`` is what function routers get.

        Raises ``TypeError`` or ``ValueError`` for arguments and times that cannot be, ``EncodeError`` naming the task
        and the type that cannot be serialized, ``MessageTooLarge``, ``QueueNotFound``, ``ImproperlyConfigured``.
        """
        if args is None:
            args = ()
        elif not isinstance(args, (list, tuple)):
            raise TypeError("task args must be a list or tuple")
        if kwargs is None:
            kwargs = _NO_OPTIONS
        elif not isinstance(kwargs, Mapping):
            raise TypeError("task keyword arguments must be a mapping")
        if os.getpid() != self._pid:
            self._forget(())
        prepared = None if options else self._prepared.get(name)
        if prepared is None or prepared.defaults is not defaults:
            prepared = self._prepare(name, args, kwargs, options, defaults, task)
        call = prepared.call
        headers = prepared.headers.copy()
        task_id: str = call.get("task_id") or new_id()
        headers["id"] = headers["root_id"] = task_id
        if call or request_var.get() is not None:
            return self._particular(prepared, headers, args, kwargs)
        levels = self.conf.task_repr_maxlevels
        headers["argsrepr"] = saferepr(args, _REPR_LENGTH, levels)
        headers["kwargsrepr"] = saferepr(kwargs, _REPR_LENGTH, levels) if kwargs else "{}"
        return self._finish(prepared, headers, args, kwargs, None, "", None, None)

    def _particular(
        self, prepared: _Prepared, headers: dict[str, Any], args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> Message:
        """A message with options of its own, or sent by a running task."""
        get = prepared.call.get
        root_id, parent_id = get("root_id"), get("parent_id")
        if not root_id or not parent_id:
            request = worker_request()
            if request is not None:
                root_id = root_id or request.root_id or request.id
                parent_id = parent_id or request.id
        headers["root_id"] = root_id or headers["id"]
        headers["parent_id"] = parent_id
        levels = self.conf.task_repr_maxlevels
        shown, shown_kwargs = get("argsrepr"), get("kwargsrepr")
        headers["argsrepr"] = saferepr(args, _REPR_LENGTH, levels) if shown is None else shown
        headers["kwargsrepr"] = saferepr(kwargs, _REPR_LENGTH, levels) if shown_kwargs is None else shown_kwargs
        now = time.time()
        headers["eta"], due = earliest(get("countdown"), get("eta"), now=now, zone=prepared.zone)
        headers["expires"], expires = latest(get("expires"), now=now, zone=prepared.zone)
        embed = {
            "callbacks": _listed(get("link") or get("callbacks")),
            "errbacks": _listed(get("link_error") or get("errbacks")),
            "chain": get("chain"),
            "chord": get("chord"),
        }
        return self._finish(
            prepared,
            headers,
            args,
            kwargs,
            embed if any(embed.values()) else None,
            get("reply_to") or "",
            due,
            expires,
        )

    def _finish(
        self,
        prepared: _Prepared,
        headers: dict[str, Any],
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        embed: Mapping[str, Any] | None,
        reply_to: str,
        due: float | None,
        expires: float | None,
    ) -> Message:
        to = prepared.to
        task_id: str = headers["id"]
        priority = prepared.priority
        if signals.before_task_publish.receivers:
            properties = self._announce(prepared, headers, args, kwargs, embed, reply_to)
            reply_to, priority = properties.get("reply_to") or "", properties.get("priority", priority)
            headers = plain(headers)
        body = self._encode(prepared, args, kwargs, embed)
        if body.compression is not None:
            headers["compression"] = body.compression
        return Message(
            id=task_id,
            task=headers["task"],
            headers=headers,
            body=body.body,
            queue=to.queue,
            content_type=body.content_type,
            content_encoding=body.content_encoding,
            exchange=to.exchange,
            routing_key=to.routing_key,
            priority=priority or 0,
            correlation_id=task_id,
            reply_to=reply_to or self.oid,
            delivery_mode=prepared.delivery_mode,
            due=due,
            expires=expires,
            retries=prepared.retries,
            time_limit=prepared.time_limit,
            soft_time_limit=prepared.soft_time_limit,
        )
