"""``rediss://`` verifies who answers, unless it is told not to, which it warns of."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from celeriac import Celery
from celeriac.exceptions import OperationalError, SecurityWarning
from tests.servers import HOST, RedisServer


@pytest.fixture
def server(make_redis: Callable[..., RedisServer]) -> Iterator[RedisServer]:
    with make_redis(tls=True) as server:
        yield server


def send(url: str) -> None:
    # One try: the last of several may end for want of time instead.
    app = Celery("tls", broker=url, task_publish_retry=False, set_as_current=False)
    try:
        app.send_task("t")
    finally:
        app.sender.close()


def test_a_certificate_that_nobody_vouches_for_is_refused(server: RedisServer) -> None:
    with pytest.raises(OperationalError, match=r"(?i)certificate"):
        send(f"rediss://{HOST}:{server.port}/0")
    assert server.command("LLEN", "celery") == 0


def test_one_that_somebody_vouches_for_is_taken(server: RedisServer) -> None:
    send(server.url())
    assert server.command("LLEN", "celery") == 1


def test_no_verification_is_possible_and_told(server: RedisServer) -> None:
    with pytest.warns(SecurityWarning, match="ssl_cert_reqs=none"):
        send(f"rediss://{HOST}:{server.port}/0?ssl_cert_reqs=none")
    assert server.command("LLEN", "celery") == 1
