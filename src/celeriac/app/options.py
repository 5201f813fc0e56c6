"""From a task's attributes to what decisions are made on: ``TaskOptions``; and what a send takes from the task.

Knows names and defaults. Called once per task, by ``Task.options`` and at the first send.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from celeriac.app.limits import limit_options
from celeriac.app.unique import Unique
from celeriac.conf.check import in_seconds
from celeriac.model.options import TaskOptions

__all__ = ["FROM_SETTINGS", "FromSetting", "Sending", "send_defaults", "task_options"]

#: Attributes of tasks that follow a setting unless the task has its own.
FROM_SETTINGS = {
    "serializer": "task_serializer",
    "rate_limit": "task_default_rate_limit",
    "priority": "task_default_priority",
    "time_limit": "task_time_limit",
    "soft_time_limit": "task_soft_time_limit",
    "track_started": "task_track_started",
    "acks_late": "task_acks_late",
    "acks_on_failure_or_timeout": "task_acks_on_failure_or_timeout",
    "acks_on_failure": "task_acks_on_failure",
    "acks_on_timeout": "task_acks_on_timeout",
    "reject_on_worker_lost": "task_reject_on_worker_lost",
    "retry_on_worker_lost": "task_retry_on_worker_lost",
    "ignore_result": "task_ignore_result",
    "store_eager_result": "task_store_eager_result",
    "store_errors_even_if_ignored": "task_store_errors_even_if_ignored",
}
#: Attributes that become options of each send.
_SEND_OPTIONS = (
    "queue",
    "routing_key",
    "exchange",
    "exchange_type",
    "priority",
    "expires",
    "serializer",
    "delivery_mode",
    "compression",
    "time_limit",
    "soft_time_limit",
)


class FromSetting:
    """An attribute of Task with the value of a setting; a class or instance that has its own hides it."""

    __slots__ = ("setting",)

    def __init__(self, setting: str) -> None:
        self.setting = setting

    def __get__(self, task: Any, owner: Any) -> Any:
        app = owner._app
        return None if app is None else app.conf[self.setting]


class Sending:
    """What every send of one task needs, worked out once."""

    __slots__ = ("check", "defaults", "names", "unique")

    def __init__(
        self, defaults: dict[str, Any], check: Callable[..., object] | None, names: bool, unique: Unique | None
    ) -> None:
        self.defaults = defaults
        #: Takes the arguments, raises TypeError when they do not fit.
        self.check = check
        #: ``shadow_name`` is the user's own.
        self.names = names
        #: What makes its calls equal.
        self.unique = unique


def send_defaults(task: Any) -> dict[str, Any]:
    """Options that every message of the task has unless the call says otherwise.

    Raises ``ValueError`` when the soft limit is beyond the hard one.
    """
    hard, soft = in_seconds(task.time_limit), in_seconds(task.soft_time_limit)
    if hard and soft and soft > hard:
        raise ValueError(
            f"task {task.name!r}: soft_time_limit ({soft:g} s) must be less than or equal to time_limit ({hard:g} s)"
        )
    conf = task.app.conf
    defaults = {name: getattr(task, name, None) for name in _SEND_OPTIONS}
    # Settings are the sender's to apply; what merely repeats them would only make each send slower.
    for name in ("serializer", "priority"):
        if defaults[name] == conf[FROM_SETTINGS[name]]:
            del defaults[name]
    return {
        **{name: value for name, value in defaults.items() if value is not None},
        "ignore_result": bool(task.ignore_result),
    }


def task_options(task: Any) -> TaskOptions:
    """The typed options of a task. Raises ``ImproperlyConfigured`` where its limits make no sense."""
    conf = task.app.conf
    retry_kwargs = getattr(task, "retry_kwargs", None) or {}
    backoff = getattr(task, "retry_backoff", 0)
    return TaskOptions(
        name=task.name,
        max_retries=task.max_retries,
        default_retry_delay=in_seconds(task.default_retry_delay) if _own_delay(task) else None,
        autoretry_for=_classes(getattr(task, "autoretry_for", ())),
        dont_autoretry_for=_classes(getattr(task, "dont_autoretry_for", ())),
        retry_max_retries=retry_kwargs.get("max_retries"),
        retry_countdown=in_seconds(retry_kwargs.get("countdown")),
        retry_backoff=float(backoff or 0),
        retry_backoff_max=float(in_seconds(getattr(task, "retry_backoff_max", None)) or conf.task_retry_backoff_max),
        retry_jitter=bool(getattr(task, "retry_jitter", conf.task_retry_jitter)),
        throws=_classes(task.throws),
        acks_late=bool(task.acks_late),
        acks_on_failure=_acks_on(task, "failure"),
        acks_on_timeout=_acks_on(task, "timeout"),
        ignore_result=bool(task.ignore_result),
        store_errors_even_if_ignored=bool(task.store_errors_even_if_ignored),
        track_started=bool(task.track_started),
        time_limit=in_seconds(task.time_limit) or None,
        soft_time_limit=in_seconds(task.soft_time_limit) or None,
        result_expires=conf.seconds("result_expires"),
        result_extended=bool(conf.result_extended),
        max_crashes=conf.worker_max_crashes,
        max_expired_leases=conf.worker_max_expired_leases,
        send_events=bool(task.send_events),
        serializer=conf.result_serializer,
        **limit_options(task),
    )


def _own_delay(task: Any) -> bool:
    """Somebody has set ``default_retry_delay``, if only to its default; else backoff decides."""
    return _has_own(task, "default_retry_delay")


def _has_own(task: Any, name: str) -> bool:
    """Somebody has set the attribute: on the task, or on a class between it and ours."""
    if name in vars(task):
        return True
    base = next(cls for cls in type(task).__mro__ if name in cls.__dict__)
    return base.__module__ != "celeriac.app.task"


def _classes(value: Any) -> tuple[type[BaseException], ...]:
    if value is None:
        return ()
    return tuple(value) if isinstance(value, Iterable) else (value,)


def _acks_on(task: Any, end: str) -> bool:
    """The task's own word, else the setting's if it was set, else what holds for failure and timeout alike."""
    name = f"acks_on_{end}"
    if _has_own(task, name) or task.app.conf.value_set_for(f"task_{name}"):
        return bool(getattr(task, name))
    both = task.acks_on_failure_or_timeout
    return True if both is None else bool(both)
