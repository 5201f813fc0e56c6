"""When to try again: exponential backoff, with full jitter. Pure arithmetic; randomness is passed in."""

from __future__ import annotations

from celeriac.model.options import TaskOptions

__all__ = ["DEFAULT_BASE", "autoretry", "backoff", "delay"]

#: First delay in seconds where neither the task nor the call says one.
DEFAULT_BASE = 1.0


def backoff(
    retries: int, *, base: float = DEFAULT_BASE, maximum: float = 600.0, jitter: bool = True, rand: float
) -> float:
    """Seconds to wait before attempt ``retries + 1``: ``base × 2^retries``, at most ``maximum``.

    ``rand`` in [0, 1) spreads it over the whole span (full jitter, AWS Architecture Blog 2015; Celery's
    ``retry_backoff``/``retry_jitter``); without jitter the span itself.
    """
    # 2**retries overflows a float beyond 1023; the maximum is reached long before.
    span: float = min(maximum, base * 2 ** min(retries, 64))
    return span * rand if jitter else span


def autoretry(options: TaskOptions, exc: BaseException, retries: int, rand: float) -> float | None:
    """Seconds until the automatic retry of a task that raised ``exc``, or None when it is not to be retried.

    Celery's ``autoretry_for``, ``dont_autoretry_for``, ``retry_kwargs``, ``retry_backoff*``. ``retries`` counts the
    attempts before this one.
    """
    if not isinstance(exc, options.autoretry_for) or isinstance(exc, options.dont_autoretry_for):
        return None
    limit = options.retry_max_retries if options.retry_max_retries is not None else options.max_retries
    if limit is not None and retries >= limit:
        return None
    if options.retry_countdown is not None:
        return options.retry_countdown
    if options.retry_backoff:
        maximum, jitter = options.retry_backoff_max, options.retry_jitter
        return backoff(retries, base=options.retry_backoff, maximum=maximum, jitter=jitter, rand=rand)
    return delay(options, retries, rand)


def delay(options: TaskOptions, retries: int, rand: float) -> float:
    """Seconds until the next attempt where the call gives none: ``default_retry_delay``, else backoff with full
    jitter."""
    if options.default_retry_delay is not None:
        return options.default_retry_delay
    return backoff(retries, maximum=options.retry_backoff_max, rand=rand)
