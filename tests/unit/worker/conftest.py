"""An app with a few tasks, and what a worker makes of it; nothing of it outlives its test."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from celeriac import Celery
from celeriac.contrib.testing.app import TestApp, setup_default_app
from celeriac.model.backoff import Backoff
from celeriac.worker.options import NodeOptions
from celeriac.worker.report import Report
from celeriac.worker.runner import Runner
from celeriac.worker.slot import Slot

_numbers = itertools.count(1)


@pytest.fixture
def app() -> Iterator[Celery]:
    """An app on a memory broker of its own."""
    url = f"memory://worker-unit-{next(_numbers)}"
    app = TestApp("proj", {"broker_url": url, "result_backend": url})
    with setup_default_app(app):
        yield app


@pytest.fixture
def node() -> NodeOptions:
    return NodeOptions(hostname="w@h", queues=("celery",), heartbeats=False)


@pytest.fixture
def make_runner(app: Celery, node: NodeOptions) -> Callable[..., Runner]:
    """``make_runner(slot=None, report=None, results=True, **options)``."""

    def make(*, slot: Slot | None = None, report: Report | None = None, results: bool = True, **options: Any) -> Runner:
        chosen = NodeOptions(**{"hostname": node.hostname, "queues": node.queues, **options})
        return Runner(app, chosen, slot=slot, report=report or Report(), results=results)

    return make


@pytest.fixture
def runner(make_runner: Callable[..., Runner]) -> Runner:
    return make_runner()


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Outages are counted here, not waited for."""

    def at_once(self: Backoff) -> float:
        self.failures += 1
        return 0.0

    monkeypatch.setattr(Backoff, "next", at_once)
