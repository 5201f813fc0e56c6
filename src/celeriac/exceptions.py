"""Every error a user can meet, under Celery's names.

Pure classes: no I/O. Adapters translate driver errors into these at their boundary; the codec maps the names
``celery.exceptions.X`` and ``billiard.exceptions.X`` in stored results to the classes of this file.
"""

from __future__ import annotations

from datetime import datetime
from types import TracebackType
from typing import Any, NoReturn

__all__ = [
    "AlreadyRegistered",
    "AlwaysEagerIgnored",
    "BackendError",
    "BackendGetMetaError",
    "BackendStoreError",
    "CDeprecationWarning",
    "CPendingDeprecationWarning",
    "CeleryCommandException",
    "CeleryError",
    "CeleryWarning",
    "ChordError",
    "ContentDisallowed",
    "DecodeError",
    "DuplicateNodenameWarning",
    "DuplicateTaskNameWarning",
    "EncodeError",
    "FixupWarning",
    "Ignore",
    "ImproperlyConfigured",
    "IncompleteStream",
    "InvalidTaskError",
    "MaxRetriesExceededError",
    "MessageTooLarge",
    "NotConfigured",
    "NotRegistered",
    "OperationalError",
    "PayloadLost",
    "QueueNotFound",
    "Reject",
    "RemoteError",
    "Retry",
    "SecurityError",
    "SecurityWarning",
    "SoftTimeLimitExceeded",
    "TaskError",
    "TaskNotUnique",
    "TaskPredicate",
    "TaskRevokedError",
    "Terminated",
    "TimeLimitExceeded",
    "TimeoutError",
    "WorkerLostError",
    "WorkerShutdown",
    "WorkerTerminate",
    "reraise",
]


def reraise(_tp: type[BaseException], value: BaseException, tb: TracebackType | None = None) -> NoReturn:
    """Raise ``value`` with the traceback ``tb``."""
    if value.__traceback__ is not tb:
        raise value.with_traceback(tb)
    raise value


def _repr(exc: BaseException) -> str:
    try:
        return repr(exc)
    except Exception:  # noqa: BLE001 - a user's __repr__ may raise, and a retry must not fail with it
        return f"<{type(exc).__name__}: its repr() raises>"


class CeleryWarning(UserWarning):
    """Base of all warnings."""


class AlwaysEagerIgnored(CeleryWarning):
    """send_task ignores task_always_eager."""


class DuplicateNodenameWarning(CeleryWarning):
    """Several workers use the same node name."""


class DuplicateTaskNameWarning(CeleryWarning):
    """Two tasks were registered under one name."""


class FixupWarning(CeleryWarning):
    """A framework fixup could not be applied."""


class NotConfigured(CeleryWarning):
    """The application has no configuration."""


class SecurityWarning(CeleryWarning):
    """A setting weakens security."""


class CPendingDeprecationWarning(PendingDeprecationWarning):
    """Will be deprecated."""


class CDeprecationWarning(DeprecationWarning):
    """Is deprecated."""


class CeleryError(Exception):
    """Base of all errors of this package."""


class TaskPredicate(CeleryError):
    """Raised inside a task to end the attempt in a particular way; not an error of the task."""


class Retry(TaskPredicate):
    """The task is to be tried again later.

    ``when`` is a number of seconds or a datetime, ``exc`` the cause, ``sig`` the signature of the next attempt.
    """

    # Also of one that is rebuilt from other arguments than these.
    message: str | None = None
    exc: BaseException | None = None
    excs: str | None = None
    when: float | datetime | None = None

    def __init__(
        self,
        message: str | None = None,
        exc: BaseException | str | None = None,
        when: float | datetime | None = None,
        is_eager: bool = False,
        sig: Any = None,
        **kwargs: Any,
    ) -> None:
        self.message = message
        if isinstance(exc, str):
            self.exc, self.excs = None, exc
        else:
            self.exc, self.excs = exc, _repr(exc) if exc is not None else None
        self.when = when
        self.is_eager = is_eager
        self.sig = sig
        super().__init__(message, exc, when, **kwargs)

    def humanize(self) -> str:
        """When the next attempt is due, in words."""
        if isinstance(self.when, (int, float)):
            return f"in {self.when}s"
        return f"at {self.when}"

    def __str__(self) -> str:
        if self.message:
            return str(self.message)
        if self.excs:
            return f"Retry {self.humanize()}: {self.excs}"
        return f"Retry {self.humanize()}"

    def __reduce__(self) -> tuple[type[Retry], tuple[Any, ...]]:
        return self.__class__, (self.message, self.exc, self.when)


class Ignore(TaskPredicate):
    """End the attempt without storing a state."""


class Reject(TaskPredicate):
    """End the attempt; ``requeue=True`` puts the message back, else it goes to the dead letters."""

    reason: Any = None
    requeue: bool = False

    def __init__(self, reason: Any = None, requeue: bool = False) -> None:
        self.reason = reason
        self.requeue = requeue
        super().__init__(reason, requeue)

    def __repr__(self) -> str:
        return f"reject requeue={self.requeue}: {self.reason}"


class ImproperlyConfigured(CeleryError):
    """A setting or a combination of settings cannot work."""


class SecurityError(CeleryError):
    """A message or command failed a security check."""


class OperationalError(CeleryError):
    """The broker or the result store cannot be reached or refused the operation."""

    #: The answer was lost, so the operation may have been done all the same: repeating it may do it twice.
    uncertain: bool = False


class EncodeError(CeleryError):
    """A value cannot be serialized."""


class DecodeError(CeleryError):
    """Bytes cannot be deserialized."""


class ContentDisallowed(DecodeError):
    """The content type is not in ``accept_content``."""


class MessageTooLarge(CeleryError):
    """A message or payload exceeds ``max_message_bytes``."""


class PayloadLost(CeleryError):
    """A payload that a message or a result refers to is not in the payload store, or is not what was put there."""


class TaskError(CeleryError):
    """Base of errors that concern one task."""


class QueueNotFound(KeyError, TaskError):
    """The queue is not in ``task_queues`` and ``task_create_missing_queues`` is off."""


class IncompleteStream(TaskError):
    """A stream of results ended early."""


class NotRegistered(KeyError, TaskError):
    """The task is not registered."""

    def __repr__(self) -> str:
        return f"Task of kind {self} is not registered, please make sure it's imported."

    def __str__(self) -> str:
        return KeyError.__str__(self)


class AlreadyRegistered(TaskError):
    """The task is already registered."""


class TimeoutError(TaskError):  # noqa: A001 - Celery's name
    """The operation took longer than allowed."""


class MaxRetriesExceededError(TaskError):
    """The task was tried ``max_retries`` times and failed each time."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.task_args = kwargs.pop("task_args", [])
        self.task_kwargs = kwargs.pop("task_kwargs", {})
        super().__init__(*args)


class TaskRevokedError(TaskError):
    """The task was revoked or expired, so it has no result."""


class TaskNotUnique(TaskError):
    """An equal task waits or runs, and ``on_conflict`` is ``raise``. ``task`` is its name, ``holder`` its id."""

    task: str = ""
    holder: str = ""

    def __init__(self, task: str, holder: str) -> None:
        self.task = task
        self.holder = holder
        super().__init__(task, holder)

    def __str__(self) -> str:
        return f"task {self.task} is not sent: an equal one, {self.holder}, waits or runs; wait for that one instead"


class InvalidTaskError(TaskError):
    """The message is not a valid task message."""


class ChordError(TaskError):
    """A member of a chord's header failed."""


class RemoteError(TaskError):
    """An exception whose class cannot be rebuilt here; carries its names as text.

    ``exc_type`` and ``exc_module`` name the class, ``args`` are its arguments.
    """

    exc_type: str = ""
    exc_module: str = ""

    def __str__(self) -> str:
        name = ".".join(filter(None, (self.exc_module, self.exc_type)))
        text = super().__str__()
        return f"{name}: {text}" if name and text else name or text


class BackendError(Exception):
    """An error of the result store."""


class BackendGetMetaError(BackendError):
    """A result could not be read."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.task_id = kwargs.get("task_id", "")
        super().__init__(*args)


class BackendStoreError(BackendError):
    """A result could not be written."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.state = kwargs.get("state", "")
        self.task_id = kwargs.get("task_id", "")
        super().__init__(*args)


class TimeLimitExceeded(Exception):
    """The hard time limit was exceeded, so the task was ended (billiard.exceptions)."""


class SoftTimeLimitExceeded(Exception):
    """The soft time limit was exceeded; raised inside the task (billiard.exceptions)."""

    def __str__(self) -> str:
        return f"SoftTimeLimitExceeded{self.args!r}"


class WorkerLostError(Exception):
    """The process that ran the task died (billiard.exceptions)."""


class Terminated(Exception):
    """The task was terminated by a signal (billiard.exceptions)."""


class WorkerTerminate(SystemExit):
    """Stop the worker at once."""


class WorkerShutdown(SystemExit):
    """Stop the worker after the running tasks."""


class CeleryCommandException(Exception):
    """A command failed; the CLI exits with ``exit_code``."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code
