"""Orders that lie in the broker, from somebody who can write there and has no key."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from celeriac import Celery
from celeriac.contrib.testing.worker import start_worker
from celeriac.exceptions import TaskRevokedError

KEY = "a signing key of 32 bytes or more"


def app_of(name: str, **settings: Any) -> Celery:
    url = f"memory://strangers-{name}"
    app = Celery("proj", broker=url, backend=url, set_as_current=False)
    app.conf.update(settings)
    return app


def test_a_stranger_ends_and_revokes_nothing() -> None:
    app, stranger = app_of("orders", signing_key=KEY), app_of("orders")
    started = threading.Event()

    @app.task(name="proj.runs", shared=False)
    async def runs() -> None:
        started.set()
        await asyncio.sleep(60)

    @app.task(name="proj.waits", shared=False)
    def waits() -> str:
        return "ran"

    with start_worker(app, perform_ping_check=False):
        running: Any = runs.delay()
        waiting: Any = waits.apply_async(countdown=1.5)
        assert started.wait(10)
        stranger.control.revoke(running.id, terminate=True)
        stranger.control.revoke(waiting.id)
        stranger.control.pause_queue("celery")
        assert waiting.get(timeout=10) == "ran"
        assert running.state == "PENDING", "it still runs"
        app.control.revoke(running.id, terminate=True)
        assert isinstance(running.get(timeout=10, propagate=False), TaskRevokedError)


@pytest.mark.parametrize("remote", [False, "inspect"])
def test_who_takes_no_commands_ends_nothing_that_runs(remote: bool | str) -> None:
    app = app_of(f"remote-{remote}", worker_enable_remote_control=remote)
    started, end = threading.Event(), threading.Event()

    @app.task(name="proj.runs", shared=False)
    async def runs() -> str:
        started.set()
        await asyncio.to_thread(end.wait, 30)
        return "ran"

    @app.task(name="proj.waits", shared=False)
    def waits() -> None: ...

    with start_worker(app, perform_ping_check=False):
        running: Any = runs.delay()
        assert started.wait(10)
        waiting: Any = waits.apply_async(countdown=60)
        app.control.revoke([running.id, waiting.id], terminate=True)
        assert isinstance(waiting.get(timeout=10, propagate=False), TaskRevokedError)
        end.set()
        assert running.get(timeout=10) == "ran"
