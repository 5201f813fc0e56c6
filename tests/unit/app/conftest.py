"""Apps that leave no trace, and a producer that keeps messages."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from celeriac import Celery
from celeriac.app import state
from celeriac.client import current
from celeriac.codec.body import decode_body
from celeriac.model.message import Message


class Collector:
    """A producer."""

    def __init__(self) -> None:
        self.messages: list[Message] = []

    def collect(self, message: Message) -> None:
        self.messages.append(message)

    @property
    def last(self) -> Message:
        return self.messages[-1]

    def body(self, index: int = -1) -> tuple[Any, Any, Any]:
        accept = frozenset({"json", "application/json", "pickle"})
        return decode_body(self.messages[index], accept=accept, max_bytes=1 << 20)


@pytest.fixture
def sent() -> Collector:
    return Collector()


@pytest.fixture(autouse=True)
def no_traces() -> Iterator[None]:
    """Current apps of a test end with it."""
    state._apps.clear()
    before = current._default, current._latest, current._thread.app
    current._default = current._latest = current._thread.app = None
    yield
    current._default, current._latest, current._thread.app = before


@pytest.fixture
def app() -> Iterator[Celery]:
    with Celery("proj", broker="memory://", set_as_current=True) as app:
        yield app


@pytest.fixture
def collecting(app: Celery, sent: Collector, monkeypatch: pytest.MonkeyPatch) -> Collector:
    """Whatever the app sends goes into ``sent``."""

    def send(messages: Any, **options: Any) -> None:
        for message in [messages] if isinstance(messages, Message) else messages:
            sent.collect(message)

    monkeypatch.setattr(app.sender, "send", send)
    return sent
