"""Waiting for many records, in whatever order they come. Sits on the blocking ``Reader``; called by result sets."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any

from celeriac.client.records import READ_TIMEOUT, Meta, decode
from celeriac.exceptions import TimeoutError  # noqa: A004 - Celery's name
from celeriac.ports import Reader
from celeriac.states import READY_STATES

__all__ = ["arriving", "present"]

#: Records that are read, and watched, at once: a wake-up costs a look at all of them.
_WINDOW = 256


def present(reader: Reader, ids: Iterable[str], conf: Any) -> Iterator[tuple[str, Meta]]:
    """``(id, record)`` of those whose record is terminal now. Raises as ``records.fetch``."""
    rest = iter(ids)
    while window := list(islice(rest, _WINDOW)):
        for task_id, data in zip(window, reader.get(window, timeout=READ_TIMEOUT), strict=True):
            if data is not None:
                meta = decode(data, conf, task_id)
                if meta["status"] in READY_STATES:
                    yield task_id, meta


def arriving(
    reader: Reader,
    ids: Iterable[str],
    conf: Any,
    *,
    timeout: float | None,
    interval: float | None = None,
    on_interval: Callable[[], Any] | None = None,
) -> Iterator[tuple[str, Meta]]:
    """``(id, record)`` of all as they become terminal; ``on_interval`` is called every ``interval`` seconds of waiting.

    The first ``_WINDOW`` that are missing are watched, so that a later one may be told after an earlier one that it has
    overtaken. Raises ``TimeoutError`` after ``timeout`` seconds.
    """
    deadline = None if timeout is None else time.monotonic() + timeout
    pending = dict.fromkeys(ids)
    while pending:
        window = list(islice(pending, _WINDOW))
        came = False
        for task_id, meta in present(reader, window, conf):
            came = True
            del pending[task_id]
            yield task_id, meta
        if came:
            continue
        left = None if deadline is None else deadline - time.monotonic()
        if left is not None and left <= 0:
            raise TimeoutError("The operation timed out.")
        if on_interval is not None and interval is not None:
            left = interval if left is None else min(left, interval)
        if reader.wait(window, timeout=left) is None and on_interval is not None:
            on_interval()
