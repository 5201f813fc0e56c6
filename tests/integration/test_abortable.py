"""``celeriac.contrib.abortable``, with a worker in this process."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from celeriac import Celery
from celeriac.contrib.abortable import ABORTED, AbortableAsyncResult, AbortableTask
from celeriac.contrib.testing.worker import start_worker
from celeriac.exceptions import ImproperlyConfigured


@pytest.fixture
def app() -> Iterator[Celery]:
    made = Celery("abortable", broker="memory://abortable", backend="memory://abortable", set_as_current=False)
    yield made
    made.close()


def test_a_task_that_asks_stops_by_itself(app: Celery) -> None:
    runs = threading.Event()

    @app.task(name="long", bind=True, base=AbortableTask)
    def long(self: AbortableTask) -> str:
        runs.set()
        while not self.is_aborted():
            threading.Event().wait(0.005)
        return "in good order"

    @app.task(name="short", bind=True, base=AbortableTask)
    def short(self: AbortableTask) -> bool:
        return self.is_aborted()

    with start_worker(app, perform_ping_check=False):
        result = long.delay()
        assert isinstance(result, AbortableAsyncResult)
        assert runs.wait(30)
        assert not result.is_aborted()
        result.abort()
        assert result.get(timeout=30) == "in good order"
        assert result.state == "SUCCESS"
        result.abort()
        assert result.state == "SUCCESS", "what has ended keeps its end"
        assert short.delay().get(timeout=30) is False
    waiting = short.delay()
    waiting.abort()
    assert (waiting.state, waiting.is_aborted()) == (ABORTED, True)
    with start_worker(app, perform_ping_check=False):
        assert waiting.get(timeout=30) is True
    assert short.apply().get() is False


def test_where_nobody_keeps_the_wish() -> None:
    app = Celery("abortable", broker="memory://abortable-without", backend="rpc://", set_as_current=False)
    task = app.task(name="t", base=AbortableTask)(lambda: None)
    with pytest.raises(ImproperlyConfigured, match="result_backend"):
        task.AsyncResult("id").abort()
