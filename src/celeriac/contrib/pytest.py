"""The pytest plug-in: fixtures and a mark under Celery's names (``celery.contrib.pytest``).

pytest loads it in every run of every project in whose environment we are installed, so importing it imports nothing
else of Celeriac: fixtures do so when they are used.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from celeriac.app.base import Celery
    from celeriac.contrib.testing.worker import TestWorkController
    from celeriac.testing import Simulation

#: Set in the environment: worker fixtures start none, for runs against a worker of your own.
NO_WORKER = os.environ.get("NO_WORKER")


def pytest_configure(config: pytest.Config) -> None:
    """Register the mark."""
    config.addinivalue_line("markers", "celery(**settings): settings of the app in this test")


# ---------------------------------------------------------------- to be redefined in a conftest.py


@pytest.fixture(scope="session")
def celery_config() -> Mapping[str, Any]:
    """Settings of the test app. Its default broker and result backend are in memory."""
    return {}


@pytest.fixture(scope="session")
def celery_parameters() -> Mapping[str, Any]:
    """Arguments of ``Celery(...)`` for the test app."""
    return {}


@pytest.fixture(scope="session")
def celery_enable_logging() -> bool:
    """Accepted as in Celery: workers in tests leave logging to the test suite."""
    return False


@pytest.fixture(scope="session")
def celery_includes() -> Sequence[str]:
    """Names of modules to import before a worker starts: those with the tasks."""
    return ()


@pytest.fixture(scope="session")
def celery_worker_pool() -> str:
    """``solo``, or ``threads`` with a ``concurrency`` in ``celery_worker_parameters``."""
    return "solo"


@pytest.fixture(scope="session")
def celery_worker_parameters() -> Mapping[str, Any]:
    """Arguments of ``start_worker``: queues, concurrency, shutdown_timeout …"""
    return {}


@pytest.fixture(scope="session")
def celery_class_tasks() -> Sequence[Any]:
    """Tasks made of classes, to be registered with the app of a session."""
    return ()


@pytest.fixture(scope="session")
def use_celery_app_trap() -> bool:
    """On: a test that uses the current app instead of the one it was given fails."""
    return False


# ---------------------------------------------------------------- to be used in tests


@pytest.fixture(scope="session")
def celery_session_app(
    request: pytest.FixtureRequest,
    celery_config: Mapping[str, Any],
    celery_parameters: Mapping[str, Any],
    celery_enable_logging: bool,
    use_celery_app_trap: bool,
) -> Iterator[Celery]:
    """An app for the whole session, the current and default one unless the trap is on."""
    with _app(request, celery_config, celery_parameters, use_celery_app_trap) as app:
        if not use_celery_app_trap:
            app.set_default()
            app.set_current()
        yield app


@pytest.fixture(scope="session")
def celery_session_worker(
    celery_session_app: Celery,
    celery_includes: Sequence[str],
    celery_class_tasks: Sequence[Any],
    celery_worker_pool: str,
    celery_worker_parameters: Mapping[str, Any],
) -> Iterator[TestWorkController | None]:
    """A worker of ``celery_session_app`` that runs until the session ends."""
    with _worker(
        celery_session_app, celery_includes, celery_class_tasks, celery_worker_pool, celery_worker_parameters
    ) as worker:
        yield worker


@pytest.fixture
def celery_app(
    request: pytest.FixtureRequest,
    celery_config: Mapping[str, Any],
    celery_parameters: Mapping[str, Any],
    celery_enable_logging: bool,
    use_celery_app_trap: bool,
) -> Iterator[Celery]:
    """An app for this test, not the current one. ``@pytest.mark.celery(...)`` changes its settings."""
    with _app(request, celery_config, celery_parameters, use_celery_app_trap) as app:
        yield app


@pytest.fixture
def celery_worker(
    celery_app: Celery,
    celery_includes: Sequence[str],
    celery_class_tasks: Sequence[Any],
    celery_worker_pool: str,
    celery_worker_parameters: Mapping[str, Any],
) -> Iterator[TestWorkController | None]:
    """A worker of ``celery_app`` for this test, in a thread. Tasks may be declared before and after its start."""
    with _worker(
        celery_app, celery_includes, celery_class_tasks, celery_worker_pool, celery_worker_parameters
    ) as worker:
        yield worker


@pytest.fixture
def celeriac_simulation_app(celery_app: Celery) -> Celery:
    """The app of ``celeriac_simulation``: ``celery_app``, unless redefined to return your own."""
    return celery_app


@pytest.fixture
def celeriac_simulation(celeriac_simulation_app: Celery) -> Iterator[Simulation]:
    """``celeriac_simulation_app`` in virtual time: start workers, let days pass, crash them. Nothing runs by itself."""
    from celeriac.testing import Simulation

    with Simulation(celeriac_simulation_app) as simulation:
        yield simulation


@pytest.fixture
def depends_on_current_app(celery_app: Celery) -> None:
    """Make ``celery_app`` the current app."""
    celery_app.set_current()


@contextmanager
def _app(
    request: pytest.FixtureRequest, config: Mapping[str, Any], parameters: Mapping[str, Any], use_trap: bool
) -> Iterator[Celery]:
    from celeriac.contrib.testing.app import TestApp, setup_default_app

    mark = request.node.get_closest_marker("celery")
    app = TestApp(config={**config, **(mark.kwargs if mark else {})}, **parameters)
    with setup_default_app(app, use_trap=use_trap):
        yield app


@contextmanager
def _worker(
    app: Celery, includes: Sequence[str], classes: Sequence[Any], pool: str, parameters: Mapping[str, Any]
) -> Iterator[TestWorkController | None]:
    if NO_WORKER:
        yield None
        return
    from celeriac.contrib.testing.worker import start_worker

    for module in includes:
        app.loader.import_task_module(module)
    for task in classes:
        app.register_task(task)
    with start_worker(app, **{"pool": pool, **parameters}) as worker:
        yield worker
