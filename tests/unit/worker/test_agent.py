"""What nodes do on their own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from celeriac import Celery
from celeriac.model.rules import Rule
from celeriac.worker.agent import Agent
from celeriac.worker.memory import NodeMemory
from celeriac.worker.options import NodeOptions
from celeriac.worker.rules import to_wire
from celeriac.worker.runner import Runner
from celeriac.worker.slot import READY, Slots
from tests.unit.worker.fakes import until
from tests.unit.worker.test_autoscale import Queues
from tests.unit.worker.test_remote import Bench, FakeBus, FakeLink


@pytest.fixture
def bench(app: Celery, runner: Runner) -> Bench:
    app.task(name="t")(lambda: None)
    return Bench(app, runner)


def test_heartbeats(bench: Bench) -> None:
    bench.agent.events, bench.agent.burial.tasks = True, 5
    bench.link.answers = {"stats": [{"held": 1, "count": 10}, {"held": 2, "count": 20}]}

    async def main() -> None:
        beating = asyncio.create_task(bench.agent.heartbeat())
        await until(lambda: bench.bus.log)
        beating.cancel()
        await asyncio.wait({beating})

    asyncio.run(main())
    (first, online), (last, offline) = [what for _, what in bench.bus.log]
    assert (first, last) == ("worker.online", "worker.offline")
    assert (online["type"], offline["type"]) == ("worker-online", "worker-offline")
    assert (online["active"], online["processed"], online["freq"]) == (3, 35, 2.0)
    assert {"hostname", "utcoffset", "pid", "clock", "timestamp", "loadavg", "sw_ident", "sw_ver", "sw_sys"} <= set(
        online
    )
    assert offline["clock"] >= online["clock"]


def test_the_brokers_clock_counts(app: Celery, runner: Runner) -> None:
    class Server(FakeBus):
        def now(self) -> float:
            return 1_000.0

    options = NodeOptions(hostname="w@h", queues=("celery",))
    Agent(app, options, runner, broker=Server(), store=None, link=FakeLink(), stop_node=lambda: None)  # type: ignore[arg-type]
    assert runner.now() == 1_000.0


def test_what_waits_in_a_paused_queue_waits_for_no_child(app: Celery, runner: Runner) -> None:
    options = NodeOptions(hostname="w@h", queues=("celery", "other"), autoscale=(4, 1))
    memory, broker = NodeMemory(Slots(11), lambda: None, 10), Queues()
    memory.slots.words.wanted = 1
    memory.slots[1].live(1001, READY)
    memory.slots[1].pulse(1.0, 0, 1, True)
    agent = Agent(
        app,
        options,
        runner,
        broker=broker,  # type: ignore[arg-type]
        store=None,
        link=FakeLink(),
        stop_node=lambda: None,
        memory=memory,
    )
    agent.enforcer.book.hear([Rule("pause:other", b"{}")])
    assert agent.pool is not None
    assert agent.pool.bounds is not None
    asyncio.run(agent.pool.look(agent.pool.bounds))
    assert broker.looked == [["celery"]]


def test_an_agent_goes_on_where_another_ended(app: Celery, runner: Runner, make_runner: Callable[..., Runner]) -> None:
    for name in ("slow", "t"):
        app.task(name=name)(lambda: None)
    first, second = Bench(app, runner), Bench(app, make_runner())
    first.ask("time_limit", {"task_name": "slow", "soft": 2, "hard": 3.5})
    first.ask("rate_limit", {"task_name": "slow", "rate_limit": "10/s"})
    first.ask("add_consumer", {"queue": "other"})
    first.ask("enable_events")
    first.agent.tell("obey", {"rules": to_wire([Rule("revoke:a", b"{}")])})
    agent = second.agent
    agent.resume(first.link.kept)
    options = agent.runner.entry("slow").options  # type: ignore[union-attr]
    assert (options.soft_time_limit, options.time_limit, options.rate) == (2, 3.5, 10.0)
    assert (agent.queues, agent.events, agent.runner.report.events) == (["celery", "other"], True, True)
    assert list(agent.enforcer.book.revoked) == ["a"]
    second.ask("rate_limit", {"task_name": "t", "rate_limit": "5/s"})
    assert second.link.kept["rate_limit"] == {"rates": {"slow": 10.0, "t": 5.0}}, "it forgets none of them"


def test_an_agent_without_a_past(bench: Bench) -> None:
    bench.agent.resume({})
    assert (bench.agent.queues, bench.agent.events) == (["celery"], False)
