"""Large arguments and results through a payload store, with real workers on the real servers."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from celeriac import Celery, chain, chord
from celeriac.contrib.testing.worker import start_worker
from celeriac.exceptions import MessageTooLarge, PayloadLost, RemoteError
from tests.servers import wait_until

LARGE = "x" * 1_000_000


@pytest.fixture(params=["redis", "sqlite"])
def app(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Celery]:
    url = request.getfixturevalue("redis_url") if request.param == "redis" else f"sqlite:///{tmp_path / 'large.db'}"
    app = Celery("large", broker=url, backend=url, set_as_current=False)
    app.conf.update(payload_store=str(tmp_path / "payloads"), max_message_bytes=4_000_000)
    declare(app)
    yield app
    app.close()


def declare(app: Celery) -> None:
    @app.task(name="twice", shared=False)
    def twice(text: str) -> str:
        return text * 2

    @app.task(name="twice_later", shared=False)
    async def twice_later(text: str) -> str:
        return text * 2

    @app.task(name="length", shared=False)
    def length(text: Any) -> int:
        return len(text)

    @app.task(name="retried", bind=True, max_retries=3, shared=False)
    def retried(self: Any, text: str) -> int:
        if self.request.retries < 2:
            raise self.retry(countdown=0.01)
        return len(text)

    @app.task(name="vast", shared=False)
    def vast() -> str:
        return "x" * 5_000_000


def files(tmp_path: Path) -> list[Path]:
    return [each for each in (tmp_path / "payloads").rglob("*") if each.is_file() and not each.name.startswith(".")]


def wait_clean(tmp_path: Path) -> None:
    wait_until(lambda: not files(tmp_path), 60, lambda: f"payloads are dropped: {files(tmp_path)}")


@pytest.mark.parametrize("name", ["twice", "twice_later"])
def test_a_million_bytes_there_and_two_million_back(app: Celery, tmp_path: Path, name: str) -> None:
    with start_worker(app, perform_ping_check=False):
        result: Any = app.tasks[name].delay(LARGE)
        assert result.get(timeout=60) == LARGE * 2
        # The arguments are gone with the task, the result stays until it is forgotten.
        wait_until(lambda: len(files(tmp_path)) == 1, 60, lambda: f"one is left: {files(tmp_path)}")
        assert app.AsyncResult(result.id).result == LARGE * 2
        result.forget()
        assert files(tmp_path) == []


def test_retries_and_workflows(app: Celery, tmp_path: Path) -> None:
    twice, length, retried = app.tasks["twice"], app.tasks["length"], app.tasks["retried"]
    with start_worker(app, perform_ping_check=False):
        assert retried.delay(LARGE).get(timeout=60) == len(LARGE)
        assert chain(twice.s(LARGE), length.s()).apply_async().get(timeout=60) == 2 * len(LARGE)
        joined = chord([twice.s("y" * 100_000) for _ in range(3)])(length.s())
        assert joined.get(timeout=60) == 3


def test_a_result_that_is_too_large_is_a_failure_with_its_name(app: Celery) -> None:
    app.conf.payload_store = None
    with start_worker(app, perform_ping_check=False), pytest.raises((MessageTooLarge, RemoteError)) as caught:
        app.tasks["vast"].delay().get(timeout=60)
    assert "the result of vast is" in str(caught.value)


def test_a_lost_payload_is_a_failure_with_its_name(app: Celery, tmp_path: Path) -> None:
    result: Any = app.tasks["length"].delay(LARGE)
    (file,) = files(tmp_path)
    file.unlink()
    with start_worker(app, perform_ping_check=False), pytest.raises((PayloadLost, RemoteError), match="is not in"):
        result.get(timeout=60)


def test_a_store_that_is_away_is_waited_for(app: Celery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("celeriac.worker.runner.STORE_AWAY", 0.2)
    result: Any = app.tasks["length"].delay(LARGE)
    hidden = tmp_path / "hidden"
    (tmp_path / "payloads").rename(hidden)
    (tmp_path / "payloads").mkdir()  # the mount point without its mount
    began = time.monotonic()
    with start_worker(app, perform_ping_check=False):
        wait_until(lambda: app.control.inspect(timeout=5.0, limit=1).stats() is not None, 60)
        while time.monotonic() - began < 1.0:
            assert result.state == "PENDING"
        (tmp_path / "payloads").rmdir()
        hidden.rename(tmp_path / "payloads")
        assert result.get(timeout=60) == len(LARGE)
    wait_clean(tmp_path)


def test_what_a_killed_producer_left_behind_goes_with_its_day(tmp_path: Path) -> None:
    app = Celery("orphans", broker="memory://orphans", set_as_current=False, payload_store=str(tmp_path / "payloads"))
    pid = os.fork()
    if not pid:
        app.sender.send = lambda *args, **options: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[method-assign]
        app.send_task("length", (LARGE,))
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
    (orphan,) = files(tmp_path)
    orphan.parent.rename(tmp_path / "payloads" / "2026-01-01")
    from celeriac.client.payloads import payloads_of

    payloads = payloads_of(app.conf)
    assert payloads is not None
    assert payloads.sweep() == 1
    assert files(tmp_path) == []
