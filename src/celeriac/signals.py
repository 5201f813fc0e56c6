"""Celery's signals: places where users hook in, and what connects and calls their receivers.

Knows nothing of tasks, workers and messages: whoever sends a signal passes what its receivers get. Sent by the client,
the worker and beat; connected to by users and add-ons.

``if signal.receivers:`` tells in nanoseconds whether anybody listens, so that a sender need not gather arguments.
The list is replaced when it changes, never changed in place: sending takes no lock, and a process that is forked while
another thread connects finds a whole list.
"""

from __future__ import annotations

import os
import threading
import time
import warnings
import weakref
from collections.abc import Callable, Iterable
from typing import Any, TypeVar, overload

from celeriac.exceptions import CDeprecationWarning

__all__ = [
    "Signal",
    "after_setup_logger",
    "after_setup_task_logger",
    "after_task_publish",
    "beat_embedded_init",
    "beat_init",
    "before_task_publish",
    "celeryd_after_setup",
    "celeryd_init",
    "heartbeat_sent",
    "import_modules",
    "setup_logging",
    "task_failure",
    "task_internal_error",
    "task_postrun",
    "task_prerun",
    "task_received",
    "task_rejected",
    "task_retry",
    "task_revoked",
    "task_success",
    "task_unknown",
    "user_preload_options",
    "worker_before_create_process",
    "worker_init",
    "worker_process_init",
    "worker_process_shutdown",
    "worker_ready",
    "worker_shutdown",
    "worker_shutting_down",
]

Receiver = TypeVar("Receiver", bound=Callable[..., Any])

#: What tells receivers and senders apart: ``(receiver or dispatch_uid, sender)``.
_Key = tuple[Any, Any]

#: Part of the key of a receiver that hears every sender.
_ANYBODY = None

#: Flag of functions that take ``**kwargs`` (inspect.CO_VARKEYWORDS; inspect itself is slow to import).
_VARKEYWORDS = 0x08

#: Seconds between two attempts of a receiver connected with ``retry=True``: the first, the growth, the longest.
_RETRY_START, _RETRY_STEP, _RETRY_MAX = 2.0, 2.0, 30.0


class _Guard:
    """The lock that all signals take to change their receivers; a new one in each forked child."""

    def __init__(self) -> None:
        self.lock = threading.Lock()

    def renew(self) -> None:
        """Forget a lock that a thread of the parent may hold for ever."""
        self.lock = threading.Lock()


_guard = _Guard()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_guard.renew)


class Signal:
    """A hook that receivers connect to (``celery.utils.dispatch.Signal``).

    Args:
        providing_args: names of the arguments that receivers get, for documentation.
        use_caching: accepted for Celery's sake.
        name: shown by ``repr``.
        sleep: waits between attempts of receivers connected with ``retry=True``.
    """

    __slots__ = ("__weakref__", "_dead", "name", "providing_args", "receivers", "sleep")

    def __init__(
        self,
        providing_args: Iterable[str] | None = None,
        use_caching: bool = False,
        name: str | None = None,
        *,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        del use_caching
        self.name = name
        self.providing_args = set(providing_args or ())
        self.sleep = sleep
        #: ``(key, receiver or weak reference to it)``, in the order in which they were connected.
        self.receivers: list[tuple[_Key, Any]] = []
        # Set when a receiver was garbage-collected. No lock may be taken then: this thread may hold it.
        self._dead = False

    @overload
    def connect(
        self,
        receiver: Receiver,
        sender: Any = None,
        weak: bool = True,
        dispatch_uid: Any = None,
        retry: bool = False,
    ) -> Receiver: ...

    @overload
    def connect(
        self,
        receiver: str | None = None,
        sender: Any = None,
        weak: bool = True,
        dispatch_uid: Any = None,
        retry: bool = False,
    ) -> Callable[[Receiver], Receiver]: ...

    def connect(
        self,
        receiver: Any = None,
        sender: Any = None,
        weak: bool = True,
        dispatch_uid: Any = None,
        retry: bool = False,
    ) -> Any:
        """Call ``receiver(signal=…, sender=…, **arguments)`` whenever the signal is sent.

        Without a receiver this is a decorator. A receiver that is connected already, with the same sender or
        ``dispatch_uid``, is not connected again.

        Args:
            receiver: anything callable that takes ``**kwargs``.
            sender: hear this sender only: the task for signals of a worker, its name for the two of publishing.
            weak: do not keep the receiver alive. A function local to another needs ``weak=False``.
            dispatch_uid: identity of the receiver, if it is not to be the object.
            retry: call the receiver until it does not raise, after 2, 4, … 30 seconds; it is kept alive.

        Raises:
            ValueError: the receiver does not take ``**kwargs``.
        """
        if receiver is not None and not callable(receiver):
            # @task_success.connect("proj.add"), as Celery allows.
            receiver, sender = None, receiver
        if receiver is None:
            return lambda function: self.connect(function, sender, weak, dispatch_uid, retry)
        if not _takes_kwargs(receiver):
            raise ValueError(f"signal {self.name}: receiver {receiver!r} must accept keyword arguments: add **kwargs")
        then = getattr(type(sender), "__then__", None)
        if then is not None:
            # A task that its app has not made yet: connect once there is one.
            then(sender, lambda task: self._add(receiver, task, weak, dispatch_uid, retry))
        else:
            self._add(receiver, sender, weak, dispatch_uid, retry)
        return receiver

    def _add(self, receiver: Callable[..., Any], sender: Any, weak: bool, dispatch_uid: Any, retry: bool) -> None:
        key = _key(receiver, sender, dispatch_uid)
        held: Any
        if retry:
            held = _Retrying(receiver, self.sleep)
        elif not weak:
            held = receiver
        elif hasattr(receiver, "__func__") and hasattr(receiver, "__self__"):
            held = weakref.WeakMethod(receiver, self._on_dead)
        else:
            held = weakref.ref(receiver, self._on_dead)
        with _guard.lock:
            alive = self._alive()
            if all(known != key for known, _held in alive):
                alive.append((key, held))
            self.receivers = alive

    def disconnect(
        self, receiver: Any = None, sender: Any = None, weak: bool | None = None, dispatch_uid: Any = None
    ) -> bool:
        """Undo ``connect`` with the same arguments; says whether there was anything to undo."""
        if weak is not None:
            warnings.warn("Passing `weak` to disconnect has no effect.", CDeprecationWarning, stacklevel=2)
        key = _key(receiver, sender, dispatch_uid)
        with _guard.lock:
            alive = self._alive()
            self.receivers = [item for item in alive if item[0] != key]
            return len(self.receivers) < len(alive)

    def has_listeners(self, sender: Any = None) -> bool:
        """Whether anybody hears ``sender``. ``receivers`` is faster, and true too when others hear others."""
        return bool(self.receivers) and bool(self._hearing(sender))

    def send(self, sender: Any, **named: Any) -> list[tuple[Callable[..., Any], Any]]:
        """Call the receivers that hear ``sender``; an exception is logged and returned in place of a response."""
        responses: list[tuple[Callable[..., Any], Any]] = []
        if not self.receivers:
            return responses
        for receiver in self._hearing(sender):
            try:
                response = receiver(signal=self, sender=sender, **named)
            except Exception as error:
                # A receiver is user code: the sender must not fail with it. logging is slow to import, so only now.
                import logging

                # Celery's logger, which users have configured.
                logger = logging.getLogger("celery.utils.dispatch.signal")
                logger.exception("Signal handler %r raised: %r", receiver, error)
                response = error
            responses.append((receiver, response))
        return responses

    send_robust = send

    def _hearing(self, sender: Any) -> list[Callable[..., Any]]:
        if self._dead:
            with _guard.lock:
                self.receivers = self._alive()
        identity = _identity(sender)
        hearing = []
        for (_receiver, wanted), held in self.receivers:
            if wanted is _ANYBODY or wanted == identity:
                receiver = held() if isinstance(held, weakref.ReferenceType) else held
                if receiver is not None:
                    hearing.append(receiver)
        return hearing

    def _alive(self) -> list[tuple[_Key, Any]]:
        """A new list without receivers that are gone."""
        self._dead = False
        return [
            item for item in self.receivers if not isinstance(item[1], weakref.ReferenceType) or item[1]() is not None
        ]

    def _on_dead(self, _reference: Any) -> None:
        self._dead = True

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.name} providing_args={self.providing_args!r}>"


class _Retrying:
    """A receiver that is called until it succeeds."""

    __slots__ = ("receiver", "sleep")

    def __init__(self, receiver: Callable[..., Any], sleep: Callable[[float], object]) -> None:
        self.receiver = receiver
        self.sleep = sleep

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        pause = _RETRY_START
        while True:
            try:
                return self.receiver(*args, **kwargs)
            except Exception as error:  # noqa: BLE001 - user code; asked for with retry=True
                import logging

                logging.getLogger("celery.utils.dispatch.signal").error(
                    "Could not process signal receiver %r: %r. Retrying in %s seconds...", self.receiver, error, pause
                )
            self.sleep(pause)
            pause = min(pause + _RETRY_STEP, _RETRY_MAX)

    def __repr__(self) -> str:
        return repr(self.receiver)


def _key(receiver: Any, sender: Any, dispatch_uid: Any) -> _Key:
    return (dispatch_uid or _identity(receiver), _identity(sender))


def _identity(target: Any) -> Any:
    """What makes two senders or receivers the same: text by value, bound methods by both halves, all else by id."""
    if target is None:
        return _ANYBODY
    kind = type(target)
    if kind is str or kind is bytes:
        return target
    current = getattr(kind, "_get_current_object", None)
    if current is not None:
        # A proxy, such as a shared task: what it stands for sends the signal.
        return _identity(current(target))
    function = getattr(target, "__func__", None)
    if function is not None:
        return (id(getattr(target, "__self__", None)), id(function))
    return target if isinstance(target, (str, bytes)) else id(target)


def _takes_kwargs(receiver: Any) -> bool:
    function = getattr(receiver, "__func__", receiver)
    code = getattr(function, "__code__", None)
    if code is not None:
        return bool(code.co_flags & _VARKEYWORDS)
    import inspect

    try:
        parameters = inspect.signature(receiver, follow_wrapped=False).parameters.values()
    except (TypeError, ValueError):
        # Something in C: it will say so itself.
        return True
    return any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)


# ---------------------------------------------------------------- publishing; the sender is the task's name

before_task_publish = Signal(
    name="before_task_publish",
    providing_args=("body", "exchange", "routing_key", "headers", "properties", "declare", "retry_policy"),
)
after_task_publish = Signal(name="after_task_publish", providing_args=("body", "exchange", "routing_key", "headers"))

# ---------------------------------------------------------------- tasks in a worker; the sender is the task

task_received = Signal(name="task_received", providing_args=("request",))
task_prerun = Signal(name="task_prerun", providing_args=("task_id", "task", "args", "kwargs"))
task_postrun = Signal(name="task_postrun", providing_args=("task_id", "task", "args", "kwargs", "retval", "state"))
task_success = Signal(name="task_success", providing_args=("result", "runtime"))
task_retry = Signal(name="task_retry", providing_args=("request", "reason", "einfo"))
task_failure = Signal(
    name="task_failure", providing_args=("task_id", "exception", "args", "kwargs", "traceback", "einfo")
)
task_internal_error = Signal(
    name="task_internal_error",
    providing_args=("task_id", "args", "kwargs", "request", "exception", "traceback", "einfo"),
)
task_revoked = Signal(name="task_revoked", providing_args=("request", "terminated", "signum", "expired"))
task_rejected = Signal(name="task_rejected", providing_args=("message", "exc"))
task_unknown = Signal(name="task_unknown", providing_args=("message", "exc", "name", "id"))

# ---------------------------------------------------------------- the worker; the sender is its node or its name

celeryd_init = Signal(name="celeryd_init", providing_args=("instance", "conf", "options"))
celeryd_after_setup = Signal(name="celeryd_after_setup", providing_args=("instance", "conf"))
import_modules = Signal(name="import_modules")
worker_init = Signal(name="worker_init")
worker_before_create_process = Signal(name="worker_before_create_process")
worker_process_init = Signal(name="worker_process_init")
worker_process_shutdown = Signal(name="worker_process_shutdown", providing_args=("pid", "exitcode"))
worker_ready = Signal(name="worker_ready")
worker_shutdown = Signal(name="worker_shutdown")
worker_shutting_down = Signal(name="worker_shutting_down", providing_args=("sig", "how", "exitcode"))
heartbeat_sent = Signal(name="heartbeat_sent")

# ---------------------------------------------------------------- logging, beat, the command line

setup_logging = Signal(name="setup_logging", providing_args=("loglevel", "logfile", "format", "colorize"))
after_setup_logger = Signal(
    name="after_setup_logger", providing_args=("logger", "loglevel", "logfile", "format", "colorize")
)
after_setup_task_logger = Signal(
    name="after_setup_task_logger", providing_args=("logger", "loglevel", "logfile", "format", "colorize")
)
beat_init = Signal(name="beat_init")
beat_embedded_init = Signal(name="beat_embedded_init")
user_preload_options = Signal(name="user_preload_options", providing_args=("app", "options"))
