"""What goes wrong at one entry is its own affair, and nothing of what is due is forgotten: the user's functions and
schedules, errors that nobody foresaw, servers that are away for long."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from celeriac.beat import BeatLazyFunc
from celeriac.beat.state import running_key
from celeriac.schedules import BaseSchedule, crontab, schedule
from tests.unit.beat.conftest import Fleet, Killed, away


def _fails(*args: Any) -> Any:
    raise RuntimeError("the user's own")


class Failing(schedule):
    next_after = _fails  # type: ignore[assignment]


class Unanswering(BaseSchedule):
    is_due = _fails  # type: ignore[assignment]


@pytest.mark.parametrize("stepwise", [False, True])
@pytest.mark.parametrize(
    "bad",
    [{"args": [BeatLazyFunc(_fails)]}, {"schedule": Failing(1)}, {"schedule": Unanswering()}],
    ids=["function", "schedule", "celery's"],
)
def test_what_fails_of_the_users_own_holds_up_nobody(
    fleet: Fleet, stepwise: bool, bad: dict[str, Any], caplog: Any
) -> None:
    fleet.stepwise = stepwise
    fleet.add("bad", **{"schedule": 1, **bad})
    for number in range(3):
        fleet.add(f"good{number}", 1)
    fleet.run(10.5, fleet.scheduler())
    names = Counter(message.headers["periodic_task_name"] for message in fleet.sent())
    assert names == {"good0": 10, "good1": 10, "good2": 10}
    assert caplog.text.count("Cannot send entry 'bad' (task tasks.report): RuntimeError: the user's own") == 1


def test_what_nobody_foresaw_makes_nobody_forget_what_is_due(fleet: Fleet) -> None:
    for number in range(250):
        fleet.add(f"x{number}", crontab())
    scheduler = fleet.scheduler()
    fleet.run(59, scheduler)
    publisher: Any = scheduler._publisher
    publisher.fails["publish_each_if"] = Killed()
    fleet.clock.time += 2
    with pytest.raises(Killed):
        scheduler.tick()
    publisher.fails.clear()
    fleet.run(1, scheduler)
    assert len(fleet.sent()) == 250


@pytest.mark.parametrize("stepwise", [False, True])
@pytest.mark.parametrize("overlap", ["allow", "skip"])
@pytest.mark.parametrize("uncertain", [False, True])
def test_a_run_expires_since_it_was_sent_not_since_the_broker_is_away(
    fleet: Fleet, stepwise: bool, overlap: str, uncertain: bool
) -> None:
    fleet.stepwise = stepwise
    fleet.add("x", crontab(minute=1), expires=30, overlap=overlap)
    fleet.app.sender.now = lambda: fleet.clock.time
    scheduler = fleet.scheduler()
    fleet.run(59, scheduler)
    publisher: Any = scheduler._publisher
    publisher.fails["publish" if stepwise else "publish_if"] = away(uncertain=uncertain)
    fleet.run(100, scheduler)
    publisher.fails.clear()
    fleet.run(10, scheduler)
    (message,) = fleet.sent()
    sent = fleet.clock.time - 10
    assert message.expires is not None
    assert sent + 30 <= message.expires <= sent + 40
    assert (fleet.state("x").id, fleet.state("x").count) == (message.id, 1)
    if overlap == "skip":
        assert fleet.lock(running_key("x")) == message.id.encode()
        fleet.clock.time = message.expires - 0.1
        assert fleet.lock(running_key("x")) == message.id.encode(), "as long as the run may start"
