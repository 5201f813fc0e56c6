"""When a child asks for a successor, and when it leaves."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from celeriac.worker import departure as module
from celeriac.worker.departure import Departure
from celeriac.worker.options import NodeOptions
from celeriac.worker.slot import EXPECTING, LEAVING, LEFT
from tests.unit.worker.fakes import until


class Orders:
    def __init__(self) -> None:
        self.said: list[int] = []
        self.told = asyncio.Event()

    def say(self, state: int) -> None:
        self.said.append(state)

    async def retired(self) -> None:
        await self.told.wait()


class Bench:
    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, supervised: bool = True, **options: Any) -> None:
        self.now, self.kib = 100.0, 0
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: self.now))
        monkeypatch.setattr(module, "_resident_kib", lambda: self.kib)
        self.runner: Any = SimpleNamespace(count=0)
        self.orders = Orders()
        self.reasons: list[str] = []
        node = NodeOptions(hostname="w@h", queues=("celery",), **options)
        orders: Any = self.orders if supervised else None
        self.made = Departure(node, self.runner, orders, self.reasons.append)

    def run(self, tasks: int, seconds: float) -> None:
        for _ in range(tasks):
            self.runner.count += 1
            self.now += seconds
            self.made.after_task()


def test_without_limits_nothing_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not Bench(monkeypatch).made.watches
    assert Bench(monkeypatch, max_tasks_per_child=1).made.watches
    assert Bench(monkeypatch, max_memory_per_child=1).made.watches


def test_short_tasks_ask_for_a_successor_early(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch, max_tasks_per_child=100)
    bench.run(1, 0.0)
    bench.run(48, 0.01)
    assert bench.orders.said == []
    bench.run(2, 0.01)
    assert bench.orders.said == [EXPECTING]
    bench.run(49, 0.01)
    assert (bench.orders.said, bench.reasons) == ([EXPECTING], ["it ran 100 tasks"])
    assert bench.made.all_run


def test_long_ones_before_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch, max_tasks_per_child=3)
    bench.run(1, 60.0)
    assert bench.orders.said == []
    bench.run(1, 60.0)
    assert bench.orders.said == [EXPECTING]


def test_who_runs_one_task_asks_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch, max_tasks_per_child=1)
    bench.made.begin()
    assert bench.orders.said == [EXPECTING]


def test_memory_is_looked_at_ten_times_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch, max_memory_per_child=500)
    bench.run(1, 0.2)
    bench.kib = 501
    bench.run(3, 0.01)
    assert bench.orders.said == []
    bench.run(5, 0.1)
    assert bench.orders.said == [LEAVING], "once"
    assert bench.reasons == [], "its successor comes first"


def test_both_limits_count(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch, max_tasks_per_child=100, max_memory_per_child=500)
    bench.kib = 501
    bench.run(1, 10.0)
    assert bench.orders.said == [LEAVING]


def test_without_a_supervisor_it_leaves_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch, supervised=False, max_memory_per_child=500)
    bench.kib = 501
    bench.run(1, 1.0)
    bench.made.left()
    assert bench.reasons == ["it uses 501 KiB of memory"]


def test_it_retires_when_its_successor_stands_by(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch, max_memory_per_child=500)

    async def main() -> None:
        running = asyncio.create_task(bench.made.run())
        bench.made.leave("it has grown")
        await asyncio.sleep(0)
        assert bench.reasons == []
        bench.orders.told.set()
        await running

    asyncio.run(main())
    bench.made.left()
    assert (bench.reasons, bench.orders.said) == (["it has grown"], [LEAVING, LEFT])


def test_and_without_one_at_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SUCCESSION", 0.02)
    monkeypatch.setattr(module, "_LOOK", 0.01)
    bench = Bench(monkeypatch, max_memory_per_child=500)

    async def main() -> None:
        bench.made.leave("it has grown")
        await bench.made.run()

    asyncio.run(main())
    assert bench.reasons == ["it has grown"]


def test_it_retires_because_the_node_needs_fewer(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch)

    async def main() -> None:
        running = asyncio.create_task(bench.made.run())
        bench.orders.told.set()
        await until(running.done)

    asyncio.run(main())
    assert bench.reasons == ["its node needs fewer children"]
