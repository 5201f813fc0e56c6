"""What becomes of the deliveries of a child that died."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from celeriac import Celery
from celeriac.exceptions import OperationalError
from celeriac.model import outcome as o
from celeriac.model.message import Delivery, Marks
from celeriac.model.rules import Rule
from celeriac.model.settle import Accept, Completion, DeadLetter, DeadReason, Release, Settlement
from celeriac.worker.burial import LOOKS, NO_MORE, Died, notice
from celeriac.worker.runner import Runner
from tests.unit.worker.fakes import Steady, delivery, until
from tests.unit.worker.test_remote import Bench


@pytest.fixture
def bench(app: Celery, runner: Runner, monkeypatch: pytest.MonkeyPatch) -> Bench:
    app.task(name="t")(lambda: None)
    bench = Bench(app, runner)
    monkeypatch.setattr(bench.agent.burial, "_clock", Steady())
    return bench


def buried(bench: Bench, died: Died, *orphans: Delivery) -> dict[str, Settlement]:
    """How each is settled, by token."""
    bench.bus.orphaned = list(orphans)

    async def main() -> list[Any]:
        await bench.agent.burial.bury(died)
        return list(bench.agent.completer._queue)

    completions = asyncio.run(main())
    assert all(isinstance(each, Completion) for each in completions)
    return {each.settlement.delivery.token: each.settlement for each in completions}


def died(culprit: Delivery | None = None, **fields: Any) -> Died:
    token, task_id = (culprit.token, culprit.message.id) if culprit is not None else ("", "")
    return Died(**{"owner": "o", "how": "signal 9 (SIGKILL)", "token": token, "id": task_id, **fields})


def test_the_culprit_is_counted_and_the_others_are_not(bench: Bench) -> None:
    culprit, innocent = delivery(), delivery(marks=Marks(crashes=1))
    settled = buried(bench, died(culprit), culprit, innocent)
    assert settled[culprit.token] == Release(culprit, marks=Marks(crashes=1, suspect=True))
    assert settled[innocent.token] == Release(innocent, marks=Marks(crashes=1))
    assert bench.bus.log == [("orphans", "o")] * (1 + len(LOOKS))


def test_the_third_crash_is_the_last(bench: Bench) -> None:
    culprit = delivery(marks=Marks(crashes=2))
    settlement = buried(bench, died(culprit), culprit)[culprit.token]
    assert isinstance(settlement, DeadLetter)
    assert settlement.reason is DeadReason.CRASHED
    assert "signal 9 (SIGKILL)" in settlement.detail


def test_between_tasks_nobody_is_the_culprit(bench: Bench) -> None:
    orphans = [delivery(), delivery()]
    assert buried(bench, died(), *orphans) == {each.token: Release(each, marks=each.marks) for each in orphans}


def test_a_culprit_that_was_settled_already_costs_nobody_else(bench: Bench) -> None:
    innocent = delivery()
    assert buried(bench, died(delivery()), innocent) == {innocent.token: Release(innocent, marks=Marks())}


def test_over_its_hard_limit(bench: Bench) -> None:
    culprit, innocent = delivery(), delivery()
    settled = buried(bench, died(culprit, limit=5.0), culprit, innocent)
    over = settled[culprit.token]
    assert isinstance(over, DeadLetter)
    assert over.reason is DeadReason.TIME_LIMIT
    assert settled[innocent.token] == Release(innocent, marks=Marks())


def test_of_one_acknowledged_early_only_its_result_is_written(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    culprit, innocent = delivery(), delivery()
    told: list[Any] = []

    async def write(task_id: str, outcome: o.Outcome, reply_to: str) -> None:
        told.append((task_id, outcome, reply_to))
        if len(told) == 1:
            raise OperationalError("away")

    monkeypatch.setattr(bench.agent.burial._obituary, "write", write)
    settled = buried(bench, died(culprit, early=True, limit=5.0, reply_to="mine"), innocent)
    assert told == [(culprit.message.id, o.TimedOut(5.0), "mine")] * 2
    assert settled == {innocent.token: Release(innocent, marks=Marks())}


def test_ended_on_request(bench: Bench) -> None:
    culprit, innocent = delivery(), delivery()
    end = o.Revoked("terminated", 15)
    bench.agent.enforcer.terminating = {culprit.token: end, innocent.token: end}
    settled = buried(bench, died(culprit), culprit, innocent)
    assert settled[culprit.token] == Accept(culprit)
    assert settled[innocent.token] == Release(innocent, marks=Marks())
    assert bench.agent.enforcer.terminating == {innocent.token: end}


def test_what_is_revoked_is_so_though_nobody_ended_it(bench: Bench) -> None:
    culprit = delivery(id="a")
    bench.agent.enforcer.book.hear([Rule("revoke:a", b"{}")])
    assert buried(bench, died(culprit), culprit) == {culprit.token: Accept(culprit)}
    over = buried(bench, died(culprit, limit=5.0), culprit)[culprit.token]
    assert isinstance(over, DeadLetter), "it ended as it ended"


def test_killed_for_a_task_that_had_just_ended(bench: Bench) -> None:
    """The next one in that process is not the cause of its death, and not counted."""
    next_one, later = delivery(), delivery()
    bench.agent.enforcer.terminating = {"x:o9:1": o.Revoked("terminated", 15), "x:other:1": o.Revoked("terminated", 15)}
    settled = buried(bench, died(next_one, owner="o9"), next_one)
    assert settled == {next_one.token: Release(next_one, marks=Marks())}
    assert list(bench.agent.enforcer.terminating) == ["x:other:1"]
    assert buried(bench, died(later, owner="o9"), later)[later.token] == Release(
        later, marks=Marks(crashes=1, suspect=True)
    )


def test_of_many_all_become_suspects_uncounted(bench: Bench) -> None:
    orphans = [delivery(), delivery(marks=Marks(suspect=True))]
    settled = buried(bench, died(many=True), *orphans)
    assert settled == {each.token: Release(each, marks=Marks(suspect=True)) for each in orphans}


def test_of_many_the_first_loss_of_one_alone_is_not_counted(bench: Bench) -> None:
    one = delivery()
    assert buried(bench, died(many=True), one) == {one.token: Release(one, marks=Marks(suspect=True))}


def test_of_many_a_suspect_that_was_alone_is_the_culprit(bench: Bench) -> None:
    """Else a task that kills its process would do so for ever where children run many tasks at once."""
    one = delivery(marks=Marks(suspect=True))
    assert buried(bench, died(many=True), one) == {one.token: Release(one, marks=Marks(crashes=1, suspect=True))}
    last = delivery(marks=Marks(suspect=True, crashes=2))
    assert isinstance(buried(bench, died(many=True), last)[last.token], DeadLetter)
    over = delivery(marks=Marks(suspect=True))
    settlement = buried(bench, died(many=True, limit=5.0), over)[over.token]
    assert isinstance(settlement, DeadLetter)
    assert settlement.reason is DeadReason.TIME_LIMIT


def test_burying_waits_for_the_broker(bench: Bench) -> None:
    one = delivery()
    bench.bus.faults.away("orphans", 2)
    assert list(buried(bench, died(), one)) == [one.token]


def test_a_claim_that_is_granted_after_the_death_does_not_wait_for_its_lease(bench: Bench) -> None:
    """The server still does what the dead child had asked for."""
    culprit, late = delivery(), delivery(marks=Marks(crashes=1))
    held = [[culprit], [culprit], [late, culprit], [late]]

    async def orphans(owner: str) -> Sequence[Delivery]:
        return held.pop(0)

    bench.bus.orphans = orphans  # type: ignore[method-assign]
    settled = buried(bench, died(culprit, many=False))
    assert settled == {
        culprit.token: Release(culprit, marks=Marks(crashes=1, suspect=True)),
        late.token: Release(late, marks=Marks(crashes=1)),
    }
    assert held == []
    assert len(bench.agent.completer._queue) == 2, "each once"


def test_an_outage_between_the_looks(bench: Bench) -> None:
    late = delivery()
    bench.bus.faults.plan("orphans", None, OperationalError("away"), OperationalError("away"))
    assert list(buried(bench, died(), late)) == [late.token]
    assert [call for call, _ in bench.bus.log].count("orphans") == 1 + len(LOOKS) + 2


def test_notices_until_there_are_no_more(bench: Bench) -> None:
    async def main() -> list[Any]:
        reader = asyncio.StreamReader()
        for owner, tasks in (("a", 3), ("b", 4)):
            reader.feed_data(notice(Died(owner=owner, how="exit code 1", tasks=tasks)))
        reader.feed_data(NO_MORE + notice(Died(owner="c", how="never read")))
        await asyncio.wait_for(bench.agent.burial.notices(reader), 30)
        return bench.bus.log

    assert {owner for _, owner in asyncio.run(main())} == {"a", "b"}
    assert bench.agent.burial.tasks == 7


def test_a_notice_holds_any_text() -> None:
    raw = notice(Died(owner="o", how="x\ny", id="ü\n\x00�"))
    assert raw.count(b"\n") == 1
    assert raw.endswith(b"\n")
    assert raw != NO_MORE


def test_what_the_agent_concludes_is_an_event_too(bench: Bench) -> None:
    bench.agent.runner.report.events = True
    culprit = delivery(marks=Marks(crashes=2))
    bench.bus.orphaned = [culprit]

    async def main() -> None:
        await bench.agent.burial.bury(died(culprit))
        await until(lambda: not bench.agent._sending)

    asyncio.run(main())
    key, events = next(what for name, what in bench.bus.log if name == "emit")
    assert (key, [each["type"] for each in events]) == ("task.multi", ["task-failed"])
