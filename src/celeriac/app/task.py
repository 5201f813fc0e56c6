"""Task: what a decorated function becomes, and the base of task classes.

A façade: sending is ``Celery.send_task``, running is ``trace.py``, trying again ``retry.py``, running in place
``eager.py``. Attributes are options; unknown ones are the user's own and kept.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Coroutine, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, cast

from celeriac.app import request as _request
from celeriac.app.annotations import annotations_for
from celeriac.app.arguments import is_coroutine_function
from celeriac.app.bulk import delay_many
from celeriac.app.composing import Composing
from celeriac.app.eager import apply_eagerly, apply_keyed, round_trip
from celeriac.app.once import Stepping
from celeriac.app.options import FROM_SETTINGS, FromSetting, Sending, send_defaults, task_options
from celeriac.app.registry import unpickle_task
from celeriac.app.retry import ask_for_retry
from celeriac.app.trace import task_has_custom
from celeriac.app.unique import Unique, unique_of
from celeriac.client.current import get_current_app, request_var
from celeriac.client.transactions import outlet_of
from celeriac.conf.source import import_object
from celeriac.exceptions import MaxRetriesExceededError, OperationalError, Retry
from celeriac.model.options import TaskOptions
from celeriac.result import AsyncResult, EagerResult, denied_join_result

__all__ = ["BaseTask", "Context", "Task"]

P = ParamSpec("P")
R = TypeVar("R")

Context = _request.Request


class _App:
    """``Task.app``: the app that a task belongs to; a class without one belongs to the current app."""

    def __get__(self, task: Any, owner: Any) -> Any:
        return owner._app if owner._app is not None else get_current_app()

    def __set__(self, task: Any, app: Any) -> None:
        type(task).bind(app)


class Task(Stepping, Composing[P, R]):
    """A task: callable, and sendable by ``delay`` and ``apply_async``.

    Subclasses define ``run``; decorated functions become it. Attributes set on the class or given to the decorator are
    options (``max_retries``, ``queue``, ``rate_limit`` …); those that are None here follow the setting of their kind.
    """

    MaxRetriesExceededError = MaxRetriesExceededError
    OperationalError = OperationalError

    #: The class of ``self.request``, or its dotted name.
    Request: Any = _request.Request

    app: Any = _App()
    name: str = cast(str, None)
    #: Check arguments against the signature at each send; None: as the app's ``strict_typing``.
    typing: bool | None = None
    #: Attempts after the first; None: without end.
    max_retries: int | None = 3
    #: Seconds. Where nobody sets it, delays grow with each retry instead, with full jitter.
    default_retry_delay: float = 180
    throws: Any = ()
    #: Remember what the task sends as ``children`` of its result.
    trail: bool = True
    send_events: bool = True
    #: Splits ``rate_limit`` by a call's arguments: a parameter's name, or a callable that makes a key of them.
    rate_limit_key: Any = None
    #: Runs that may go on at once, in all workers together, and what splits them (as ``rate_limit_key``).
    max_concurrency: int | None = None
    max_concurrency_key: Any = None
    expires: Any = None
    resultrepr_maxsize: int = 1024
    #: One at a time, from its sending to its end: ``True`` of this name, ``"args"`` with the same arguments, or a
    #: function that makes a text of the arguments.
    unique: Any = None
    #: Seconds after which a lock gives way that nobody has freed, counted from the due time; None: a day.
    unique_for: Any = None
    #: ``"start"``: an equal one may be sent as soon as a worker has taken it.
    unique_until: str = "end"
    #: What sending an equal one does: ``"return"`` the result of the first, ``"replace"`` it if it has not started,
    #: ``"raise"`` TaskNotUnique.
    on_conflict: str = "return"
    abstract: bool = True

    if TYPE_CHECKING:
        serializer: str | None
        rate_limit: str | float | None
        priority: int | None
        time_limit: float | None
        soft_time_limit: float | None
        track_started: bool | None
        acks_late: bool | None
        acks_on_failure_or_timeout: bool | None
        acks_on_failure: bool | None
        acks_on_timeout: bool | None
        reject_on_worker_lost: bool | None
        retry_on_worker_lost: bool | None
        ignore_result: bool | None
        store_eager_result: bool | None
        store_errors_even_if_ignored: bool | None

    _app: Any = None
    _backend: Any = None
    _default_request: Any = None
    #: Made at the first send or run, forgotten when an attribute changes.
    _options: TaskOptions | None = None
    _sending: Sending | None = None
    _request_class: Any = None
    _bound = False
    _coroutine: bool | None = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls._bound, cls._coroutine = False, None
        for name in FROM_SETTINGS:
            # As in Celery, None means "as the setting says", also where it is written out.
            if cls.__dict__.get(name, name) is None:
                delattr(cls, name)

    def __setattr__(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)
        if name[0] != "_":
            self.__dict__.pop("_options", None)
            self.__dict__.pop("_sending", None)
            self.__dict__.pop("_request_class", None)

    # ------------------------------------------------------------ binding

    @classmethod
    def bind(cls, app: Any) -> Any:
        """Belong to ``app``: called when the app is finalized, or at the first use before that. Returns the app."""
        cls._app = app
        if not cls._bound:
            cls._bound = True
            cls.annotate()
            cls.on_bound(app)
        return app

    @classmethod
    def on_bound(cls, app: Any) -> None:
        """For subclasses: the task now belongs to ``app``."""

    @classmethod
    def annotate(cls) -> None:
        """Apply ``task_annotations``. A name with ``@`` in front wraps the method of that name."""
        setting = cls._app.conf.task_annotations
        for name, value in annotations_for(cls, setting) if setting else ():
            if name.startswith("@"):
                cls.add_around(name[1:], value)
            else:
                setattr(cls, name, value)

    @classmethod
    def add_around(cls, attr: str, around: Callable[[Any], Any]) -> None:
        """Replace a method by ``around(method)``."""
        method = getattr(cls, attr)
        wrapper = around(getattr(method, "__wrapped__", None) or method)
        wrapper.__wrapped__ = method
        # The body of a function that does not take the task stays one.
        setattr(cls, attr, staticmethod(wrapper) if isinstance(cls.__dict__.get(attr), staticmethod) else wrapper)

    def _bind_once(self) -> None:
        if not type(self)._bound:
            self.bind(self.app)

    @property
    def is_async(self) -> bool:
        """``run`` is declared ``async def``."""
        cls = type(self)
        if cls._coroutine is None:
            cls._coroutine = is_coroutine_function(cls.run)
        return cls._coroutine

    def options(self) -> TaskOptions:
        """What decisions are made on, typed; made once from attributes and settings."""
        options = self._options
        if options is None:
            self._bind_once()
            options = self._options = task_options(self)
        return options

    # ------------------------------------------------------------ running

    def run(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """The body of the task."""
        raise NotImplementedError(f"task {self.name!r} must define run()")

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the body here and now, as a plain function call; ``self.request`` is a request of its own."""
        if self.is_async:
            return cast(R, self._call_async(args, kwargs))
        before = request_var.get()
        self._push(args, kwargs)
        try:
            return self.run(*args, **kwargs)
        finally:
            request_var.set(before)

    async def _call_async(self, args: Any, kwargs: Any) -> Any:
        before = request_var.get()
        self._push(args, kwargs)
        try:
            return await cast("Coroutine[Any, Any, Any]", self.run(*args, **kwargs))
        finally:
            request_var.set(before)

    def _push(self, args: Any, kwargs: Any) -> None:
        top = self.request_stack.top
        if top is None:
            self.request_stack.push(Context(args=args, kwargs=kwargs))
        else:
            self.push_request(args=args, kwargs=kwargs)

    def apply(
        self,
        args: Any = None,
        kwargs: Any = None,
        link: Any = None,
        link_error: Any = None,
        task_id: str | None = None,
        retries: int | None = None,
        throw: bool | None = None,
        logfile: str | None = None,
        loglevel: int | None = None,
        headers: dict[str, Any] | None = None,
        **options: Any,
    ) -> EagerResult[R]:
        """Run the task here and now as a worker would, retries (without delay) and callbacks included.

        ``throw`` raises the task's exception, and Retry when it asks for one (default: ``task_eager_propagates``).
        """
        said = {"logfile": logfile, "loglevel": loglevel, "headers": headers, **options}
        result = apply_eagerly(
            self, args or (), kwargs or {}, task_id=task_id, retries=retries or 0, throw=throw, link=link,
            link_error=link_error, options=said,
        )  # fmt: skip
        return cast("EagerResult[R]", result)

    # ------------------------------------------------------------ sending

    def delay(self, *args: P.args, **kwargs: P.kwargs) -> AsyncResult[R]:
        """Send the task with these arguments. ``apply_async`` takes options too."""
        return self.apply_async(args, kwargs)

    def apply_async(
        self,
        args: Iterable[Any] | None = None,
        kwargs: dict[str, Any] | None = None,
        task_id: str | None = None,
        producer: Any = None,
        link: Any = None,
        link_error: Any = None,
        shadow: str | None = None,
        **options: Any,
    ) -> AsyncResult[R]:
        """Send the task. Returns once the broker has it.

        Options: ``countdown`` (seconds) or ``eta``, ``expires`` (seconds or a time), ``queue``, ``priority`` (0-9),
        ``headers``, ``serializer``, ``compression``, ``time_limit``, ``soft_time_limit`` (seconds), ``ignore_result``,
        ``link``, ``link_error`` (signatures to send afterwards), ``task_id``, ``shadow`` (name in logs), ``retry`` and
        ``retry_policy`` of publishing, ``exchange``, ``routing_key``, ``add_to_parent``, ``root_id``, ``parent_id``,
        ``idempotency_key`` (a second call with it sends nothing and returns the result of the first) and
        ``idempotency_ttl`` (seconds, default ``task_idempotency_ttl``).
        ``producer`` is an object with ``collect(message)`` that takes the message instead of the broker.

        Raises ``TypeError`` when the arguments do not fit the signature, ``OperationalError`` when the broker cannot be
        reached in time, ``EncodeError`` when an argument cannot be encoded, ``TaskNotUnique`` when the task is unique
        and says so.
        """
        sending = self._sending or self._prepare()
        if sending.check is not None:
            sending.check(*(args or ()), **(kwargs or {}))
        if sending.names:
            shadow = shadow or self.shadow_name(args or (), kwargs or {}, options)
        options = {**sending.defaults, **options} if options else sending.defaults
        app = self._app
        if app.conf.task_always_eager:
            args, kwargs = round_trip(app.conf, args, kwargs, options.get("serializer"))
            with denied_join_result():
                eager = apply_keyed(
                    self, args, kwargs, {**options, "task_id": task_id, "link": link, "link_error": link_error}
                )
            return cast("AsyncResult[R]", eager)
        return cast(
            "AsyncResult[R]",
            app.send_task(
                self.name, args, kwargs, task_id=task_id, producer=producer, link=link, link_error=link_error,
                shadow=shadow, task_type=self, **options,
            ),
        )  # fmt: skip

    @property
    def send_defaults(self) -> dict[str, Any]:
        """Options that all messages of this task have unless the call says otherwise; always the same object."""
        return (self._sending or self._prepare()).defaults

    @property
    def argument_check(self) -> Callable[..., object] | None:
        """Raises TypeError for arguments that do not fit; None: they are not checked."""
        return (self._sending or self._prepare()).check

    @property
    def names_shadows(self) -> bool:
        """``shadow_name`` is the user's own."""
        return (self._sending or self._prepare()).names

    @property
    def unique_rule(self) -> Unique | None:
        """What makes two calls of this task equal; None: nothing."""
        return (self._sending or self._prepare()).unique

    def _prepare(self) -> Sending:
        """Work out what every send needs, once."""
        self._bind_once()
        checked = self.app.strict_typing if self.typing is None else self.typing
        self._sending = sending = Sending(
            send_defaults(self),
            getattr(self, "__header__", None) if checked else None,
            task_has_custom(self, "shadow_name") or "shadow_name" in vars(self),
            unique_of(self),
        )
        return sending

    async def adelay(self, *args: P.args, **kwargs: P.kwargs) -> AsyncResult[R]:
        """``delay`` for coroutines: publishes on a thread, so that the event loop goes on."""
        return await self.aapply_async(args, kwargs)

    async def aapply_async(
        self, args: Iterable[Any] | None = None, kwargs: dict[str, Any] | None = None, **options: Any
    ) -> AsyncResult[R]:
        """``apply_async`` for coroutines. Inside ``app.transaction()`` on this thread, as its connection."""
        import asyncio

        if outlet_of(self.app.conf) is not None:
            return self.apply_async(args, kwargs, **options)

        return await asyncio.to_thread(partial(self.apply_async, args, kwargs, **options))

    def delay_many(self, calls: Iterable[Any], *, chunk: int = 1000, **options: Any) -> list[AsyncResult[R]]:
        """Send the task once per element of ``calls``: a tuple of arguments, or ``(args, kwargs)``.

        One round trip per ``chunk`` messages; no more than that many are in memory at a time. An element is taken for
        ``(args, kwargs)`` when it is a pair of a list or tuple and a dict. ``options`` are those of ``apply_async``.
        """
        return delay_many(self, calls, chunk, options)

    def shadow_name(self, args: Any, kwargs: Any, options: dict[str, Any]) -> str | None:
        """For subclasses: the name that logs and events show for this call; None: the task's own."""
        return None

    # ------------------------------------------------------------ results

    def AsyncResult(self, task_id: str, **kwargs: Any) -> AsyncResult[R]:  # noqa: N802 - Celery's name
        """The result of the message with that id."""
        return cast("AsyncResult[R]", self.app.AsyncResult(task_id, task_name=self.name, **kwargs))

    @property
    def backend(self) -> Any:
        """Results of this task: the app's backend unless set."""
        return self._backend if self._backend is not None else self.app.backend

    @backend.setter
    def backend(self, value: Any) -> None:
        self._backend = value

    def update_state(
        self, task_id: str | None = None, state: str | None = None, meta: Any = None, **kwargs: Any
    ) -> None:
        """Store a state of one's own, with ``meta`` as its result, for this task or another."""
        task_id = task_id or self.request.id
        self.backend.store_result(task_id, meta, state, request=self.request, **kwargs)

    def add_trail(self, result: Any) -> Any:
        """Count ``result`` among the children of the running task. Returns it."""
        if self.trail:
            self.request.children.append(result)
        return result

    # ------------------------------------------------------------ from inside

    def retry(
        self,
        args: Any = None,
        kwargs: Any = None,
        exc: BaseException | None = None,
        throw: bool = True,
        eta: Any = None,
        countdown: float | None = None,
        max_retries: int | None = None,
        **options: Any,
    ) -> Retry:
        """Ask for another attempt: raises ``Retry``, which ends this one. ``raise self.retry(exc=exc)`` reads best.

        After ``countdown`` seconds or at ``eta``, else ``default_retry_delay`` if set, else exponential backoff with
        full jitter. ``throw=False`` returns the Retry instead of raising it; the next attempt is sent when this one is
        over. Once ``max_retries`` is reached it raises ``exc``, or ``MaxRetriesExceededError``. In a task that was
        called as a function it raises ``exc``.
        """
        return ask_for_retry(self, args, kwargs, exc, throw, eta, countdown, max_retries, options)

    @property
    def request(self) -> Any:
        """The request that the task runs for; an empty one outside of tasks."""
        request = request_var.get()
        if request is not None and request._task is self:
            return request
        request = self.request_stack.top
        if request is None:
            request = self._default_request
            if request is None:
                request = self._default_request = Context()
        return request

    @property
    def request_stack(self) -> _request.RequestStack:
        """The requests of this task that are being worked on here."""
        return _request.RequestStack(self)

    @property
    def request_class(self) -> Any:
        """``Request`` as a class."""
        cls = self._request_class
        if cls is None:
            cls = self.Request
            if isinstance(cls, str):
                cls = _request.Request if cls == "celery.worker.request:Request" else import_object(cls)
            self._request_class = cls
        return cls

    def push_request(self, *args: Any, **kwargs: Any) -> None:
        """Make a copy of the current request, with these fields, the current one."""
        current = self.request
        copy = object.__new__(type(current))
        if current is not self._default_request:
            # What is sent from inside belongs to the attempt.
            shared = {name: getattr(current, name) for name in ("children", "sends", "added")}
            copy.__dict__.update(current.__dict__, **shared)
        copy.update(*args, **kwargs)
        self.request_stack.push(copy)

    def pop_request(self) -> None:
        """Undo ``push_request``."""
        self.request_stack.pop()

    # ------------------------------------------------------------ handlers, for subclasses

    def before_start(self, task_id: str, args: Any, kwargs: Any) -> None:
        """The task is about to start."""

    def on_success(self, retval: Any, task_id: str, args: Any, kwargs: Any) -> None:
        """The task returned ``retval``."""

    def on_retry(self, exc: BaseException, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        """The task is to be tried again, because of ``exc``."""

    def on_failure(self, exc: BaseException, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        """The task failed for good, because of ``exc``."""

    def after_return(self, status: str, retval: Any, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        """The task ended with ``status``, SUCCESS or FAILURE."""

    # ------------------------------------------------------------ identity

    if not TYPE_CHECKING:

        @property
        def __name__(self) -> str:
            return type(self).__name__

    def __repr__(self) -> str:
        owner = f" of {self._app.main or '__main__'}" if self._app is not None else ""
        return f"<@task: {self.name}{owner}>"

    def __reduce__(self) -> tuple[Any, ...]:
        # By name: who unpickles it has its own. Its module is imported there, in case nobody has.
        module = type(self).__module__
        return unpickle_task, (self.name, module if module in sys.modules and module != "__main__" else None)


for _name, _setting in FROM_SETTINGS.items():
    setattr(Task, _name, FromSetting(_setting))

#: Celery's older name.
BaseTask = Task
