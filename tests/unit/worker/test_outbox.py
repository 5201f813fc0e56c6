"""The relays of a node: threads that end with the agent, and it with them."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from celeriac import Celery
from celeriac.exceptions import ImproperlyConfigured
from celeriac.worker.outbox import Relays
from tests.servers import eventually


class Fake:
    """A relay that waits until it is told to end, or fails."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.began = threading.Event()
        self.ended = threading.Event()

    def run(self, stop: threading.Event) -> None:
        self.began.set()
        try:
            if self.error is not None:
                raise self.error
            stop.wait(10.0)
        finally:
            self.ended.set()

    def stats(self) -> dict[str, Any]:
        return {"relayed": 0}


def test_they_end_with_the_service() -> None:
    fakes: Any = [Fake(), Fake()]

    async def live() -> None:
        service = asyncio.create_task(Relays(fakes).run())
        await eventually(lambda: all(fake.began.is_set() for fake in fakes))
        service.cancel()
        with pytest.raises(asyncio.CancelledError):
            await service

    asyncio.run(live())
    assert all(fake.ended.is_set() for fake in fakes)


def test_a_relay_that_fails_ends_the_service_and_the_others() -> None:
    fakes: Any = [Fake(), Fake(KeyError("a bug"))]
    with pytest.raises(KeyError, match="a bug"):
        asyncio.run(Relays(fakes).run())
    assert fakes[0].ended.is_set()


def test_what_the_settings_ask_for() -> None:
    with Celery("shop", broker="memory://relays") as app:
        assert Relays.of(app) is None
        app.conf.outbox_url = ["sqlite:///a.db", "sqlite:///b.db"]
        relays = Relays.of(app)
        assert relays is not None
        assert [each["outbox"] for each in relays.stats()] == ["sqlite:///a.db", "sqlite:///b.db"]
        app.conf.outbox_url = "mysql://u:secret@h/d"
        with pytest.raises(ImproperlyConfigured, match="outboxes are on postgresql:// and sqlite://"):
            Relays.of(app)
