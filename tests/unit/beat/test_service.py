"""The service: looks, sleeps, files, errors, its end; systemd."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from celeriac import Celery, signals
from celeriac.beat import systemd
from celeriac.beat.seen import Seen
from celeriac.beat.service import BeatService, verify
from celeriac.beat.thread import OwnThread
from celeriac.exceptions import ImproperlyConfigured


class Scheduler:
    """One with Celery's interface, which notes what is asked of it."""

    def __init__(self, *looks: Any) -> None:
        self.looks = list(looks)
        self.calls: list[str] = []
        self.threads: set[int] = set()

    def tick(self) -> Any:
        self.calls.append("tick")
        self.threads.add(threading.get_ident())
        look = self.looks.pop(0)
        if isinstance(look, BaseException):
            raise look
        return look

    def should_sync(self) -> bool:
        self.calls.append("should_sync")
        return True

    def _do_sync(self) -> None:
        self.calls.append("sync")

    def interrupt(self) -> None:
        self.calls.append("interrupt")

    def close(self) -> None:
        self.calls.append("close")


class Sleeps:
    """A clock that notes how long is slept, and ends the service when its looks are over."""

    def __init__(self, scheduler: Scheduler, slept: list[float] | None) -> None:
        self.scheduler = scheduler
        self.slept: list[float] = [] if slept is None else slept

    def now(self) -> float:
        return 0.0

    def monotonic(self) -> float:
        return 1.0

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        if not self.scheduler.looks:
            await asyncio.Event().wait()
        await asyncio.sleep(0)


def drive(
    scheduler: Scheduler, *, until: Callable[[], bool], slept: list[float] | None = None, **options: Any
) -> tuple[BeatService, Sleeps]:
    app = Celery("beat", broker="memory://", set_as_current=False)
    clock = Sleeps(scheduler, slept)
    service = BeatService(app, make=lambda: scheduler, clock=clock, **options)

    async def run() -> None:
        running = asyncio.ensure_future(service.run())
        while not until() and not running.done():  # noqa: ASYNC110 - the service has no event for its sleeps
            await asyncio.sleep(0)
        running.cancel()
        await running

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(run())
    return service, clock


def test_it_looks_sleeps_and_writes_the_file() -> None:
    scheduler = Scheduler(0.5, None, 3)
    sent: list[Any] = []
    sleeps: list[float] = []

    def note(sender: Any, **_: Any) -> None:
        sent.append(sender)

    signals.beat_init.connect(note)
    signals.beat_embedded_init.connect(note)
    try:
        service, clock = drive(scheduler, until=lambda: len(sleeps) == 3, embedded=True, slept=sleeps)
    finally:
        signals.beat_init.disconnect(note)
        signals.beat_embedded_init.disconnect(note)
    assert clock.slept == [0.5, 300.0, 3.0]
    assert scheduler.calls[:7] == ["tick", "should_sync", "sync", "tick", "should_sync", "sync", "tick"]
    assert scheduler.calls[-2:] == ["interrupt", "close"]
    assert sent == [service, service]
    assert service.scheduler is scheduler
    assert len(scheduler.threads) == 1
    assert threading.get_ident() not in scheduler.threads


def test_it_tells_of_its_scheduler() -> None:
    scheduler: Any = Scheduler(0.5)
    service, _ = drive(scheduler, until=lambda: scheduler.calls == ["tick"])
    assert service.stats() == {"beat": {"scheduler": f"{__name__}:Scheduler"}}
    scheduler.seen = Seen(at=1.0, host="h", pid=2, tick=3.0, next=4.0)
    shown = service.stats()["beat"]
    assert (shown["host"], shown["next"]) == ("h", "1970-01-01T00:00:04+00:00")
    json.dumps(shown)


def clock_of(scheduler: Scheduler) -> list[str]:
    return [call for call in scheduler.calls if call == "tick"]


def test_what_a_scheduler_raises_is_logged_and_it_is_asked_again(caplog: Any) -> None:
    scheduler = Scheduler(ValueError("one"), ValueError("two"), ValueError("three"), 1.0)
    _, clock = drive(scheduler, until=lambda: len(clock_of(scheduler)) == 4)
    assert 0.5 <= clock.slept[0] <= 1.0
    assert 1.0 <= clock.slept[1] <= 2.0
    assert 2.0 <= clock.slept[2] <= 4.0
    assert caplog.text.count("The scheduler has failed") == 2
    assert "ValueError: one" in caplog.text


def test_what_is_configured_wrongly_ends_it_at_the_start_only() -> None:
    app = Celery("beat", broker="memory://", set_as_current=False)
    scheduler = Scheduler(ImproperlyConfigured("no"))
    with pytest.raises(ImproperlyConfigured, match="no"):
        asyncio.run(BeatService(app, make=lambda: scheduler).run())
    assert scheduler.calls[-1] == "close"
    later = Scheduler(1.0, ImproperlyConfigured("no"), 1.0)
    drive(later, until=lambda: len(clock_of(later)) == 3)


def test_the_thread_runs_calls_in_order_and_raises() -> None:
    async def main() -> None:
        thread = OwnThread("x")
        seen: list[int] = []
        await asyncio.gather(*(thread(seen.append, number) for number in range(50)))
        assert seen == list(range(50))
        with pytest.raises(ZeroDivisionError):
            await thread(lambda: 1 / 0)
        names = {await thread(lambda: threading.current_thread().name) for _ in range(3)}
        assert names == {"x"}
        thread.end()

    asyncio.run(main())


def test_a_broker_without_a_ledger_is_told_at_the_start() -> None:
    app = Celery("beat", broker="amqp://nowhere", set_as_current=False)
    with pytest.raises(ImproperlyConfigured, match=r"set ledger_url .* or run one single beat with\s-S celeriac.beat"):
        verify(app)
    app.conf.result_backend = "rpc://"
    with pytest.raises(ImproperlyConfigured, match="keeps none"):
        verify(app)


def test_a_ledger_beside_is_enough() -> None:
    app = Celery("beat", broker="amqp://nowhere", set_as_current=False)
    app.conf.ledger_url = "redis://nowhere"
    assert verify(app).__name__ == "SharedScheduler"


def test_a_file_is_of_no_use_to_the_shared_one(caplog: Any) -> None:
    app = Celery("beat", broker="redis://nowhere", set_as_current=False)
    verify(app, None, "celerybeat-schedule")
    assert "-s/--schedule has no effect: SharedScheduler keeps its state in the ledger" in caplog.text


def test_bad_entries_are_told_at_the_start() -> None:
    app = Celery("beat", broker="redis://nowhere", set_as_current=False)
    app.conf.beat_schedule = {"x": {"task": "t"}}
    with pytest.raises(ImproperlyConfigured, match="entry 'x': schedule is missing"):
        verify(app)


@pytest.mark.parametrize("abstract", [False, True])
def test_systemd_hears(abstract: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    address = f"@celeriac-{tmp_path.name}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind("\0" + address[1:] if abstract else address)
        listening.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", address)
        assert systemd.notify("READY=1")
        assert listening.recv(100) == b"READY=1"


def test_without_systemd_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    assert not systemd.notify("READY=1")
    monkeypatch.setenv("NOTIFY_SOCKET", "/nowhere/at/all")
    assert not systemd.notify("READY=1")


@pytest.mark.parametrize(
    ("usec", "pid", "seconds"), [("30000000", "", 30.0), ("30000000", "1", None), ("", "", None), ("x", "", None)]
)
def test_the_watchdog(usec: str, pid: str, seconds: float | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", usec)
    monkeypatch.setenv("WATCHDOG_PID", pid)
    assert systemd.watchdog_interval() == seconds
