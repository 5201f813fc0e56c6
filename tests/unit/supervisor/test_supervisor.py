"""What the supervisor makes of deaths, limits and signals. Nothing is forked here, and nobody is killed."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable
from typing import Any

import pytest

from celeriac.supervisor import supervisor as module
from celeriac.supervisor.process import END_OF_AGENT
from celeriac.worker.burial import NO_MORE, Died
from celeriac.worker.slot import (
    CONNECTING,
    LEFT,
    READY,
    STARTING,
)
from tests.unit.supervisor.bench import EXIT_1, KILLED, Bench

# -- deaths --------------------------------------------------------------------------------------------------------


def test_the_slot_names_the_culprit(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    owner = bench.first.owner
    bench.first.slot.begin("o:7", "id-7", 1.0, 0.0, 0.0)
    bench.first.slot.pulse(1.0, 42)
    bench.now += 10
    bench.dies(bench.first, KILLED)
    assert bench.told() == [Died(owner=owner, how="signal 9 (SIGKILL)", token="o:7", id="id-7", tasks=42)]
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert "died by signal 9 (SIGKILL), sent from outside" in record.getMessage()
    assert "while it ran task id-7" in record.getMessage()
    assert bench.first.pid == 0
    assert bench.first.slot.running() is None


@pytest.mark.parametrize("early", [False, True])
def test_whether_its_message_is_gone_is_told(bench: Bench, early: bool) -> None:
    bench.first.slot.begin("o:7", "id-7", 1.0, 0.0, 0.0, early, "mine" if early else "")
    bench.dies(bench.first, KILLED)
    assert [(died.early, died.reply_to) for died in bench.told()] == [(early, "mine" if early else "")]


def test_between_tasks_there_is_none(bench: Bench) -> None:
    bench.first.slot.begin("o:7", "id-7", 1.0, 0.0, 0.0)
    bench.first.slot.end()
    bench.now += 10
    bench.dies(bench.first, EXIT_1)
    (died,) = bench.told()
    assert (died.how, died.token, died.id, died.many) == ("exit code 1", "", "", False)


@pytest.mark.parametrize(
    ("status", "how"),
    [
        (signal.SIGSEGV, "signal 11 (SIGSEGV)"),
        (signal.SIGABRT | 0x80, "signal 6 (SIGABRT)"),
        (40, "signal 40 (real-time)"),
        (0, "exit code 0"),
        (70 << 8, "exit code 70"),
    ],
)
def test_whatever_it_died_of(bench: Bench, status: int, how: str) -> None:
    bench.dies(bench.first, status)
    assert [died.how for died in bench.told()] == [how]


def test_of_many_threads_none_is_named(make: Callable[..., Bench]) -> None:
    bench = make(pool="threads")
    assert bench.others == []
    bench.first.slot.begin("o:7", "id-7", 1.0, 0.0, 0.0)
    bench.dies(bench.first, KILLED)
    (died,) = bench.told()
    assert (died.token, died.many) == ("", True)


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_whom_the_shutdown_killed_ran_no_culprit(make: Callable[..., Bench], pool: str) -> None:
    bench = make(pool=pool)
    bench.first.slot.begin("o:7", "id-7", 1.0, 0.0, 0.0)
    bench.made._on_stop(signal.SIGQUIT, None)
    bench.made._press()
    bench.dies(bench.first, KILLED)
    (died,) = bench.told()
    assert (died.token, died.many) == ("", False)


def test_an_end_of_its_own_during_a_shutdown_has_its_culprit(bench: Bench) -> None:
    bench.first.slot.begin("o:7", "id-7", 1.0, 0.0, 0.0)
    bench.made._on_stop(signal.SIGTERM, None)
    bench.made._press()
    bench.dies(bench.first, signal.SIGSEGV)
    assert [died.token for died in bench.told()] == ["o:7"]


def test_the_agents_death_is_told_to_nobody(bench: Bench) -> None:
    bench.dies(bench.agent, KILLED)
    assert bench.told() == []
    bench.now += 1
    bench.made._fit()
    assert bench.agent.pid


def test_only_the_dead_are_buried(bench: Bench) -> None:
    bench.made._reap()
    assert bench.told() == []
    assert all(place.pid for place in (bench.agent, bench.first, *bench.others))


# -- starting again ------------------------------------------------------------------------------------------------


def test_a_crash_loop_slows_down_and_a_long_life_ends_it(make: Callable[..., Bench]) -> None:
    bench = make(concurrency=1)
    delays = []
    for _ in range(12):
        bench.dies(bench.first, EXIT_1)
        delays.append(round(bench.made._starts.not_before - bench.now, 3))
        bench.now = bench.made._starts.not_before
        bench.made._fit()
        assert bench.first.pid
    assert delays == [0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 30.0, 30.0, 30.0, 30.0]
    assert bench.made._slots.words.failing == 12
    bench.first.slot.live(1, READY)
    bench.made._enforce()
    assert bench.made._slots.words.failing == 12, "it has only just come up"
    bench.now += 5
    bench.made._enforce()
    assert (bench.made._starts.failures, bench.made._slots.words.failing) == (0, 0)
    bench.dies(bench.first, EXIT_1)
    bench.made._fit()
    assert bench.first.pid, "at once"


def test_a_crash_loop_is_said_in_one_line_now_and_then(make: Callable[..., Bench], caplog: Any) -> None:
    bench = make(concurrency=2)
    for _ in range(7):
        for child in (bench.first, *bench.others):
            bench.dies(child, EXIT_1)
        bench.now = bench.made._starts.not_before
        bench.made._fit()
    said = [record.getMessage() for record in caplog.records if record.levelno == logging.CRITICAL]
    assert len(said) == 2, "at the third and the sixth wave"
    assert said[0].startswith("5 processes died within 1 s before they worked, each by exit code 1: look at the lines")
    assert said[0].endswith("next try in 0.8 s")
    assert "\n" not in said[0]


def test_nobody_is_started_before_its_time(bench: Bench) -> None:
    bench.dies(bench.first, EXIT_1)
    bench.made._fit()
    assert bench.first.pid == 0
    assert bench.others[0].pid
    bench.now = bench.made._starts.not_before
    bench.made._fit()
    assert bench.first.pid


def test_a_task_that_kills_its_child_does_not_keep_the_others_waiting(bench: Bench) -> None:
    for _ in range(5):
        bench.first.slot.begin("o:7", "id-7", 1.0, 0.0, 0.0)
        bench.dies(bench.first, KILLED)
        bench.made._fit()
        assert bench.first.pid


def test_a_child_that_leaves_by_itself_is_replaced_at_once(bench: Bench) -> None:
    bench.first.slot.live(1, LEFT)
    bench.first.slot.pulse(1.0, 5)
    bench.dies(bench.first, 0)
    bench.made._fit()
    assert bench.first.pid


def test_a_child_that_leaves_before_its_first_task_again_and_again_is_slowed_down(bench: Bench) -> None:
    bench.dies(bench.first, 0)
    bench.made._fit()
    assert bench.first.pid == 0


def test_one_that_dies_before_it_is_up_has_failed_however_long_it_took(bench: Bench) -> None:
    bench.first.slot.live(1, STARTING)
    bench.now += 20
    bench.dies(bench.first, EXIT_1)
    assert bench.made._starts.failures == 1
    assert bench.told() == [], "it has held nothing, and an agent without a broker reads nothing"


def test_no_room_for_another_process(bench: Bench, monkeypatch: Any, caplog: Any) -> None:
    def full(main: Any) -> int:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    bench.dies(bench.first, KILLED)
    monkeypatch.setattr(module, "fork", full)
    bench.now = bench.made._starts.not_before
    bench.made._fit()
    assert "Cannot start a child: [Errno 11] Resource temporarily unavailable; next try in" in caplog.text
    assert bench.first.pid == 0
    monkeypatch.setattr(module, "fork", bench._fork)
    bench.now = bench.made._starts.not_before
    bench.made._fit()
    assert bench.first.pid


def test_a_new_child_is_another_owner_with_a_blank_slot(bench: Bench) -> None:
    before = bench.first.owner
    bench.first.slot.begin("o:7", "id-7", 1.0, 5.0, 4.0)
    bench.first.slot.live(1, READY)
    bench.first.over_limit, bench.first.over_token = 4.0, "o:7"
    bench.now += 10
    bench.dies(bench.first, KILLED)
    bench.now += 1
    bench.made._fit()
    assert bench.first.owner not in ("", before)
    assert (bench.first.slot.running(), bench.first.slot.state) == (None, 0)
    assert (bench.first.over_limit, bench.first.over_token, bench.first.ended) == (0.0, "", False)


# -- limits --------------------------------------------------------------------------------------------------------


def test_the_hard_limit(bench: Bench) -> None:
    bench.first.slot.begin("o:7", "id-7", bench.now, bench.now + 5.0, 5.0)
    bench.others[0].slot.begin("o:8", "id-8", bench.now, 0.0, 0.0)
    bench.now += 5.0
    bench.made._enforce()
    assert bench.kills == []
    bench.now += 0.1
    bench.made._enforce()
    assert bench.kills == [("child-1", signal.SIGKILL)]
    bench.dies(bench.first, KILLED)
    (died,) = bench.told()
    assert (died.token, died.limit) == ("o:7", 5.0)


def test_a_task_that_began_while_the_kill_was_under_way_is_no_culprit(bench: Bench) -> None:
    bench.first.slot.begin("o:7", "id-7", bench.now, bench.now + 5.0, 5.0)
    bench.now += 6
    bench.made._enforce()
    bench.first.slot.end()
    bench.first.slot.begin("o:8", "id-8", bench.now, 0.0, 0.0)
    bench.dies(bench.first, KILLED)
    (died,) = bench.told()
    assert (died.token, died.id) == ("", "")


def hang(bench: Bench, seconds: int) -> None:
    for _ in range(seconds * 5):
        bench.now += 0.2
        bench.agent.slot.pulse(bench.now, 0)
        bench.others[0].slot.pulse(bench.now, 0)
        bench.made._enforce()


def test_one_that_does_not_come_up_shows_its_stacks_and_is_replaced(bench: Bench, caplog: Any) -> None:
    bench.agent.slot.live(1, CONNECTING)
    bench.first.slot.live(1, STARTING)
    bench.others[0].slot.live(2, CONNECTING)  # that may take as long as the broker is away
    hang(bench, 59)
    assert bench.kills == []
    hang(bench, 2)
    (asked, killed) = bench.kills
    assert asked[0] == killed[0] == "child-1"
    assert killed[1] == signal.SIGKILL
    assert "did not come up within 60 s: it is replaced" in caplog.text
    assert "child-1 (pid 4000001) was here:" in caplog.text
    bench.dies(bench.first, KILLED)
    assert bench.made._starts.failures == 1


def test_a_loop_that_stands_still_is_replaced_but_not_beside_a_task(bench: Bench, caplog: Any) -> None:
    bench.agent.slot.live(1, CONNECTING)
    bench.first.slot.live(1, READY)
    bench.others[0].slot.live(2, READY)
    bench.first.slot.begin("o:7", "id-7", 1.0, 0.0, 0.0)
    hang(bench, 100)
    assert bench.kills == [], "a task in C code keeps the loop from beating"
    bench.first.slot.end()
    hang(bench, 61)
    assert [name for name, _ in bench.kills] == ["child-1", "child-1"]
    assert "its event loop has not moved for 60 s" in caplog.text


def test_a_supervisor_that_was_stopped_itself_takes_nobody_for_hung(bench: Bench) -> None:
    for place in (bench.agent, bench.first, *bench.others):
        place.slot.live(1, READY)
    bench.now += 500
    bench.made._enforce()
    assert bench.kills == []


def test_who_died_meanwhile_is_not_killed(bench: Bench) -> None:
    bench.first.slot.begin("o:7", "id-7", bench.now, bench.now + 5.0, 5.0)
    bench.now += 6
    bench.dead[bench.first.pid] = KILLED
    bench.made._enforce()
    bench.made._reap()
    bench.made._enforce()
    assert bench.kills == []


# -- stopping ------------------------------------------------------------------------------------------------------


def test_warm(bench: Bench) -> None:
    made = bench.made
    made._on_stop(signal.SIGTERM, None)
    made._press()
    made._press()
    told = ("agent", "child-1", "child-2")
    assert bench.kills == [(name, signal.SIGTERM) for name in told], "each hears of it once"
    for child in (bench.first, *bench.others):
        bench.dies(child, 0)
    assert not made._finished()
    bench.told()
    made._press()
    made._press()
    assert bench.kills[3:] == [("agent", END_OF_AGENT)]
    assert os.read(made._notices_read, 100) == NO_MORE
    bench.dies(bench.agent, 0)
    assert made._finished()
    assert not made._cold


@pytest.mark.parametrize(
    "numbers", [(signal.SIGQUIT,), (signal.SIGTERM, signal.SIGTERM), (signal.SIGINT, signal.SIGTERM)]
)
def test_cold(bench: Bench, numbers: tuple[int, ...]) -> None:
    for number in numbers:
        bench.made._on_stop(number, None)
    bench.made._press()
    assert bench.made._cold
    assert [kill for kill in bench.kills if kill[1] == signal.SIGKILL] == [
        ("child-1", signal.SIGKILL),
        ("child-2", signal.SIGKILL),
    ]


def test_overdue(make: Callable[..., Bench]) -> None:
    bench = make(grace=3.0)
    bench.made._on_stop(signal.SIGTERM, None)
    bench.now += 10.9
    bench.made._press()
    assert (signal.SIGKILL not in {number for _, number in bench.kills}) is True
    bench.now += 0.2
    bench.made._press()
    assert bench.kills[-2:] == [("child-1", signal.SIGKILL), ("child-2", signal.SIGKILL)]
    assert not bench.made._cold


def test_an_agent_that_does_not_leave_is_killed(bench: Bench) -> None:
    bench.made._on_stop(signal.SIGTERM, None)
    for child in (bench.first, *bench.others):
        bench.dies(child, 0)
    bench.made._press()
    bench.now += 9
    bench.made._press()
    assert bench.kills[-1] == ("agent", signal.SIGKILL)


def test_nobody_is_started_while_stopping(bench: Bench) -> None:
    bench.dies(bench.first, 0)
    bench.made._on_stop(signal.SIGTERM, None)
    before = len(bench.started)
    bench.made._fit()
    assert len(bench.started) == before


def test_a_child_that_was_just_being_forked_is_told_too(bench: Bench) -> None:
    """The signal came inside the fork, before its pid was known."""
    pid, bench.first.pid = bench.first.pid, 0
    bench.made._on_stop(signal.SIGTERM, None)
    bench.first.pid = pid
    bench.made._press()
    assert ("child-1", signal.SIGTERM) in bench.kills


def test_ready_is_said_once_when_all_are(bench: Bench) -> None:
    said: list[bool] = []
    bench.made._ready = lambda: said.append(True)
    bench.first.slot.live(1, READY)
    bench.made._announce()
    assert said == []
    bench.others[0].slot.live(2, READY)
    bench.made._announce()
    bench.made._announce()
    assert said == [True]


def test_threads_of_the_app_are_warned_of(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    import threading

    stop = threading.Event()
    thread = threading.Thread(target=stop.wait, name="of-the-app", daemon=True)
    thread.start()
    bench.made._warn_about_threads()
    stop.set()
    thread.join()
    assert "of-the-app" in caplog.text
