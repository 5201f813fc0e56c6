"""A scheduler answers ``ping``, and nothing else, while it looks at its entries."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from celeriac import Celery
from celeriac.beat.answering import Answering
from celeriac.beat.loop import Service
from celeriac.beat.service import BeatService
from celeriac.client.requests import REPLY_EXCHANGE
from celeriac.exceptions import ImproperlyConfigured

NODE = "celerybeat@h"


@pytest.fixture
def app() -> Celery:
    return Celery("beat", broker="memory://answering", set_as_current=False)


def ask(app: Celery, *calls: Any, why: str = "") -> list[Any]:
    """What the calls return, made from another thread while a scheduler answers."""

    async def main() -> list[Any]:
        answering = asyncio.create_task(Answering(app, NODE, lambda: why).run())
        await asyncio.sleep(0)
        answers = [await asyncio.to_thread(call) for call in calls]
        answering.cancel()
        await asyncio.gather(answering, return_exceptions=True)
        return answers

    return asyncio.run(main())


def test_ping_alone_is_answered(app: Celery) -> None:
    inspect = app.control.inspect(timeout=30, limit=1)
    stats, named, ping = ask(
        app,
        app.control.inspect(timeout=0.05).stats,
        lambda: app.control.ping([NODE], timeout=30, limit=1),
        inspect.ping,
    )
    assert not stats
    assert named == [{NODE: {"ok": "pong"}}]
    assert ping == {NODE: {"ok": "pong"}}


def test_who_is_stalled_is_silent(app: Celery, caplog: pytest.LogCaptureFixture) -> None:
    def ping() -> list[Any]:
        return list(app.control.ping(timeout=0.05))

    assert ask(app, ping, ping, why="it hangs") == [[], []]
    assert caplog.text.count("Not answering ping: it hangs") == 1


def test_with_a_key_only_signed_ones_count(app: Celery) -> None:
    app.conf.control_key = "a key of sixteen bytes"
    answering = Answering(app, NODE, lambda: "")
    replies: list[Any] = []

    async def reply(*arguments: Any) -> None:
        replies.append(arguments)

    answering._listener._bus.reply = reply  # type: ignore[method-assign]
    request = {"method": "ping", "ticket": "t", "reply_to": {"exchange": REPLY_EXCHANGE, "routing_key": "k"}}
    asyncio.run(answering._listener.handle(request, {}))
    assert replies == []
    assert ask(app, lambda: app.control.ping(timeout=30, limit=1)) == [[{NODE: {"ok": "pong"}}]]


class At:
    """A clock that stands."""

    def __init__(self, moment: float) -> None:
        self.moment = moment

    def now(self) -> float:
        return self.moment

    monotonic = now

    async def sleep(self, seconds: float) -> None:
        await asyncio.Event().wait()


@pytest.mark.parametrize(
    ("setting", "delay", "age", "stalled"),
    [
        (None, 1.0, 59.0, False),
        (None, 1.0, 61.0, True),
        (None, 300.0, 599.0, False),
        (None, 300.0, 601.0, True),
        (5.0, 300.0, 4.0, False),
        (5.0, 300.0, 6.0, True),
        (0, 1.0, 1e6, False),
    ],
)
def test_how_old_its_last_look_may_be(
    app: Celery, setting: float | None, delay: float, age: float, stalled: bool
) -> None:
    app.conf.beat_remote_control_max_tick_age = setting
    clock = At(1000.0)
    service = BeatService(app, hostname=NODE, clock=clock)
    assert bool(service.stalled()) is (setting != 0), "before the first look"
    service._looked, service._delay = 1000.0, delay
    clock.moment += age
    assert bool(service.stalled()) is stalled


def test_celerys_service_refuses(app: Celery) -> None:
    app.conf.beat_enable_remote_control = True
    with pytest.raises(ImproperlyConfigured, match="celeriac beat status"):
        Service(app).start()
