"""The agent's part of the rules: what it writes, tells its children, and takes out of queues."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from typing import Any

import pytest

from celeriac import Celery
from celeriac.codec.signing import control_signer_of
from celeriac.exceptions import OperationalError
from celeriac.model.rules import Order, Rule, decode_order
from celeriac.model.settle import Accept, Completion, Release
from celeriac.worker import enforcer as module
from celeriac.worker.enforcer import Enforcer
from celeriac.worker.options import NodeOptions
from celeriac.worker.rules import from_wire
from celeriac.worker.runner import Runner
from tests.unit.worker.fakes import delivery, until
from tests.unit.worker.test_remote import FakeLink
from tests.unit.worker.test_rules import RuledBroker, rule


class Bench:
    def __init__(self, runner: Runner, *queues: str) -> None:
        self.broker, self.link = RuledBroker(), FakeLink()
        self.concluded: list[Completion] = []
        self.enforcer = Enforcer(
            self.broker,  # type: ignore[arg-type]
            NodeOptions(hostname="w@h", queues=queues),
            runner,
            self.link,
            queues=lambda: queues,
            conclude=self.concluded.extend,
            tell=self.link.keep,
        )

    def look(self) -> None:
        asyncio.run(self.enforcer.look())

    def log(self, what: str) -> list[Any]:
        return [how for name, how in self.broker.log if name == what]

    @property
    def told(self) -> list[list[Rule]]:
        return [from_wire(arguments["rules"]) for _, arguments in self.link.asked]


@pytest.fixture
def bench(app: Celery, runner: Runner, monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setattr(module, "SPREAD", 0.0)
    app.task(name="t")(lambda: None)
    return Bench(runner, "q1", "q2")


def test_nothing_new_is_told_to_nobody(bench: Bench) -> None:
    bench.look()
    bench.look()
    assert (bench.link.asked, bench.log("withdraw"), bench.log("rules")) == ([], [], [0, 0])


def test_what_is_new_is_told_once(bench: Bench) -> None:
    bench.broker.rule(rule("pause:q1", 5))
    bench.look()
    bench.look()
    assert [[each.key for each in rules] for rules in bench.told] == [["pause:q1"]]
    assert bench.enforcer.book.paused == {"q1"}
    assert bench.log("withdraw") == []


def test_revoked_ones_are_searched_once_in_the_fleet(bench: Bench) -> None:
    found, ended = delivery(id="a"), delivery(id="no longer revoked", due=9e9)
    repeated = delivery(id="a", redelivered=True)
    bench.broker.orphaned = [found, ended, repeated]
    bench.broker.rule(rule("revoke:a", 5, by="me"))
    bench.look()
    bench.look()
    assert bench.log("withdraw") == [(["a"], ["q1", "q2"])]
    assert bench.log("set_rules") == [["searched:q1", "searched:q2"]]
    assert [each.settlement for each in bench.concluded] == [
        Accept(found),
        Release(ended, due=9e9),
        Release(repeated),
    ], "what may have run before is left to whoever claims it"
    assert bench.concluded[0].result is not None
    assert b"revoked by me" in bench.concluded[0].result.body
    bench.broker.rule(rule("revoke:b", bench.broker.epoch + 1))
    bench.look()
    assert bench.log("withdraw")[1:] == [(["b"], ["q1", "q2"])], "only what is new"


def test_rules_end_by_the_brokers_clock(bench: Bench, runner: Runner) -> None:
    runner.now = lambda: 1_000.0
    bench.broker.orphaned = [found := delivery(id="a")]
    bench.broker.rule(rule("revoke:a", 5, expires=2_800.0))
    bench.look()
    assert list(bench.enforcer.book.revoked) == ["a"]
    assert [each.settlement for each in bench.concluded] == [Accept(found)]


def test_another_node_was_faster(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """It searches meanwhile, and says so."""
    bench.broker.rule(rule("revoke:a", 5))
    reads = bench.broker.rules

    async def rules(after: int = 0) -> Any:
        read = await reads(after)
        if after == 0:
            bench.broker.rule(Rule("searched:q1", b"5", None, 6), Rule("searched:q2", b"rubbish", None, 7))
        return read

    monkeypatch.setattr(bench.broker, "rules", rules)
    bench.look()
    assert bench.log("withdraw") == [(["a"], ["q2"])]


def test_an_outage_is_the_callers(bench: Bench) -> None:
    bench.broker.faults.away("rules")
    with pytest.raises(OperationalError):
        bench.look()


def test_running_on_after_an_outage(bench: Bench) -> None:
    bench.broker.faults.away("rules", 2)

    async def main() -> None:
        running = asyncio.create_task(bench.enforcer.run())
        await until(lambda: len(bench.log("rules")) >= 3)
        running.cancel()

    asyncio.run(main())


def test_the_end_of_running_tasks_is_ordered_again(bench: Bench) -> None:
    """A child may have been replaced, or just have claimed it."""
    bench.broker.rule(rule("revoke:a", 5, terminate=True), Rule("searched:q1", b"9", None, 6))
    bench.look()
    asked = len(bench.link.asked)
    bench.look()
    assert len(bench.link.asked) > asked


def revoke(bench: Bench, *keys: str, **order: Any) -> None:
    asyncio.run(bench.enforcer.revoke(keys, Order(**order)))


def test_what_others_revoke_is_written(bench: Bench) -> None:
    revoke(bench, "revoke:a", "revoke:b", by="celery")
    assert bench.log("set_rules") == [["revoke:a", "revoke:b"]]
    assert {each.key for each in bench.told[0]} == {"revoke:a", "revoke:b"}
    assert bench.link.kept == {}, "children that start later read it themselves"


def test_what_is_written_is_not_written_again(bench: Bench) -> None:
    bench.broker.rule(rule("revoke:a", 5, by="alice", reason="why"))
    revoke(bench, "revoke:a")
    assert bench.log("set_rules") == []
    revoke(bench, "revoke:a", terminate=True)
    assert bench.log("set_rules") == [["revoke:a"]], "it is to be ended now"
    assert decode_order(bench.broker.known[-1].value or b"").terminate
    revoke(bench, "revoke:a", terminate=True)
    assert len(bench.log("set_rules")) == 1


def test_a_rule_whose_time_is_over_is_written_anew(bench: Bench, runner: Runner) -> None:
    bench.broker.rule(rule("revoke:x", 7, expires=1000.0))
    runner.now = lambda: 990.0
    bench.look()
    runner.now = lambda: 1010.0
    asyncio.run(bench.enforcer.revoke(["revoke:x"], Order()))
    assert bench.log("set_rules")[-1] == ["revoke:x"]


def test_a_second_order_may_be_less_gentle(bench: Bench) -> None:
    sent: list[int] = []
    bench.enforcer._kill = lambda pid, number: sent.append(number)
    task = {"token": "t", "pid": 1, "by": "", "why": ""}
    for name in ("SIGINT", "SIGINT", "SIGKILL", "SIGKILL"):
        bench.enforcer._end({**task, "signal": name})
    assert sent == [signal.SIGINT, signal.SIGKILL]


def test_what_cannot_be_written_is_told(bench: Bench) -> None:
    bench.broker.faults.away("set_rules")
    with pytest.raises(OperationalError):
        revoke(bench, "revoke:a")


def test_what_it_writes_is_signed(app: Celery, make_runner: Callable[..., Runner]) -> None:
    app.conf.control_key = "a key of sixteen bytes"
    signer, bench = control_signer_of(app.conf), Bench(make_runner(), "q")
    assert signer is not None
    bench.broker.rule(rule("revoke:forged", 5))
    bench.look()
    assert bench.log("withdraw") == []
    revoke(bench, "revoke:a", by="me")
    bench.look()
    assert bench.log("withdraw") == [(["a"], ["q"])]
    written = {each.key: each for each in bench.broker.known[1:]}
    assert [*written] == ["revoke:a", "searched:q"]
    for key, each in written.items():
        assert signer.unseal("rule", key, each.value or b"")
    bench.look()
    assert len(bench.log("withdraw")) == 1, "its own mark counts"
