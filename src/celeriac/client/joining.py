"""Whether waiting for a result is allowed here. Asked by results; set by eager mode, by tests and by users."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from celeriac.client.current import worker_request

__all__ = ["allow_join_result", "assert_will_not_block", "denied_join_result"]

_WOULD_BLOCK = (
    "Never call result.get() within a task: it holds a worker's slot while it waits for another one. "
    "Chain the tasks instead, or say disable_sync_subtasks=False"
)

#: True or False inside ``denied_join_result`` and ``allow_join_result``.
_denied: ContextVar[bool | None] = ContextVar("celeriac.join_denied", default=None)


def assert_will_not_block() -> None:
    """Raise ``RuntimeError`` where waiting for a result is not allowed: inside a task that a worker runs."""
    denied = _denied.get()
    if denied is None:
        request = worker_request()
        denied = request is not None and not request.is_eager
    if denied:
        raise RuntimeError(_WOULD_BLOCK)


@contextmanager
def _joins(denied: bool) -> Iterator[None]:
    token = _denied.set(denied)
    try:
        yield
    finally:
        _denied.reset(token)


@contextmanager
def allow_join_result() -> Iterator[None]:
    """Allow ``get()`` inside a task."""
    with _joins(False):
        yield


@contextmanager
def denied_join_result() -> Iterator[None]:
    """Forbid ``get()``."""
    with _joins(True):
        yield
