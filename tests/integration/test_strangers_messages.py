"""A message of a stranger that no child has claimed: the agent takes it out of its queue, for its id is revoked."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from celeriac import Celery
from celeriac.contrib.testing.worker import start_worker
from celeriac.model.settle import DeadReason
from tests.servers import RedisServer, wait_until

KEY = "a signing key of 32 bytes or more"


class Evil:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


@pytest.fixture(params=["memory", "sqlite", "redis"])
def url(request: pytest.FixtureRequest, tmp_path: Path, make_redis: Callable[..., RedisServer]) -> Any:
    if request.param != "redis":
        yield "memory://strangers-messages" if request.param == "memory" else f"sqlite:///{tmp_path / 'q.db'}"
        return
    server = make_redis()
    yield server.url()
    server.close()


def test_a_revoked_id_is_no_way_in(url: str, tmp_path: Path) -> None:
    app, stranger = (Celery("proj", broker=url, backend=url, set_as_current=False) for _ in range(2))
    app.conf.update(signing_key=KEY, accept_content=["json", "pickle"])
    app.task(name="proj.add", shared=False)(lambda x: x)
    embed = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
    message = stranger.sender.message("proj.add", (1,), {}, {"task_id": "forged", "countdown": 3_600})
    body = pickle.dumps(([Evil(tmp_path / "pwned")], {}, embed))
    forged = replace(message, body=body, content_type="application/x-python-serialize", content_encoding="binary")
    stranger.sender.publisher.publish([forged], timeout=30.0)
    app.control.revoke("forged")
    with start_worker(app, perform_ping_check=False):
        wait_until(lambda: app.dead_letters.count() == 1, timeout=60)
    (letter,) = app.dead_letters.list()
    assert (letter.id, letter.reason, letter.detail) == ("forged", DeadReason.REFUSED, "signature missing")
    assert not (tmp_path / "pwned").exists()
    assert app.AsyncResult("forged").state == "PENDING", "it says nothing of a task of that id"
