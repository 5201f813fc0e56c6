"""Publishing once more, as Celery's ``retry_policy`` says. Called by the sender when a first try has failed."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from celeriac.exceptions import OperationalError

__all__ = ["send_again"]

T = TypeVar("T")


def send_again(
    send: Callable[[float], T],
    error: OperationalError,
    deadline: float,
    policy: Mapping[str, Any],
    *,
    uncertain: bool = False,
) -> T:
    """``send(seconds left)`` until it works, ``policy`` ends it or the monotonic ``deadline`` has come.

    What may have been sent is sent again only when ``uncertain`` says so. Raises the last ``OperationalError``, at
    first ``error``.
    """
    most, pause = policy.get("max_retries"), policy.get("interval_start") or 0
    attempt = 0
    while most is None or attempt < most:
        left = deadline - time.monotonic()
        if left <= pause:
            break
        time.sleep(pause)
        attempt += 1
        pause = min(pause + (policy.get("interval_step") or 0), policy.get("interval_max") or pause)
        try:
            return send(deadline - time.monotonic())
        except OperationalError as again:
            error = again
            if error.uncertain and not uncertain:
                break
    raise error
