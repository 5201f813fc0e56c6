"""Schedulers in a fleet: each slot once, whoever dies, whatever is away."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from celeriac.beat import BeatLazyFunc, Entry
from celeriac.beat.seen import EVERY
from celeriac.beat.state import PAUSED, State, running_key, slot_key, state_key
from celeriac.beat.written import Written
from celeriac.exceptions import ImproperlyConfigured
from celeriac.model.ledger import LOCK
from celeriac.model.limits import SEAT
from celeriac.schedules import clocked, crontab
from tests.unit.beat.conftest import START, Fleet, Killed, away


class Fixed:
    """A book of one entry."""

    every = 5.0

    def __init__(self, fleet: Fleet, every: float) -> None:
        self.entry = Entry.from_settings("x", {"task": "tasks.report", "schedule": every}, fleet.app)

    def entries(self) -> tuple[int, dict[str, Entry]]:
        return 1, {"x": self.entry}

    def changed(self, epoch: int) -> bool:
        return False


@pytest.mark.parametrize("stepwise", [False, True])
@pytest.mark.parametrize("number", [1, 3])
def test_any_number_sends_each_slot_once(fleet: Fleet, number: int, stepwise: bool) -> None:
    fleet.stepwise = stepwise
    fleet.add("fast", 1)
    fleet.add("slow", 7.5)
    schedulers = [fleet.scheduler() for _ in range(number)]
    fleet.run(60.5, *schedulers)
    names = Counter(message.headers["periodic_task_name"] for message in fleet.sent())
    assert names == {"fast": 60, "slow": 8}
    assert sum(each.sent for each in schedulers) == 68
    assert fleet.state("fast").slot == START + timedelta(seconds=60)
    assert fleet.state("fast").count == 60
    assert not fleet.state("fast").sending


def test_all_count_from_the_same_moment(fleet: Fleet) -> None:
    fleet.add("x", 10)
    first = fleet.scheduler()
    fleet.run(5, first)
    second = fleet.scheduler()
    fleet.run(15.5, second)  # the first is gone
    assert len(fleet.sent()) == 2
    assert fleet.state("x").slot == START + timedelta(seconds=20)


def test_what_a_message_carries(fleet: Fleet) -> None:
    fleet.add(
        "x",
        crontab(minute="*/5"),
        args=[1, BeatLazyFunc(lambda: 2)],
        kwargs={"z": BeatLazyFunc(dict)},
        options={"priority": 3, "headers": {"tenant": 7}},
    )
    fleet.run(300, fleet.scheduler())
    (message,) = fleet.sent()
    assert (message.task, message.priority) == ("tasks.report", 3)
    assert message.body == b'[[1,2],{"z":{}},{"callbacks":null,"errbacks":null,"chain":null,"chord":null}]'
    assert message.headers["periodic_task_name"] == "x"
    assert message.headers["tenant"] == 7
    assert LOCK not in message.headers
    assert message.expires == START.timestamp() + 600
    state = fleet.state("x")
    assert (state.id, state.at, state.next) == (message.id, fleet.clock.time, START + timedelta(seconds=600))


@pytest.mark.parametrize(
    ("every", "more", "seconds"),
    [
        (1, {}, 60),
        (59, {}, 60),
        (600, {}, 600),
        (600, {"expires": 5}, 5),
        (600, {"expires": 0}, None),
        (600, {"options": {"expires": 30}}, 30),
        (600, {"options": {"expires": None}}, None),
    ],
)
def test_when_a_run_expires(fleet: Fleet, every: float, more: dict[str, Any], seconds: float | None) -> None:
    fleet.add("x", every, **more)
    fleet.app.sender.now = lambda: fleet.clock.time
    fleet.run(every, fleet.scheduler())
    (message,) = fleet.sent()
    assert message.expires == (None if seconds is None else pytest.approx(fleet.clock.time + seconds))


@pytest.mark.parametrize(
    ("more", "seconds"), [({}, 90), ({"expires": 5}, 5), ({"expires": 5, "options": {"expires": 7}}, 7)]
)
def test_what_the_task_says_counts_behind_the_entry(fleet: Fleet, more: dict[str, Any], seconds: float) -> None:
    @fleet.app.task(name="short", expires=90)
    def short() -> None: ...

    fleet.add("x", 600, task="short", **more)
    fleet.app.sender.now = lambda: fleet.clock.time
    fleet.run(600, fleet.scheduler())
    (message,) = fleet.sent()
    assert message.expires == pytest.approx(fleet.clock.time + seconds)


def test_what_is_caught_up_has_time_to_run(fleet: Fleet) -> None:
    fleet.add("x", crontab(minute=0), catch_up="all")
    fleet.run(1, fleet.scheduler())
    fleet.clock.time += 4 * 3600 + 100 - 1
    fleet.run(1, fleet.scheduler())
    now = START.timestamp() + 4 * 3600 + 100
    assert [round(message.expires - now) for message in fleet.sent() if message.expires] == [3600, 3600, 3600, 3500]


def test_a_task_that_nobody_knows_here_is_sent_by_name(fleet: Fleet) -> None:
    fleet.add("x", 5, task="elsewhere.task")
    fleet.run(5, fleet.scheduler())
    assert [message.task for message in fleet.sent()] == ["elsewhere.task"]


def test_a_single_one_is_sent_once_and_never_again(fleet: Fleet) -> None:
    fleet.add("x", clocked(START + timedelta(hours=1)))
    scheduler = fleet.scheduler()
    fleet.run(3 * 3600, scheduler)
    fleet.run(3600, fleet.scheduler())
    assert len(fleet.sent()) == 1
    assert scheduler.next_of("x") is None


def test_entries_that_come_and_go_while_it_runs(fleet: Fleet) -> None:
    fleet.add("x", 10)
    scheduler = fleet.scheduler(max_interval=1)
    fleet.run(5, scheduler)
    fleet.add("y", 2)
    fleet.run(10, scheduler)
    names = Counter(message.headers["periodic_task_name"] for message in fleet.sent())
    assert names == {"x": 1, "y": 5}
    fleet.app.conf.beat_schedule = {}
    fleet.run(30, scheduler)
    assert fleet.sent() == []
    assert scheduler.entries == {}


def test_a_changed_schedule_counts_from_now(fleet: Fleet) -> None:
    fleet.add("x", 3600)
    scheduler = fleet.scheduler(max_interval=1)
    fleet.run(3000, scheduler)
    fleet.add("x", 600)
    fleet.run(599, scheduler)
    assert fleet.sent() == []
    fleet.run(2, scheduler)
    assert len(fleet.sent()) == 1


def test_other_changes_leave_it_where_it_is(fleet: Fleet) -> None:
    fleet.add("x", 3600)
    scheduler = fleet.scheduler(max_interval=1)
    fleet.run(3000, scheduler)
    fleet.add("x", 3600, args=[5])
    fleet.run(600, scheduler)
    (message,) = fleet.sent()
    assert message.body.startswith(b"[[5]")


def test_the_schedule_of_the_scheduler_that_was_started_last_counts(fleet: Fleet, caplog: Any) -> None:
    fleet.add("x", 10)
    old = fleet.scheduler(book=Fixed(fleet, 10))
    fleet.run(15, old)
    new = fleet.scheduler(book=Fixed(fleet, 4))
    fleet.run(21, old, new)
    assert len(fleet.sent()) == 1 + 5
    assert caplog.text.count("has another schedule in a scheduler that was started later") == 1
    fleet.run(200, old)  # the new one is gone: it is taken over
    assert fleet.state("x").fingerprint == Fixed(fleet, 10).entry.fingerprint
    assert 10 <= len(fleet.sent()) <= 15


def test_a_paused_entry_goes_on_from_when_it_is_resumed(fleet: Fleet) -> None:
    fleet.add("x", crontab(minute="*/10"))
    scheduler = fleet.scheduler(max_interval=1)
    fleet.run(700, scheduler)
    assert len(fleet.sent()) == 1
    fleet.add("x", crontab(minute="*/10"), enabled=False)
    fleet.run(3000, scheduler)
    assert fleet.state("x").fingerprint == PAUSED
    fleet.add("x", crontab(minute="*/10"))
    fleet.run(100, scheduler)
    assert fleet.sent() == []
    fleet.run(600, scheduler)
    assert len(fleet.sent()) == 1
    assert fleet.state("x").count == 2


@pytest.mark.parametrize("stepwise", [False, True])
def test_an_outage_loses_no_slot_and_says_so_rarely(fleet: Fleet, stepwise: bool, caplog: Any) -> None:
    fleet.stepwise = stepwise
    fleet.add("x", 1, catch_up="all")
    scheduler = fleet.scheduler()
    fleet.run(5, scheduler)
    ports: list[Any] = [scheduler._publisher, scheduler._ledger]
    for port in ports:
        port.fails = {name: away() for name in ("publish", "publish_if", "change", "read")}
    fleet.run(60, scheduler)
    assert len(fleet.sent()) == 5
    errors = [record for record in caplog.records if record.levelname == "ERROR"]
    assert 3 <= len(errors) <= 8
    for port in ports:
        port.fails = {}
    fleet.run(5, scheduler)
    assert len(fleet.sent()) == 65
    assert fleet.state("x").count == 70


@pytest.mark.parametrize("stepwise", [False, True])
@pytest.mark.parametrize("method", ["publish", "publish_if", "change"])
def test_an_answer_that_was_lost_sends_nothing_twice(fleet: Fleet, stepwise: bool, method: str) -> None:
    fleet.stepwise = stepwise
    fleet.add("x", 10)
    scheduler = fleet.scheduler()
    fleet.run(9, scheduler)
    port: Any = scheduler._ledger if method == "change" else scheduler._publisher
    port.fails_after = {method: away(uncertain=True)}
    fleet.run(8, scheduler, fleet.scheduler())
    messages = fleet.sent()
    if method == "publish" and stepwise:  # nobody knows whether it is there: another takes its place
        locks = {message.headers[LOCK]["key"] for message in messages}
        assert locks == {slot_key("x", START + timedelta(seconds=10))}
        assert fleet.lock(locks.pop()) == messages[-1].id.encode()
    else:
        assert len(messages) == 1
    assert fleet.state("x").count == 1
    assert fleet.state("x").id == messages[-1].id


@pytest.mark.parametrize("moment", ["before", "claimed", "published"])
def test_on_two_servers_a_death_in_between_is_made_good(fleet: Fleet, moment: str) -> None:
    fleet.stepwise = True
    fleet.add("x", 10)
    dying, other = fleet.scheduler(), fleet.scheduler()
    fleet.run(5, dying, other)
    publisher: Any = dying._publisher
    ledger: Any = dying._ledger
    if moment == "before":
        ledger.fails = {"change": Killed()}
    elif moment == "claimed":
        publisher.fails = {"publish": Killed()}
    else:
        publisher.fails_after = {"publish": Killed()}
    fleet.clock.time = START.timestamp() + 10
    with pytest.raises(Killed):
        dying.tick()
    fleet.run(2.9, other)
    first = fleet.sent()
    assert len(first) == {"before": 1, "claimed": 0, "published": 1}[moment]
    fleet.run(1, other)
    second = fleet.sent()
    key = slot_key("x", START + timedelta(seconds=10))
    if moment == "before":
        assert second == []
        return
    assert len(second) == 1
    assert second[0].headers[LOCK] == {"key": key, "for": 3660.0, "until": "kept", "sole": True}
    assert fleet.lock(key) == second[0].id.encode(), "of two messages the last one runs"
    assert fleet.state("x").id == second[0].id
    assert fleet.state("x").count == 1


def test_on_two_servers_what_has_begun_is_not_sent_again(fleet: Fleet) -> None:
    fleet.stepwise = True
    fleet.add("x", 10)
    dying, other = fleet.scheduler(), fleet.scheduler()
    fleet.run(5, dying, other)
    publisher: Any = dying._publisher
    publisher.fails_after = {"publish": Killed()}
    fleet.clock.time = START.timestamp() + 10
    with pytest.raises(Killed):
        dying.tick()
    (first,) = fleet.sent()
    fleet.change(slot_key("x", START + timedelta(seconds=10)), first.id.encode() + b" started")
    fleet.run(9, other)
    assert fleet.sent() == []
    assert not fleet.state("x").sending
    fleet.run(2, other)
    assert len(fleet.sent()) == 1


@pytest.mark.parametrize("stepwise", [False, True])
def test_skip_leaves_out_slots_while_a_run_goes_on(fleet: Fleet, stepwise: bool) -> None:
    fleet.stepwise = stepwise
    fleet.add("x", 1, overlap="skip")
    schedulers = [fleet.scheduler(), fleet.scheduler()]
    fleet.run(5.5, *schedulers)
    (first,) = fleet.sent()
    assert first.headers[LOCK]["key"] == running_key("x")
    assert fleet.lock(running_key("x")) == first.id.encode()
    assert fleet.state("x").slot == START + timedelta(seconds=5)
    assert fleet.state("x").count == 1
    assert fleet.state("x").id == first.id
    fleet.change(running_key("x"), first.id.encode() + b" started")
    fleet.run(5, *schedulers)
    assert fleet.sent() == []
    fleet.change(running_key("x"), None)  # its completion frees it
    fleet.run(5, *schedulers)
    assert len(fleet.sent()) == 1


def test_skip_waits_no_longer_than_the_run_may_start(fleet: Fleet) -> None:
    fleet.add("x", 100, overlap="skip")
    fleet.run(350, fleet.scheduler())
    assert len(fleet.sent()) == 3  # nobody took them, and they expired


def test_queue_asks_for_a_seat(fleet: Fleet) -> None:
    fleet.add("x", 10, overlap="queue")
    fleet.run(20, fleet.scheduler())
    assert [message.headers[SEAT] for message in fleet.sent()] == ["beat:x", "beat:x"]


def test_a_unique_task_is_sent_under_its_lock(fleet: Fleet) -> None:
    @fleet.app.task(name="tasks.alone", unique=True)
    def alone() -> None: ...

    fleet.add("x", 10, task="tasks.alone")
    fleet.run(35, fleet.scheduler(), fleet.scheduler())
    (message,) = fleet.sent()
    assert fleet.lock(message.headers[LOCK]["key"]) == message.id.encode()


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"options": {"idempotency_key": "x"}}, "'idempotency_key' cannot be given"),
        ({"task": "tasks.alone", "overlap": "skip"}, "cannot go with a unique task"),
        ({"task": "tasks.few", "overlap": "queue"}, "cannot go with max_concurrency"),
        ({"task": "tasks.early", "overlap": "queue"}, "needs acks_late=True of tasks.early"),
        ({"schedule": "never"}, "schedule: 'never'"),
    ],
)
def test_what_cannot_be_is_told_at_the_start(fleet: Fleet, more: dict[str, Any], says: str) -> None:
    @fleet.app.task(name="tasks.alone", unique=True)
    def alone() -> None: ...

    @fleet.app.task(name="tasks.few", max_concurrency=2)
    def few() -> None: ...

    @fleet.app.task(name="tasks.early", acks_late=False)
    def early() -> None: ...

    fleet.add("x", more.pop("schedule", 10), **more)
    with pytest.raises(ImproperlyConfigured, match=f"entry 'x': .*{says}"):
        fleet.scheduler().tick()


def test_a_bad_change_leaves_all_as_it_was(fleet: Fleet, caplog: Any) -> None:
    fleet.add("x", 1)
    scheduler = fleet.scheduler(max_interval=1)
    fleet.run(5, scheduler)
    fleet.add("y", "never")
    fleet.run(5, scheduler)
    assert len(fleet.sent()) == 10
    assert caplog.text.count("The entries stay as they were") == 1


def test_one_that_cannot_be_sent_holds_up_nobody(fleet: Fleet, caplog: Any) -> None:
    fleet.add("bad", 1, args=[object()])
    fleet.add("good", 1)
    fleet.run(10.5, fleet.scheduler())
    names = Counter(message.headers["periodic_task_name"] for message in fleet.sent())
    assert names == {"good": 10}
    assert caplog.text.count("Cannot send entry 'bad'") == 1


def test_many_intervals_are_not_all_due_at_once(fleet: Fleet) -> None:
    for number in range(100):
        fleet.add(f"x{number}", 10)
    fleet.add("fast", 0.1)
    fleet.add("clock", crontab(minute="*"))
    fleet.run(5, fleet.scheduler(), fleet.scheduler())
    slots = [fleet.state(f"x{number}").slot for number in range(100)]
    assert len(set(slots)) == 100
    assert min(slots) >= START
    assert max(slots) < START + timedelta(seconds=1)
    assert 48 <= sum(message.headers["periodic_task_name"] == "fast" for message in fleet.sent()) <= 50
    assert fleet.state("clock").slot == START, "what a clock fixes is not moved"


def test_a_state_that_is_no_state_begins_anew(fleet: Fleet) -> None:
    fleet.add("x", 10)
    fleet.change(state_key("x"), b"nonsense")
    fleet.run(10, fleet.scheduler())
    assert len(fleet.sent()) == 1


def test_a_state_that_is_taken_away_begins_anew(fleet: Fleet) -> None:
    fleet.add("x", 10)
    scheduler = fleet.scheduler()
    fleet.run(15, scheduler)
    fleet.change(state_key("x"), None)
    fleet.run(10, scheduler)
    assert len(fleet.sent()) == 1
    assert State.decode(fleet.lock(state_key("x"))) is not None


def test_eager_tasks_run_here_once(fleet: Fleet) -> None:
    ran: list[int] = []

    @fleet.app.task(name="tasks.here")
    def here(number: int) -> None:
        ran.append(number)

    fleet.app.conf.task_always_eager = True
    fleet.add("x", 10, task="tasks.here", args=[7])
    fleet.run(25, fleet.scheduler(), fleet.scheduler())
    assert ran == [7, 7]


def test_a_look_at_nothing_due_costs_no_call_but_a_word_that_it_is_there(fleet: Fleet) -> None:
    for number in range(100):
        fleet.add(f"x{number}", 1000 + number)
    scheduler = fleet.scheduler(max_interval=5)
    fleet.run(1, scheduler)
    ports: list[Any] = [scheduler._publisher, scheduler._ledger]
    before = [len(port.calls) for port in ports]
    fleet.run(500, scheduler)
    publisher, ledger = (len(port.calls) - count for port, count in zip(ports, before, strict=True))
    assert (publisher, ledger) == (0, 2 * 500 / EVERY)


def test_a_year_in_a_moment(fleet: Fleet) -> None:
    fleet.add("x", crontab(minute=30, hour=2, tz="Europe/Oslo"))
    rare = {"max_interval": 1e9, "book": Written(fleet.app, every=1e9)}
    fleet.run(366 * 86400, fleet.scheduler(**rare), fleet.scheduler(**rare))
    assert len(fleet.sent()) == 366
    assert fleet.state("x").slot == datetime(2027, 12, 1, 1, 30, tzinfo=UTC)
