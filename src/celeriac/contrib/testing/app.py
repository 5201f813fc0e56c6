"""Apps for tests (``celery.contrib.testing.app``), and leaving the process as it was before them.

Used by the fixtures of ``celeriac.contrib.pytest``. Every test app has a memory broker of its own, so that no test
finds another one's messages.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from inspect import getclosurevars
from typing import Any, NoReturn

from celeriac.app import state
from celeriac.app.base import Celery
from celeriac.client import current

__all__ = ["DEFAULT_TEST_CONFIG", "TestApp", "Trap", "UnitApp", "set_trap", "setup_default_app"]

#: Settings of test apps that do not say otherwise. The URLs of broker and results are each app's own.
DEFAULT_TEST_CONFIG: Mapping[str, Any] = {
    "worker_hijack_root_logger": False,
    "worker_log_color": False,
    "accept_content": ("json",),
    "enable_utc": True,
    "timezone": "UTC",
    # A misspelt name fails a test soon; in production other workers may know it.
    "worker_unknown_task_park": 1.0,
}

_numbers = itertools.count(1)


class Trap:
    """Stands for the current app where a test must not use it: anything asked of it raises RuntimeError."""

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("__") or name == "_is_coroutine":
            raise AttributeError(name)  # asked by whoever wants to know what this is
        raise RuntimeError(f"the test uses the current app: {name!r} was asked of it")


def TestApp(  # noqa: N802 - Celery's name
    name: str | None = None,
    config: Mapping[str, Any] | None = None,
    enable_logging: bool = False,
    set_as_current: bool = False,
    backend: Any = None,
    broker: Any = None,
    **kwargs: Any,
) -> Celery:
    """An app with ``DEFAULT_TEST_CONFIG``; ``config`` goes above it, ``kwargs`` are those of ``Celery``.

    ``enable_logging`` is accepted: tests never have their logging set up by an app.
    """
    from celeriac.contrib.testing import tasks  # noqa: F401  # declares celery.ping

    url = f"memory://test-{next(_numbers)}"
    settings: dict[str, Any] = {**DEFAULT_TEST_CONFIG, "broker_url": url, "result_backend": url, **(config or {})}
    if broker is not None:
        del settings["broker_url"]
    if backend is not None:
        del settings["result_backend"]
    app = Celery(name or "celery.tests", set_as_current=set_as_current, broker=broker, backend=backend, **kwargs)
    app.add_defaults(settings)
    return app


TestApp.__test__ = False  # type: ignore[attr-defined]  # pytest takes functions that are called Test... for tests
#: The name that Celery's own suite uses.
UnitApp = TestApp


@contextmanager
def set_trap(app: Any) -> Iterator[None]:
    """Whoever uses the current or the default app gets a ``Trap``. ``app`` is not used."""
    before = _current_apps()
    trap = Trap()
    current._thread.app = None
    current._default = current._latest = trap
    try:
        yield
    finally:
        _set_current_apps(before)


@contextmanager
def setup_default_app(app: Celery, use_trap: bool = False) -> Iterator[None]:
    """Let a test work with ``app``; afterwards it is closed, and current apps and shared tasks are as before.

    Shared tasks that modules have declared meanwhile stay: nobody imports those modules again.
    """
    apps, finalizers = _current_apps(), dict(state._finalizers)
    try:
        if use_trap:
            with set_trap(app):
                yield
        else:
            yield
    finally:
        new = [callback for callback in state._finalizers if callback not in finalizers]
        for callback in filter(_is_local, new):
            del state._finalizers[callback]
        if app is not apps[0]:
            app.close()
        _set_current_apps(apps)
        _drop(app)


def _current_apps() -> tuple[Any, Any, Any]:
    return current._thread.app, current._default, current._latest


def _set_current_apps(apps: tuple[Any, Any, Any]) -> None:
    current._thread.app, current._default, current._latest = apps


def _is_local(callback: Callable[..., Any]) -> bool:
    """The shared task was declared inside a function: in a test, not in a module."""
    try:
        fun = getclosurevars(callback).nonlocals.get("fun", callback)
    except (TypeError, ValueError):
        fun = callback
    return "<locals>" in getattr(fun, "__qualname__", "")


def _drop(app: Celery) -> None:
    """Forget the memory broker of a test app."""
    from celeriac.client import resolver

    for url in {app.conf.broker_url, app.conf.result_backend}:
        if isinstance(url, str) and url.startswith("memory://test-"):
            resolver.adapter(url).drop(url)  # type: ignore[attr-defined]  # the memory adapter has it
