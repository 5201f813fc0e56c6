"""Many slots at one moment: they share calls, and nothing else."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from celeriac.beat.scheduler import SharedScheduler
from celeriac.beat.state import running_key, taking_key
from celeriac.model.ledger import LOCK
from celeriac.schedules import crontab
from tests.unit.beat.conftest import START, Fleet, Killed, away


def _due_together(fleet: Fleet, count: int, **more: Any) -> None:
    """Entries whose next slot is the same one."""
    for number in range(count):
        fleet.add(f"e{number}", crontab(), **more)


@pytest.mark.parametrize("stepwise", [False, True])
@pytest.mark.parametrize("overlap", ["allow", "skip"])
def test_many_that_are_due_together_share_calls(fleet: Fleet, stepwise: bool, overlap: str) -> None:
    fleet.stepwise = stepwise
    _due_together(fleet, 250, overlap=overlap)
    one, other = fleet.scheduler(), fleet.scheduler()
    fleet.run(30, one, other)
    publisher: Any = one._publisher
    publisher.calls.clear()
    ledger: Any = one._ledger
    ledger.calls.clear()
    fleet.run(31, one, other)
    messages = fleet.sent()
    names = Counter(message.headers["periodic_task_name"] for message in messages)
    assert names == {f"e{number}": 1 for number in range(250)}
    assert one.sent == 250
    assert publisher.calls == (["publish"] * 3 if stepwise else ["publish_each_if"] * 3)
    assert ledger.calls.count("change") <= 4 + 6 * stepwise, ledger.calls  # some of it: that it is there
    for message in messages if overlap == "skip" else ():
        fleet.change(message.headers[LOCK]["key"], message.id.encode() + b" started")
    fleet.run(60, one, other)
    assert one.sent == (250 if overlap == "skip" else 500), "runs that go on leave out slots, in shared calls too"
    assert ledger.calls.count("change") <= 16 + 12 * stepwise, ledger.calls


@pytest.mark.parametrize("stepwise", [False, True])
@pytest.mark.parametrize("when", ["fails", "fails_after"])
def test_an_outage_among_many_loses_and_doubles_nothing(fleet: Fleet, stepwise: bool, when: str) -> None:
    fleet.stepwise = stepwise
    _due_together(fleet, 250)
    one, other = fleet.scheduler(), fleet.scheduler()
    fleet.run(59, one, other)
    publisher: Any = one._publisher
    method = "publish" if stepwise else "publish_each_if"
    real, calls = getattr(publisher, method), []

    def second(*args: Any, **kwargs: Any) -> Any:
        calls.append(args)
        if len(calls) == 2:
            if when == "fails_after":
                real(*args, **kwargs)
            raise away(uncertain=when == "fails_after")
        return real(*args, **kwargs)

    setattr(publisher, method, second)
    fleet.clock.time = START.timestamp() + 60
    one.tick()
    fleet.run(8, one, other)
    messages = fleet.sent()
    runs = Counter(message.headers["periodic_task_name"] for message in messages)
    assert len(runs) == 250
    assert all(fleet.state(f"e{number}").count == 1 for number in range(250))
    if stepwise and when == "fails_after":  # of two messages of a slot one runs: that of the lock
        again = {name for name, count in runs.items() if count > 1}
        assert len(again) == 100
        for message in messages:
            name = message.headers["periodic_task_name"]
            holder = fleet.lock(message.headers[LOCK]["key"])
            assert (holder == message.id.encode()) == (fleet.state(name).id == message.id)
    else:
        assert set(runs.values()) == {1}


@pytest.mark.parametrize("stepwise", [False, True])
def test_a_queue_that_is_refused_holds_up_nobody(fleet: Fleet, stepwise: bool, caplog: Any) -> None:
    fleet.stepwise = stepwise
    _due_together(fleet, 150)
    fleet.add("bad", crontab(), options={"queue": "bad"})
    scheduler = fleet.scheduler()
    fleet.run(59, scheduler)
    publisher: Any = scheduler._publisher
    real = {name: getattr(publisher, name) for name in ("publish", "publish_if", "publish_each_if")}

    def refuse(name: str, queues: Callable[[Any], set[str]]) -> None:
        def call(given: Any, *args: Any, **kwargs: Any) -> Any:
            if "bad" in queues(given):
                raise away()
            return real[name](given, *args, **kwargs)

        setattr(publisher, name, call)

    refuse("publish", lambda messages: {each.queue for each in messages})
    refuse("publish_if", lambda message: {message.queue})
    refuse("publish_each_if", lambda sendings: {each.queue for each, _ in sendings})
    fleet.run(40, scheduler)
    assert len(fleet.sent()) == 150
    errors = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert 1 <= len(errors) <= 2, errors
    assert "Cannot send entry 'bad'" in errors[-1]
    publisher.__dict__.update(real)
    fleet.run(5, scheduler)
    assert fleet.state("bad").count == 1


def test_one_among_many_that_cannot_be_encoded(fleet: Fleet, caplog: Any) -> None:
    _due_together(fleet, 5)
    fleet.add("odd", crontab(), args=[object()])
    scheduler = fleet.scheduler()
    fleet.run(61, scheduler)
    assert len(fleet.sent()) == 5
    assert [r.getMessage()[:23] for r in caplog.records if r.levelname == "ERROR"] == ["beat: Cannot send entry "[:23]]


# -- on two servers: overlap="skip" -----------------------------------------------------------------------------------


def _dead_taker(fleet: Fleet) -> tuple[SharedScheduler, str]:
    """A scheduler was killed when it had taken the lock of a slot and seen that another had sent it; returns that
    other one, and the id in the lock."""
    fleet.stepwise = True
    fleet.add("x", 10, overlap="skip")
    dying, other = fleet.scheduler(), fleet.scheduler()
    fleet.run(5, dying, other)
    ledger: Any = dying._ledger
    change = ledger.change

    def late(changes: Any, **more: Any) -> Any:
        """The other one sends the slot in this moment, its run is short, and this one dies behind its step."""
        fleet.run(0, other)
        (first,) = fleet.sent()
        assert fleet.lock(running_key("x")) == first.id.encode()
        fleet.change(running_key("x"), None)
        change(changes, **more)
        raise Killed

    ledger.change = late
    fleet.clock.time = START.timestamp() + 10
    with pytest.raises(Killed):
        dying.tick()
    holder = fleet.lock(running_key("x"))
    assert holder is not None
    assert fleet.state("x").id != holder.decode()
    return other, holder.decode()


def test_the_lock_of_a_scheduler_that_died_before_it_gave_it_back_is_taken_over(fleet: Fleet) -> None:
    other, holder = _dead_taker(fleet)
    fleet.run(11, other)
    (second,) = fleet.sent()
    assert fleet.lock(running_key("x")) == second.id.encode()
    assert fleet.state("x").count == 2
    assert fleet.lock(taking_key(holder)) is None
    assert fleet.lock(taking_key(second.id)) is None
    fleet.run(10, other)
    assert fleet.sent() == [], "a run goes on"


def test_a_lock_that_somebody_else_gave_is_not_taken_over(fleet: Fleet) -> None:
    """A dead letter that is sent again has one, too."""
    other, holder = _dead_taker(fleet)
    fleet.change(taking_key(holder), None)
    fleet.run(21, other)
    assert fleet.sent() == []
    assert fleet.state("x").slot == START + timedelta(seconds=30)


@pytest.mark.parametrize("method", ["change", "read"])
def test_on_two_servers_a_claim_whose_end_nobody_knows_is_looked_at_again(fleet: Fleet, method: str) -> None:
    fleet.stepwise = True
    fleet.add("x", 10, overlap="skip")
    scheduler = fleet.scheduler()
    fleet.run(9, scheduler)
    fleet.change(running_key("x"), b"another started")
    ledger: Any = scheduler._ledger
    ledger.fails_after = {method: away(uncertain=True)}
    fleet.run(5, scheduler)
    assert fleet.sent() == []
    assert fleet.state("x").slot == START + timedelta(seconds=10)
    assert not fleet.state("x").sending
    fleet.change(running_key("x"), None)
    fleet.run(10, scheduler)
    assert len(fleet.sent()) == 1
