"""What a death says about its task, where the broker gives back by itself: left by the agent, obeyed by a child."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from msgspec.structs import replace

from celeriac import Celery
from celeriac.codec.signing import Signer
from celeriac.exceptions import OperationalError
from celeriac.model import outcome as o
from celeriac.model.ledger import Change
from celeriac.model.message import Delivery, Marks
from celeriac.model.rules import Rule
from celeriac.model.settle import DeadLetter
from celeriac.ports import Broker
from celeriac.worker.runner import Runner
from celeriac.worker.verdicts import Verdicts
from tests.servers import eventually
from tests.unit.beside.fakes import FakeLedger
from tests.unit.worker.bench import FetcherBench
from tests.unit.worker.fakes import FakeBroker, Steady, delivery
from tests.unit.worker.test_burial import died
from tests.unit.worker.test_remote import Bench


class Requeueing(FakeBroker):
    """A broker that gives back by itself, with a ledger beside it."""

    def __init__(self, ledger: FakeLedger) -> None:
        super().__init__()
        self.traits = replace(self.traits, requeues=True)
        self.ledger = ledger

    async def read_ledger(self, keys: Sequence[str]) -> Sequence[bytes | None]:
        self.faults.meet("read_ledger")
        return await self.ledger.read_ledger(keys)

    async def change_ledger(self, changes: Sequence[Change]) -> Sequence[bool]:
        return await self.ledger.change_ledger(changes)


@pytest.fixture
def ledger() -> FakeLedger:
    return FakeLedger()


def verdicts(ledger: FakeLedger, signer: Signer | None = None) -> Verdicts:
    broker: Broker = Requeueing(ledger)  # type: ignore[assignment]
    return Verdicts(broker, signer, Steady())


def back(**fields: Any) -> Delivery:
    marks = Marks(**{"suspect": True, **fields.pop("marks", {})})
    return delivery(redelivered=True, marks=marks, **fields)


def test_only_where_the_broker_needs_it(ledger: FakeLedger) -> None:
    assert not Verdicts(FakeBroker(), None, Steady()).active  # type: ignore[arg-type]
    assert verdicts(ledger).active


@pytest.mark.parametrize(
    "outcome",
    [
        o.Crashed("signal 9 (SIGKILL)"),
        o.TimedOut(2.5),
        o.Revoked("terminated", 15, "carol", "too long"),
        o.Unstarted(orphaned=True),
    ],
)
@pytest.mark.parametrize("signer", [None, Signer(b"key" * 11)], ids=["plain", "signed"])
def test_a_verdict_concludes_once(ledger: FakeLedger, outcome: o.Outcome, signer: Signer | None) -> None:
    each = verdicts(ledger, signer)
    concluded: list[Any] = []
    asyncio.run(each.leave("id", outcome))
    assert list(ledger.lives.values()) == [6 * 3600.0]
    it, other, new = back(id="id"), back(id="other"), delivery(id="id")
    rest = asyncio.run(each.known([new, it, other], concluded.extend))  # type: ignore[arg-type]
    assert list(rest) == [new, other], "only what came back is judged"
    ((judged, found),) = concluded
    assert found == outcome
    assert (judged.token, judged.marks.suspect) == (it.token, False), "its case is known"

    async def settle() -> None:
        each.settled([other])
        kept = not isinstance(outcome, o.Unstarted)
        assert bool(ledger.values) == kept, "it stays until what it is about is settled, where it says something"
        each.settled([it])
        await eventually(lambda: not ledger.values)

    asyncio.run(settle())
    assert list(asyncio.run(each.known([it], concluded.extend))) == [it]  # type: ignore[arg-type]


def test_who_concludes_may_die_as_well(ledger: FakeLedger) -> None:
    """Its verdict is there for the next one; and what is dropped late is not the verdict about another crash."""
    first, second, concluded = verdicts(ledger), verdicts(ledger), list[Any]()
    asyncio.run(first.leave("id", o.Crashed("signal 9 (SIGKILL)"), "token of the first"))
    it, again = back(id="id"), back(id="id")

    async def main() -> None:
        for each, delivered in ((first, it), (second, again)):
            assert list(await each.known([delivered], concluded.extend)) == []  # type: ignore[arg-type]
        await second.leave("id", o.Crashed("signal 9 (SIGKILL)"), "token of the second")
        second.settled([again])
        await asyncio.gather(*second._waiting)
        assert ledger.values, "that is about another crash"

    asyncio.run(main())
    assert len(concluded) == 2


def test_a_verdict_stays_when_its_task_was_not_settled_under_its_lease(ledger: FakeLedger) -> None:
    each, it = verdicts(ledger), back(id="id")
    asyncio.run(each.leave("id", o.TimedOut(2.5)))

    async def main() -> None:
        await each.known([it], lambda ended: None)  # type: ignore[arg-type]
        each.forget([it])
        each.settled([it])
        assert not each._waiting

    asyncio.run(main())
    assert ledger.values


def test_a_verdict_is_obeyed_once_though_it_is_not_dropped_yet(ledger: FakeLedger) -> None:
    each, concluded = verdicts(ledger), list[Any]()
    asyncio.run(each.leave("id", o.Crashed("signal 9 (SIGKILL)"), "token"))
    asyncio.run(each.known([back(id="id")], concluded.extend))  # type: ignore[arg-type]
    ((judged, _),) = concluded
    copy = back(id="id", marks={"judged": judged.marks.judged, "crashes": 1})
    assert list(asyncio.run(each.known([copy], concluded.extend))) == [copy]  # type: ignore[arg-type]


def test_a_verdict_is_dropped_when_the_ledger_is_back(ledger: FakeLedger) -> None:
    each = verdicts(ledger)
    asyncio.run(each.leave("id", o.TimedOut(2.5)))
    it = back(id="id")

    async def main() -> None:
        await each.known([it], lambda ended: None)  # type: ignore[arg-type]
        ledger.failing = ["change"]
        each.settled([it])
        await asyncio.gather(*each._waiting)

    asyncio.run(main())
    assert ledger.values == {}


def test_a_forged_verdict_is_not_believed(ledger: FakeLedger) -> None:
    asyncio.run(verdicts(ledger).leave("id", o.Revoked("revoked")))
    concluded: list[Any] = []
    it = back(id="id")
    rest = asyncio.run(verdicts(ledger, Signer(b"key" * 11)).known([it], concluded.extend))  # type: ignore[arg-type]
    assert (list(rest), concluded) == ([it], [])


def test_a_verdict_that_comes_a_moment_later(ledger: FakeLedger) -> None:
    bench = FetcherBench(broker=Requeueing(ledger))
    it, other = back(id="late", marks={"suspect": False}), delivery()

    async def main() -> None:
        await bench.fetcher.admit([it, other])
        assert bench.sync.inbox == [other], "nobody else waits"
        assert list(bench.fetcher.held) == [it.token, other.token], "its lease is renewed meanwhile"
        await verdicts(ledger).leave("late", o.Crashed("signal 9 (SIGKILL)"))
        await eventually(lambda: bench.concluded)

    asyncio.run(main())
    assert bench.outcome(it) == o.Crashed("signal 9 (SIGKILL)")
    assert bench.sync.inbox == [other]


def test_one_without_a_verdict_runs(ledger: FakeLedger) -> None:
    bench, it = FetcherBench(broker=Requeueing(ledger)), back(id="a")

    async def main() -> None:
        await bench.fetcher.admit([it])
        assert bench.sync.inbox == []
        await eventually(lambda: bench.sync.inbox)

    asyncio.run(main())
    assert bench.sync.inbox == [it]
    assert bench.concluded == []


def test_one_that_was_given_back_here_is_judged_if_another_died_of_it(ledger: FakeLedger) -> None:
    bench = FetcherBench(broker=Requeueing(ledger))
    it, other = delivery(id="a", returned=True), delivery(id="b", returned=True)
    asyncio.run(verdicts(ledger).leave("a", o.Crashed("exit code 3")))
    asyncio.run(bench.fetcher.admit([it, other]))
    assert bench.outcome(it) == o.Crashed("exit code 3")
    assert bench.sync.inbox == [other], "at once: whoever had it since has told before it came back"


def test_a_suspect_with_a_verdict_need_not_be_alone(ledger: FakeLedger) -> None:
    bench = FetcherBench(broker=Requeueing(ledger))
    it, company = back(id="a", marks={"crashes": 2}), delivery()
    asyncio.run(verdicts(ledger).leave("a", o.Crashed("exit code 3")))
    asyncio.run(bench.fetcher.admit([it, company]))
    assert bench.sync.inbox == [company]
    settlement = bench.concluded[0].settlement
    assert isinstance(settlement, DeadLetter)
    assert "died 3 times" in settlement.detail


def test_while_the_ledger_is_away_nobody_is_judged(ledger: FakeLedger, caplog: pytest.LogCaptureFixture) -> None:
    broker = Requeueing(ledger)
    broker.faults.away("read_ledger", 10)
    bench, it = FetcherBench(broker=broker), back(id="a")

    async def main() -> None:
        await bench.fetcher.admit([it])
        await eventually(lambda: bench.sync.inbox)

    asyncio.run(main())
    assert bench.sync.inbox == [it]
    assert "Cannot look for the verdicts" in caplog.text


def test_what_goes_wrong_meanwhile_ends_the_fetcher(ledger: FakeLedger, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = FetcherBench(broker=Requeueing(ledger))

    async def wrong(deliveries: Sequence[Delivery]) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(bench.fetcher, "_sort", wrong)

    async def main() -> None:
        bench.fetcher._verdicts.later([back()], bench.fetcher._concluder, wrong, bench.fetcher._fail)
        await eventually(lambda: bench.fetcher._broken)
        await bench.fetcher.run()

    with pytest.raises(RuntimeError, match="a bug"):
        asyncio.run(main())


# -- the agent


@pytest.mark.parametrize(
    ("fields", "order"),
    [({}, ["change", "cut"]), ({"early": True}, ["cut", "write"]), ({"many": True}, ["cut"])],
    ids=["a culprit", "acknowledged early", "of many"],
)
def test_what_it_held_goes_back_when_the_verdict_is_there(
    agent: Bench, ledger: FakeLedger, monkeypatch: pytest.MonkeyPatch, fields: dict[str, bool], order: list[str]
) -> None:
    burial, seen = agent.agent.burial, list[str]()
    change = ledger.change_ledger

    async def noted(changes: Sequence[Change]) -> Sequence[bool]:
        seen.append("change")
        return await change(changes)

    async def write(task_id: str, outcome: o.Outcome, reply_to: str) -> None:
        seen.append("write")

    monkeypatch.setattr(ledger, "change_ledger", noted)
    monkeypatch.setattr(burial._obituary, "write", write)
    burial._cut = lambda owner: seen.append("cut")
    asyncio.run(burial.bury(died(None if fields.get("many") else delivery(id="id-x"), **fields)))
    assert seen == order


@pytest.fixture
def agent(app: Celery, runner: Runner, ledger: FakeLedger) -> Bench:
    app.task(name="t")(lambda: None)
    bench = Bench(app, runner)
    bench.agent.burial._verdicts = verdicts(ledger)
    bench.agent.burial._clock = Steady()
    return bench


def found(ledger: FakeLedger, task_id: str = "id-x") -> o.Outcome | None:
    concluded: list[Any] = []
    it, each = back(id=task_id), verdicts(ledger)

    async def main() -> None:
        await each.known([it], concluded.extend)  # type: ignore[arg-type]
        each.settled([it])
        await asyncio.gather(*each._waiting)

    asyncio.run(main())
    return concluded[0][1] if concluded else None


def test_the_agent_leaves_a_verdict(agent: Bench, ledger: FakeLedger) -> None:
    culprit = delivery(id="id-x")
    asyncio.run(agent.agent.burial.bury(died(culprit)))
    assert found(ledger) == o.Crashed("signal 9 (SIGKILL)")
    asyncio.run(agent.agent.burial.bury(died(culprit, limit=5.0)))
    assert found(ledger) == o.TimedOut(5.0)
    agent.agent.enforcer.terminating[culprit.token] = o.Revoked("terminated", 15, "carol")
    asyncio.run(agent.agent.burial.bury(died(culprit)))
    assert found(ledger) == o.Revoked("terminated", 15, "carol")
    agent.agent.enforcer.book.hear([Rule("revoke:id-x", b"{}")])
    asyncio.run(agent.agent.burial.bury(died(culprit)))
    assert found(ledger) == o.Revoked("revoked")


def test_between_tasks_and_of_many_there_is_none(agent: Bench, ledger: FakeLedger) -> None:
    asyncio.run(agent.agent.burial.bury(died()))
    asyncio.run(agent.agent.burial.bury(died(many=True)))
    assert ledger.values == {}


def test_the_agent_tries_until_the_verdict_is_written(
    agent: Bench, ledger: FakeLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    culprit = delivery(id="id-x")
    agent.agent.enforcer.terminating[culprit.token] = o.Revoked("terminated", 15)
    ledger.failing = ["change"]
    asyncio.run(agent.agent.burial.bury(died(culprit)))
    assert found(ledger) == o.Revoked("terminated", 15), "the same one"


def test_errors_of_the_ledger_are_those_of_a_broker() -> None:
    ledger = FakeLedger()
    ledger.failing = ["change"]
    with pytest.raises(OperationalError):
        asyncio.run(verdicts(ledger).leave("a", o.TimedOut(1.0)))
