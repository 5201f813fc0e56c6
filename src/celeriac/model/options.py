"""What a task's declaration says about decisions, typed: made once per task from its attributes and the settings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from msgspec import Struct

__all__ = ["TaskOptions"]


class TaskOptions(Struct, frozen=True, kw_only=True):
    """Options that ``plan`` and the runner read; all times in seconds; names as in Celery."""

    name: str
    #: None: for ever.
    max_retries: int | None = 3
    #: None: not set by the user, so backoff decides.
    default_retry_delay: float | None = None
    autoretry_for: tuple[type[BaseException], ...] = ()
    dont_autoretry_for: tuple[type[BaseException], ...] = ()
    #: ``retry_kwargs`` of autoretry: max_retries and countdown when given there.
    retry_max_retries: int | None = None
    retry_countdown: float | None = None
    #: First delay of the exponential backoff; 0: not asked for (then ``default_retry_delay`` or the default backoff).
    retry_backoff: float = 0
    retry_backoff_max: float = 600.0
    retry_jitter: bool = True
    #: Expected errors: stored as FAILURE, logged without traceback, never dead-lettered.
    throws: tuple[type[BaseException], ...] = ()
    acks_late: bool = True
    #: False: a failing or timed-out task's message is rejected instead of accepted (Celery's
    #: acks_on_failure_or_timeout).
    acks_on_failure: bool = True
    acks_on_timeout: bool = True
    ignore_result: bool = False
    store_errors_even_if_ignored: bool = False
    track_started: bool = False
    time_limit: float | None = None
    soft_time_limit: float | None = None
    #: Life time of the result record; None: for ever.
    result_expires: float | None = 86400.0
    result_extended: bool = False
    #: Crashes attributed to the task after which it is dead-lettered.
    max_crashes: int = 3
    #: Leases lost without a culprit after which it is dead-lettered; None: never.
    max_expired_leases: int | None = 10
    send_events: bool = True
    serializer: str = "json"
    #: Some limit across workers applies: the fetcher looks no further where it does not.
    limited: bool = False
    #: Starts per second in the whole fleet; None: no limit. ``rate_key`` splits it by the call's arguments.
    rate: float | None = None
    rate_key: Callable[..., Any] | None = None
    #: Runs at once in the whole fleet, and what splits them.
    max_concurrency: int | None = None
    concurrency_key: Callable[..., Any] | None = None
