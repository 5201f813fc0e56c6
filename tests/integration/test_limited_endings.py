"""Tasks that wait for a seat and end, or are held up, without a run: nobody waits for them."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
from msgspec.structs import replace

from celeriac import Celery, states
from celeriac.client import resolver
from celeriac.contrib.testing.worker import start_worker
from tests.servers import wait_until


class Place:
    """An app with a worker of two queues, a task ``one`` with one seat, and ``gate``, which lets the first one end."""

    def __init__(self, url: str) -> None:
        self.app = Celery("limited", broker=url, backend=url, set_as_current=False)
        self.started, self.gate = threading.Event(), threading.Event()

        @self.app.task(name="one", max_concurrency=1, shared=False)
        def one(holds: bool) -> None:
            if holds:
                self.started.set()
                assert self.gate.wait(120.0)

        self.one = one

    def hold(self) -> None:
        """Somebody has the seat."""
        self.one.apply_async((True,), queue="a")
        assert self.started.wait(60)

    def wait_for(self, count: int) -> None:
        """Until so many are parked."""
        look = resolver.publisher(self.app.conf.broker_url, resolver.adapter_options(self.app.conf))
        wait_until(lambda: look.depth(["a"], timeout=60)["a"].scheduled == count)
        look.close()


@pytest.fixture(params=["memory", "redis", "sqlite"])
def place(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    real = resolver.adapter_options
    # Whoever gets a seat because another's time for it is over, does not get it in this test.
    monkeypatch.setattr(
        resolver, "adapter_options", lambda *a, **options: replace(real(*a, **options), seat_promise=120.0)
    )
    url = f"memory://{request.node.originalname}"
    if request.param == "redis":
        url = request.getfixturevalue("redis_url")
    if request.param == "sqlite":
        url = f"sqlite:///{request.getfixturevalue('tmp_path')}/q.db"
    place = Place(url)
    with start_worker(place.app, pool="threads", concurrency=4, queues="a,b"):
        yield place
        place.gate.set()


def test_expired_ones_pass_their_seats_on(place: Place) -> None:
    place.hold()
    expired = [place.one.apply_async((False,), queue="a", expires=3.0) for _ in range(4)]
    last = place.one.apply_async((False,), queue="a")
    place.wait_for(5)
    sent = time.time()
    wait_until(lambda: time.time() > sent + 3.0, describe="they have expired")
    place.gate.set()
    last.get(timeout=60)
    assert {each.state for each in expired} == {states.REVOKED}


def test_a_revoked_one_is_ended_while_it_waits(place: Place) -> None:
    place.hold()
    revoked = place.one.apply_async((False,), queue="a")
    place.wait_for(1)
    revoked.revoke()
    wait_until(lambda: revoked.state == states.REVOKED, timeout=60)


def test_those_in_a_paused_queue_let_others_pass(place: Place) -> None:
    place.hold()
    paused = [place.one.apply_async((False,), queue="a") for _ in range(4)]
    place.wait_for(4)
    place.app.control.pause_queue("a")
    other = place.one.apply_async((False,), queue="b")
    place.gate.set()
    other.get(timeout=60)
    assert not any(each.ready() for each in paused)
    place.app.control.resume_queue("a")
    for each in paused:
        each.get(timeout=60)
