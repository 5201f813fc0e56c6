"""``task.request``: what a task may know about the message it runs for. Celery's Context, and its worker Request.

Made for each task that runs, so nothing is worked out before it is asked for: attributes come from the message's
headers on first use and are kept. Knows neither app nor worker. Made by the runner (``from_message``), by
``Task.apply`` and by direct calls (``Request(...)``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Self

from celeriac.client.current import request_var
from celeriac.model.message import MARK, Message
from celeriac.model.outcome import Embed

__all__ = ["Context", "Request", "RequestStack"]

#: What a request has when neither its maker nor its message says anything.
_DEFAULTS: dict[str, Any] = {
    "args": None,
    "callbacks": None,
    "called_directly": True,
    "chain": None,
    "chord": None,
    "correlation_id": None,
    "delivery_info": None,
    "errbacks": None,
    "eta": None,
    "expires": None,
    "group": None,
    "group_index": None,
    "headers": None,
    "hostname": None,
    "id": None,
    "ignore_result": False,
    "is_eager": False,
    "kwargs": None,
    "logfile": None,
    "loglevel": None,
    "origin": None,
    "parent_id": None,
    "properties": None,
    "replaced_task_nesting": 0,
    "reply_to": None,
    "retries": 0,
    "root_id": None,
    "shadow": None,
    "soft_time_limit": None,
    "stamped_headers": None,
    "stamps": None,
    "task": None,
    "taskset": None,
    "time_limit": None,
    "timelimit": None,
    "utc": None,
}
#: Headers of the protocol; all others are the caller's own.
_PROTOCOL = frozenset({*_DEFAULTS, "argsrepr", "compression", "kwargsrepr", "lang", "redelivered", "children", MARK})
_NO_EMBED = Embed()
_new = object.__new__
#: Left out when a message is sent again: RabbitMQ would take it for a cycle of dead letters.
_DEATH_HEADERS = frozenset(
    f"x-{which}death{what}"
    for which, what in (
        ("", ""),
        *((which, what) for which in ("first-", "last-") for what in ("-exchange", "-queue", "-reason")),
    )
)

#: Fields that do not come straight from a header of the same name.
_FROM_MESSAGE: dict[str, Callable[[Message], Any]] = {
    "called_directly": lambda message: False,
    "correlation_id": lambda message: message.correlation_id or message.id,
    "reply_to": lambda message: message.reply_to or None,
    "retries": lambda message: message.retries,
    "soft_time_limit": lambda message: message.soft_time_limit,
    "time_limit": lambda message: message.time_limit,
    "utc": lambda message: True,
    "properties": lambda message: {
        "content_type": message.content_type,
        "content_encoding": message.content_encoding,
        "application_headers": message.headers,
        "delivery_mode": message.delivery_mode,
        "priority": message.priority,
        "correlation_id": message.correlation_id,
        "reply_to": message.reply_to,
    },
}
#: What the attempt has sent, what is to be sent when it is over, and what it has added to its chord.
_LISTS = frozenset({"children", "sends", "added"})
_FROM_EMBED = frozenset({"callbacks", "chain", "chord", "errbacks"})


class Request:
    """The request of one attempt: Celery's ``task.request`` fields, free to change and to extend.

    A header that the caller gave (``apply_async(headers={"tenant": 7})``) is an attribute, ``request.tenant``, and a
    key of ``request.headers``. Set ``Request`` on a task class to use a subclass for it; ``__init__`` of a subclass is
    called for direct and eager calls only, ``on_*`` hooks by workers.
    """

    id: str | None
    task: str | None
    args: Any
    kwargs: Any
    retries: int
    headers: dict[str, Any] | None
    delivery_info: dict[str, Any] | None
    properties: dict[str, Any] | None
    root_id: str | None
    parent_id: str | None
    group: str | None
    group_index: int | None
    callbacks: list[Any] | None
    errbacks: list[Any] | None
    chain: list[Any] | None
    chord: Any
    hostname: str | None
    is_eager: bool
    called_directly: bool
    eta: str | None
    expires: Any
    timelimit: Any
    time_limit: float | None
    soft_time_limit: float | None
    reply_to: str | None
    correlation_id: str | None
    origin: str | None
    shadow: str | None
    logfile: str | None
    loglevel: int | None
    utc: bool | None
    stamps: dict[str, Any] | None
    stamped_headers: list[str] | None
    ignore_result: bool
    replaced_task_nesting: int

    #: The task this request is for, and the request around it; set by whoever pushes it.
    _task: Any = None
    _previous: Request | None = None
    _message: Message | None = None
    _embed: Embed = _NO_EMBED
    _redelivered = False

    def __init__(self, *args: Any, **fields: Any) -> None:
        self.update(*args, **fields)

    @classmethod
    def from_message(
        cls,
        message: Message,
        args: Any,
        kwargs: Any,
        embed: Embed | None = None,
        *,
        hostname: str | None = None,
        redelivered: bool = False,
    ) -> Self:
        """The request of a delivered message, with its decoded body."""
        self = _new(cls)
        self._message = message
        self.id = message.id
        self.args = args
        self.kwargs = kwargs
        self.hostname = hostname
        if embed is not None:
            self._embed = embed
        if redelivered:
            self._redelivered = True
        return self

    def __getattr__(self, name: str) -> Any:
        # Only called for what is not set: the value is worked out once, then found without us.
        if name[0] == "_":
            raise AttributeError(name)
        if name in _DEFAULTS:
            value = self._resolve(name)
            if name == "ignore_result":
                return value  # kept, it would look like the user's word
        elif name in _LISTS:
            value = []
        else:
            headers = self._headers()
            if name not in headers:
                raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
            value = headers[name]
        self.__dict__[name] = value
        return value

    def _headers(self) -> Mapping[str, Any]:
        return {} if self._message is None else self._message.headers

    def _resolve(self, name: str) -> Any:
        message = self._message
        if message is None:
            return self._custom_headers(self.__dict__) if name == "headers" else _DEFAULTS[name]
        if name in _FROM_MESSAGE:
            return _FROM_MESSAGE[name](message)
        if name in _FROM_EMBED:
            return getattr(self._embed, name)
        if name == "headers":
            return self._custom_headers(message.headers)
        if name == "delivery_info":
            return self._delivery_info(message)
        value = message.headers.get(name)
        return _DEFAULTS[name] if value is None else value

    def _custom_headers(self, fields: Mapping[str, Any]) -> dict[str, Any] | None:
        nested = fields.get("headers")
        if nested is not None:
            return dict(nested)
        return {key: value for key, value in fields.items() if key not in _PROTOCOL and key[0] != "_"} or None

    def _delivery_info(self, message: Message) -> dict[str, Any]:
        return {
            "exchange": message.exchange,
            "routing_key": message.routing_key or message.queue,
            "priority": message.priority,
            "redelivered": self._redelivered,
        }

    @property
    def asks_to_ignore_result(self) -> bool | None:
        """What the caller said about ``ignore_result``; None: nothing, so the task's own setting holds."""
        own = self.__dict__.get("ignore_result")
        if own is None and self._message is not None:
            own = self._message.headers.get("ignore_result")
        return None if own is None else bool(own)

    def update(self, *args: Any, **fields: Any) -> None:
        """Set fields from a mapping, pairs or keywords."""
        new = dict(*args, **fields)
        if "timelimit" in new:
            limits = new["timelimit"]
            pair = isinstance(limits, (list, tuple)) and len(limits) >= 2
            self.time_limit, self.soft_time_limit = (limits[0], limits[1]) if pair else (None, None)
        self.__dict__.update(new)

    def clear(self) -> None:
        """Forget all fields."""
        self.__dict__.clear()

    def get(self, key: str, default: Any = None) -> Any:
        """A field or custom header, else ``default``."""
        return getattr(self, key, default)

    def fields(self) -> dict[str, Any]:
        """Every public field by name, custom headers included."""
        names = {*_DEFAULTS, *self._headers(), *self.__dict__}
        return {name: getattr(self, name, None) for name in names if name[0] != "_"}

    def as_execution_options(self) -> dict[str, Any]:
        """The options under which this message would be sent once more."""
        hard, soft = self.timelimit or (None, None)
        headers = self.headers or {}
        options: dict[str, Any] = {
            "task_id": self.id,
            "root_id": self.root_id,
            "parent_id": self.parent_id,
            "group_id": self.group,
            "group_index": self.group_index,
            "shadow": self.shadow,
            "chord": self.chord,
            "chain": self.chain,
            "link": self.callbacks,
            "link_error": self.errbacks,
            "expires": self.expires,
            "soft_time_limit": soft,
            "time_limit": hard,
            "headers": {key: value for key, value in headers.items() if key.lower() not in _DEATH_HEADERS},
            "retries": self.retries,
            "reply_to": self.reply_to,
            "replaced_task_nesting": self.replaced_task_nesting,
            "origin": self.origin,
        }
        if self.stamps is not None and self.stamped_headers is not None:
            options["stamped_headers"] = self.stamped_headers
            options.update({key: value for key, value in self.stamps.items() if key in self.stamped_headers})
        return options

    def on_accepted(self, pid: int, time_accepted: float) -> None:
        """For subclasses: the task starts in process ``pid``, at ``time_accepted`` (monotonic seconds)."""

    def on_success(self, failed__retval__runtime: tuple[bool, Any, float], **kwargs: Any) -> None:
        """For subclasses: the task succeeded."""

    def on_failure(self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False) -> None:
        """For subclasses: the task failed; ``exc_info`` is an ``ExceptionInfo``."""

    def on_retry(self, exc_info: Any) -> None:
        """For subclasses: the task is to be tried again."""

    def on_timeout(self, soft: bool, timeout: float) -> None:
        """For subclasses: the soft or hard limit of ``timeout`` seconds was exceeded."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.id} {self.task}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (type(self), self.fields())


#: Celery's name for it.
Context = Request


def _restore(cls: type[Request], fields: dict[str, Any]) -> Request:
    request = cls.__new__(cls)
    request.__dict__.update(fields)
    return request


class RequestStack:
    """The requests of one task in this context, innermost last: Celery's ``task.request_stack``."""

    __slots__ = ("_task",)

    def __init__(self, task: Any) -> None:
        self._task = task

    @property
    def top(self) -> Request | None:
        """The innermost request of this task, or None."""
        request: Request | None = request_var.get()
        while request is not None and request._task is not self._task:
            request = request._previous
        return request

    @property
    def stack(self) -> list[Request]:
        """All requests of this task, outermost first."""
        found: list[Request] = []
        request: Request | None = request_var.get()
        while request is not None:
            if request._task is self._task:
                found.append(request)
            request = request._previous
        return found[::-1]

    def push(self, request: Request) -> None:
        """Make ``request`` the current one."""
        request._task = self._task
        request._previous = request_var.get()
        request_var.set(request)

    def pop(self) -> Request | None:
        """End the current request; returns it, or None when there is none."""
        request: Request | None = request_var.get()
        if request is not None:
            request_var.set(request._previous)
        return request

    def __len__(self) -> int:
        return len(self.stack)
