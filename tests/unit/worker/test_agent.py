"""What becomes of the deliveries of a child that died, and what nodes do on their own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from celeriac import Celery
from celeriac.model import outcome as o
from celeriac.model.message import Delivery, Marks
from celeriac.model.rules import Rule
from celeriac.model.settle import Accept, Completion, DeadLetter, DeadReason, Release, Settlement
from celeriac.worker.agent import NO_MORE, Agent, Died, notice
from celeriac.worker.memory import NodeMemory
from celeriac.worker.options import NodeOptions
from celeriac.worker.rules import to_wire
from celeriac.worker.runner import Runner
from celeriac.worker.slot import READY, Slots
from tests.unit.worker.fakes import delivery, until
from tests.unit.worker.test_autoscale import Queues
from tests.unit.worker.test_remote import Bench, FakeBus, FakeLink


@pytest.fixture
def bench(app: Celery, runner: Runner) -> Bench:
    app.task(name="t")(lambda: None)
    return Bench(app, runner)


def buried(agent: Agent, died: Died, *orphans: Delivery) -> dict[str, Settlement]:
    """How each is settled, by token."""
    agent.broker.orphaned = list(orphans)  # type: ignore[attr-defined]

    async def main() -> list[Any]:
        await agent.bury(died)
        return list(agent.completer._queue)

    completions = asyncio.run(main())
    assert all(isinstance(each, Completion) for each in completions)
    return {each.settlement.delivery.token: each.settlement for each in completions}


def died(culprit: Delivery | None = None, **fields: Any) -> Died:
    token, task_id = (culprit.token, culprit.message.id) if culprit is not None else ("", "")
    return Died(**{"owner": "o", "how": "signal 9 (SIGKILL)", "token": token, "id": task_id, **fields})


def test_the_culprit_is_counted_and_the_others_are_not(bench: Bench) -> None:
    culprit, innocent = delivery(), delivery(marks=Marks(crashes=1))
    settled = buried(bench.agent, died(culprit), culprit, innocent)
    assert settled[culprit.token] == Release(culprit, marks=Marks(crashes=1, suspect=True))
    assert settled[innocent.token] == Release(innocent, marks=Marks(crashes=1))
    assert bench.bus.log == [("orphans", "o")]


def test_the_third_crash_is_the_last(bench: Bench) -> None:
    culprit = delivery(marks=Marks(crashes=2))
    settlement = buried(bench.agent, died(culprit), culprit)[culprit.token]
    assert isinstance(settlement, DeadLetter)
    assert settlement.reason is DeadReason.CRASHED
    assert "signal 9 (SIGKILL)" in settlement.detail


def test_between_tasks_nobody_is_the_culprit(bench: Bench) -> None:
    orphans = [delivery(), delivery()]
    assert buried(bench.agent, died(), *orphans) == {each.token: Release(each, marks=each.marks) for each in orphans}


def test_a_culprit_that_was_settled_already_costs_nobody_else(bench: Bench) -> None:
    innocent = delivery()
    assert buried(bench.agent, died(delivery()), innocent) == {innocent.token: Release(innocent, marks=Marks())}


def test_over_its_hard_limit(bench: Bench) -> None:
    culprit, innocent = delivery(), delivery()
    settled = buried(bench.agent, died(culprit, limit=5.0), culprit, innocent)
    over = settled[culprit.token]
    assert isinstance(over, DeadLetter)
    assert over.reason is DeadReason.TIME_LIMIT
    assert settled[innocent.token] == Release(innocent, marks=Marks())


def test_ended_on_request(bench: Bench) -> None:
    culprit, innocent = delivery(), delivery()
    end = o.Revoked("terminated", 15)
    bench.agent.enforcer.terminating = {culprit.token: end, innocent.token: end}
    settled = buried(bench.agent, died(culprit), culprit, innocent)
    assert settled[culprit.token] == Accept(culprit)
    assert settled[innocent.token] == Release(innocent, marks=Marks())
    assert bench.agent.enforcer.terminating == {innocent.token: end}


def test_what_is_revoked_is_so_though_nobody_ended_it(bench: Bench) -> None:
    culprit = delivery(id="a")
    bench.agent.enforcer.book.hear([Rule("revoke:a", b"{}")])
    assert buried(bench.agent, died(culprit), culprit) == {culprit.token: Accept(culprit)}
    over = buried(bench.agent, died(culprit, limit=5.0), culprit)[culprit.token]
    assert isinstance(over, DeadLetter), "it ended as it ended"


def test_killed_for_a_task_that_had_just_ended(bench: Bench) -> None:
    """The next one in that process is not the cause of its death, and not counted."""
    next_one, later = delivery(), delivery()
    bench.agent.enforcer.terminating = {"x:o9:1": o.Revoked("terminated", 15), "x:other:1": o.Revoked("terminated", 15)}
    settled = buried(bench.agent, died(next_one, owner="o9"), next_one)
    assert settled == {next_one.token: Release(next_one, marks=Marks())}
    assert list(bench.agent.enforcer.terminating) == ["x:other:1"]
    assert buried(bench.agent, died(later, owner="o9"), later)[later.token] == Release(
        later, marks=Marks(crashes=1, suspect=True)
    )


def test_of_many_all_become_suspects_uncounted(bench: Bench) -> None:
    orphans = [delivery(), delivery(marks=Marks(suspect=True))]
    settled = buried(bench.agent, died(many=True), *orphans)
    assert settled == {each.token: Release(each, marks=Marks(suspect=True)) for each in orphans}


def test_of_many_the_first_loss_of_one_alone_is_not_counted(bench: Bench) -> None:
    one = delivery()
    assert buried(bench.agent, died(many=True), one) == {one.token: Release(one, marks=Marks(suspect=True))}


def test_of_many_a_suspect_that_was_alone_is_the_culprit(bench: Bench) -> None:
    """Else a task that kills its process would do so for ever where children run many tasks at once."""
    one = delivery(marks=Marks(suspect=True))
    assert buried(bench.agent, died(many=True), one) == {one.token: Release(one, marks=Marks(crashes=1, suspect=True))}
    last = delivery(marks=Marks(suspect=True, crashes=2))
    assert isinstance(buried(bench.agent, died(many=True), last)[last.token], DeadLetter)
    over = delivery(marks=Marks(suspect=True))
    settlement = buried(bench.agent, died(many=True, limit=5.0), over)[over.token]
    assert isinstance(settlement, DeadLetter)
    assert settlement.reason is DeadReason.TIME_LIMIT


def test_burying_waits_for_the_broker(bench: Bench) -> None:
    one = delivery()
    bench.bus.faults.away("orphans", 2)
    assert list(buried(bench.agent, died(), one)) == [one.token]


def test_notices_until_there_are_no_more(bench: Bench) -> None:
    async def main() -> list[Any]:
        reader = asyncio.StreamReader()
        for owner, tasks in (("a", 3), ("b", 4)):
            reader.feed_data(notice(Died(owner=owner, how="exit code 1", tasks=tasks)))
        reader.feed_data(NO_MORE + notice(Died(owner="c", how="never read")))
        await asyncio.wait_for(bench.agent.notices(reader), 1)
        return bench.bus.log

    assert asyncio.run(main()) == [("orphans", "a"), ("orphans", "b")]
    assert bench.agent.buried == 7


def test_a_notice_holds_any_text() -> None:
    raw = notice(Died(owner="o", how="x\ny", id="ü\n\x00�"))
    assert raw.count(b"\n") == 1
    assert raw.endswith(b"\n")
    assert raw != NO_MORE


def test_heartbeats(bench: Bench) -> None:
    bench.agent.events, bench.agent.buried = True, 5
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


def test_what_the_agent_concludes_is_an_event_too(bench: Bench) -> None:
    bench.agent.runner.report.events = True
    culprit = delivery(marks=Marks(crashes=2))
    bench.bus.orphaned = [culprit]

    async def main() -> None:
        await bench.agent.bury(died(culprit))
        await until(lambda: not bench.agent._sending)

    asyncio.run(main())
    key, events = next(what for name, what in bench.bus.log if name == "emit")
    assert (key, [each["type"] for each in events]) == ("task.multi", ["task-failed"])


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
