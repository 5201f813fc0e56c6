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


@pytest.mark.parametrize("remote", [True, False])
def test_a_stranger_ends_and_revokes_nothing(remote: bool) -> None:
    """Rules are obeyed whether or not commands are heard; strangers' in neither case."""
    name = f"orders-{remote}"
    app, stranger = app_of(name, signing_key=KEY, worker_enable_remote_control=remote), app_of(name)
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
        assert started.wait(60)
        stranger.control.revoke(running.id, terminate=True)
        stranger.control.revoke(waiting.id)
        stranger.control.pause_queue("celery")
        assert waiting.get(timeout=60) == "ran"
        assert running.state == "PENDING", "it still runs"
        app.control.revoke(running.id, terminate=True)
        assert isinstance(running.get(timeout=60, propagate=False), TaskRevokedError)
