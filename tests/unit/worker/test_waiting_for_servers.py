"""Backoff, and opening the adapters: patient, but never more so than whoever wants to stop."""

from __future__ import annotations

import asyncio
import logging

import pytest

from celeriac.exceptions import ImproperlyConfigured
from celeriac.model.backoff import Backoff
from celeriac.worker.connect import connect, connected
from tests.unit.worker.fakes import FakeBroker, FakeStore

#: As it is, before the fixtures of this directory make it quick.
_next = Backoff.next


@pytest.mark.parametrize(("rand", "share"), [(0.0, 0.5), (0.5, 0.75), (1.0, 1.0)])
def test_delays_double_up_to_the_maximum(rand: float, share: float) -> None:
    backoff = Backoff(rand=lambda: rand, first=0.1, maximum=0.5)
    assert [_next(backoff) for _ in range(5)] == pytest.approx([each * share for each in (0.1, 0.2, 0.4, 0.5, 0.5)])
    assert backoff.failures == 5


def test_success_starts_anew() -> None:
    backoff = Backoff(rand=lambda: 1.0, first=0.1)
    _next(backoff), _next(backoff)
    backoff.reset()
    assert backoff.failures == 0
    assert _next(backoff) == 0.1


def test_the_log_tells_of_ever_fewer_failures() -> None:
    backoff = Backoff(rand=lambda: 1.0)
    told = [backoff.failures for _ in range(200) if _next(backoff) and backoff.loud]
    assert told == [1, 2, 4, 8, 16, 32, 64, 128, 192]


def bench() -> tuple[FakeBroker, FakeStore]:
    broker = FakeBroker()
    return broker, FakeStore(broker.log)


def test_each_step_until_it_works(caplog: pytest.LogCaptureFixture) -> None:
    broker, store = bench()
    broker.faults.away("open", 2)
    broker.faults.away("declare")
    store.faults.away("open")
    with caplog.at_level(logging.WARNING):
        asyncio.run(connect(broker, store, ["a", "b"]))  # type: ignore[arg-type]
    assert [name for name, _ in broker.log] == ["open"] * 3 + ["declare"] * 2 + ["open store"] * 2
    assert ("declare", ["a", "b"]) in broker.log
    messages = [record.getMessage() for record in caplog.records]
    failed = "Cannot connect, next try in 0.00 s: away"
    assert messages == [failed, failed, "Connected after 3 failed tries", failed, "Connected after 1 failed tries"]


def test_no_word_when_it_works_at_once(caplog: pytest.LogCaptureFixture) -> None:
    broker, _ = bench()
    with caplog.at_level(logging.INFO):
        asyncio.run(connect(broker, None, ["a"]))  # type: ignore[arg-type]
    assert caplog.records == []


def test_what_waiting_does_not_mend_is_raised() -> None:
    broker, store = bench()
    store.faults.plan("open", ImproperlyConfigured("no driver"))

    async def main() -> None:
        await connected(broker, store, ["a"], asyncio.Event())  # type: ignore[arg-type]

    with pytest.raises(ImproperlyConfigured, match="no driver"):
        asyncio.run(main())


def test_connected_in_time() -> None:
    broker, store = bench()

    async def main() -> bool:
        return await connected(broker, store, ["a"], asyncio.Event())  # type: ignore[arg-type]

    assert asyncio.run(main()) is True


def test_stop_wins_over_servers_that_are_away() -> None:
    broker, store = bench()
    broker.faults.away("open", 10_000)

    async def main() -> None:
        stop = asyncio.Event()
        connecting = asyncio.create_task(connected(broker, store, ["a"], stop))  # type: ignore[arg-type]
        for _ in range(10):
            await asyncio.sleep(0)
        stop.set()
        assert await asyncio.wait_for(connecting, 30) is False
        for _ in range(5):
            await asyncio.sleep(0)
        tried = len(broker.log)
        for _ in range(10):
            await asyncio.sleep(0)
        assert len(broker.log) == tried
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main())
